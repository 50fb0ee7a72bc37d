"""State folders: written atomically, owned by one platform, and believed only while that platform lives."""

import json
import os
import subprocess
import sys

import pytest

from inferdock.config.folders import default_state_dir
from inferdock.domain.errors import ResourceError, UnreachableError
from inferdock.supervisor.state import StateDir, read_state

STATE = {"pid": 1, "model": "m", "revision": "local-1", "engine": "sim", "url": "http://x", "replicas": []}


@pytest.fixture
def state_dir(tmp_path):
    """Make state folders below ``tmp_path``; all are let go at the end."""
    made: list[StateDir] = []

    def make(port: int) -> StateDir:
        made.append(StateDir(tmp_path, port))
        return made[-1]

    yield make
    for one in made:
        one.clear()


def test_the_state_folder_follows_xdg():
    assert str(default_state_dir({"XDG_STATE_HOME": "/s"})) == "/s/inferdock"


def test_a_running_platform_is_found_until_it_lets_go(state_dir, tmp_path):
    state = state_dir(8080)
    state.prepare()
    state.write(STATE | {"port": 8080})
    assert read_state(tmp_path, None)["port"] == 8080
    state.clear()
    with pytest.raises(UnreachableError, match="No platform"):
        read_state(tmp_path, None)


def test_what_a_killed_platform_left_is_not_believed_even_if_its_pid_lives_again(state_dir, tmp_path):
    state = state_dir(8080)
    state.prepare()
    state.clear()
    state.write(STATE | {"pid": os.getpid()})
    with pytest.raises(UnreachableError, match="No platform"):
        read_state(tmp_path, 8080)


@pytest.mark.parametrize("text", ["{", "[]", '{"pid": 1}', "null", "", "[" * 100_000])
def test_a_damaged_state_file_is_no_platform(state_dir, tmp_path, text):
    state = state_dir(1)
    state.prepare()
    (state.folder / "state.json").write_text(text)
    with pytest.raises(UnreachableError):
        read_state(tmp_path, None)


def test_two_platforms_must_be_told_apart(state_dir, tmp_path):
    for port in (1, 2):
        state = state_dir(port)
        state.prepare()
        state.write(STATE | {"port": port})
    with pytest.raises(UnreachableError, match="--port") as caught:
        read_state(tmp_path, None)
    assert "1, 2" in caught.value.message
    assert read_state(tmp_path, 2)["port"] == 2


def test_a_folder_that_another_platform_uses_is_refused(state_dir):
    state_dir(0).prepare()
    with pytest.raises(ResourceError, match="Another platform") as caught:
        state_dir(0).prepare()
    assert "--state-dir" in caught.value.cure


def test_preparing_again_keeps_the_lock_and_removes_the_old_announcement(state_dir):
    state = state_dir(0)
    state.prepare()
    state.announce.write_text("{}")
    state.prepare()
    assert not state.announce.exists()
    with pytest.raises(ResourceError):
        state_dir(0).prepare()


def test_the_lock_goes_with_its_process_however_it_ends(state_dir, tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from inferdock.supervisor.state import StateDir;"
        "s = StateDir(Path(sys.argv[1]), 0); s.prepare(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    state_dir(0).prepare()


def test_a_folder_that_cannot_be_made_is_one_sentence_with_its_cure(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="Cannot write to the state folder") as caught:
        StateDir(tmp_path / "file", 1).prepare()
    assert "--state-dir" in caught.value.cure


def test_readers_never_see_half_a_state(state_dir):
    state = state_dir(3)
    state.prepare()
    for count in range(20):
        state.write(STATE | {"count": count})
        assert json.loads((state.folder / "state.json").read_text())["count"] == count
    assert sorted(path.name for path in state.folder.iterdir()) == ["lock", "logs", "state.json"]
