"""The file of keys: what is written can be read, what is damaged is named, nothing is lost."""

import fcntl
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inferdock.config.settings import KeysSettings
from inferdock.domain.errors import ConfigError, ResourceError
from inferdock.keys import store
from inferdock.keys.key import MAX_KEYS, digest_of
from inferdock.keys.store import MAX_FILE_BYTES, KeyFile, key_file

NOW = 1_700_000_000.0


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "state" / "keys.jsonl")


def line_of(**changes: object) -> str:
    fields: dict[str, object] = {
        "id": "aaaaaaaa",
        "name": "n",
        "sha256": "0" * 64,
        "created": "2026-01-01T00:00:00Z",
        "slot": 0,
    }
    return json.dumps({**fields, **changes})


def write(file: KeyFile, *lines: str) -> None:
    file.path.parent.mkdir(exist_ok=True)
    file.path.write_text("\n".join(lines) + "\n")
    file.path.chmod(0o600)


def test_where_there_is_no_file_there_are_no_keys(file):
    assert file.read() == ()
    assert file.stamp() is None
    assert file.warning() is None


def test_what_is_created_is_read_again(file):
    key, _ = file.create(
        name="alice ✓",
        now=NOW,
        expires_at=NOW + 60,
        models=["b", "a", "a"],
        requests_per_minute=1,
        tokens_per_minute=2,
        concurrent_streams=3,
        priority=-4,
        tenant="team",
    )
    assert file.read() == (key,)
    assert key.models == {"a", "b"}
    assert (key.requests_per_minute, key.tokens_per_minute, key.concurrent_streams) == (1, 2, 3)
    assert (key.priority, key.tenant, key.created_at, key.expires_at) == (-4, "team", NOW, NOW + 60)


def test_a_key_without_further_wishes_has_no_limits_and_is_its_own_tenant(file):
    key, _ = file.create(name="n", now=NOW)
    assert not key.limited
    assert key.expires_at == math.inf
    assert key.tenant == key.id


def test_only_the_digest_of_the_text_is_kept(file):
    key, text = file.create(name="n", now=NOW)
    written = file.path.read_text()
    assert digest_of(text.encode()).hex() in written
    assert text.rpartition("_")[2] not in written
    assert key.digest == digest_of(text.encode())


def test_the_file_its_folder_and_its_lock_are_for_the_owner_only(file):
    file.create(name="n", now=NOW)
    assert file.path.parent.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in file.path.parent.iterdir()} == {0o600}
    assert file.warning() is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_file_that_others_may_open_is_warned_of(file, mode):
    file.create(name="n", now=NOW)
    file.path.chmod(mode)
    assert f"{mode:04o}" in (file.warning() or "")


def test_slots_count_up_and_are_not_given_again_after_a_revocation(file):
    first, _ = file.create(name="a", now=NOW)
    file.revoke(first.id, now=NOW)
    assert [file.create(name="b", now=NOW)[0].slot for _ in range(2)] == [1, 2]


def test_an_id_that_is_taken_is_not_given_again(file, monkeypatch):
    first, _ = file.create(name="a", now=NOW)
    ids = iter([first.id, first.id, "bbbbbbbb"])
    monkeypatch.setattr(store, "new_id", lambda: next(ids))
    assert file.create(name="b", now=NOW)[0].id == "bbbbbbbb"


def test_revoking_keeps_the_line_and_the_first_time(file):
    key, _ = file.create(name="n", now=NOW)
    assert file.revoke(key.id, now=NOW + 1).revoked_at == NOW + 1
    assert file.revoke(key.id, now=NOW + 9).revoked_at == NOW + 1
    assert [k.revoked_at for k in file.read()] == [NOW + 1]


def test_revoking_an_unknown_key_is_refused_with_a_cure(file):
    with pytest.raises(ConfigError, match=r"no key zzz.*keys list"):
        file.revoke("zzz", now=NOW)


def test_the_stamp_changes_with_the_file_and_only_then(file):
    key, _ = file.create(name="n", now=NOW)
    before = file.stamp()
    assert file.stamp() == before
    file.revoke(key.id, now=NOW)
    assert file.stamp() != before


DAMAGED = {
    "not JSON": "{",
    "no object": "[]",
    "not UTF-8": "\udcff",
    "deep": "[" * 5000,
    "a field missing": '{"id": "aaaaaaab"}',
    "an unknown field": line_of(id="aaaaaaab", slot=1, superuser=True),
    "a bad id": line_of(id="../../x", slot=1),
    "an id with a line end": line_of(id="aaaaaaaa\n", slot=1),
    "a short digest": line_of(id="aaaaaaab", slot=1, sha256="00"),
    "a slot beyond the counters": line_of(id="aaaaaaab", slot=MAX_KEYS),
    "a negative slot": line_of(id="aaaaaaab", slot=-1),
    "a limit of zero": line_of(id="aaaaaaab", slot=1, requests_per_minute=0),
    "a huge limit": line_of(id="aaaaaaab", slot=1, tokens_per_minute=10**30),
    "a time without zone": line_of(id="aaaaaaab", slot=1, expires="2026-01-01T00:00:00"),
    "a time of long ago": line_of(id="aaaaaaab", slot=1, expires="0001-01-01T00:00:00Z"),
    "a time past the calendar": line_of(id="aaaaaaab", slot=1, expires="9999-12-31T23:59:59-23:59"),
    "an endless name": line_of(id="aaaaaaab", slot=1, name="n" * 101),
    "the same id twice": line_of(slot=1),
    "the same slot twice": line_of(id="aaaaaaab"),
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_line_is_named_with_its_number_and_a_cure(file, line):
    write(file, line_of())
    with file.path.open("ab") as out:
        out.write(b"\n" + line.encode("utf-8", "surrogateescape") + b"\n")
    with pytest.raises(ConfigError, match="line 3 is not a key") as error:
        file.read()
    assert "Mend or delete that line" in error.value.cure
    assert len(error.value.message) < 400


def test_a_damaged_file_is_not_written_over(file):
    write(file, "{")
    with pytest.raises(ConfigError):
        file.create(name="n", now=NOW)
    assert file.path.read_text() == "{\n"


def test_empty_lines_do_not_matter(file):
    write(file, "", line_of(), " ", "")
    assert len(file.read()) == 1


def test_a_file_that_is_too_large_is_refused(file):
    write(file, " " * MAX_FILE_BYTES)
    with pytest.raises(ConfigError, match="larger than 16 MiB"):
        file.read()


def test_a_folder_or_a_pipe_in_its_place_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigError):
            KeyFile(path).read()


def test_a_file_that_cannot_be_read_is_said_with_a_cure(file, monkeypatch):
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store.os, "open", refuse)
    with pytest.raises(ConfigError, match=r"Permission denied.*keys\.file"):
        file.read()


def test_a_folder_that_cannot_be_written_is_said_with_a_cure(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(ResourceError, match=r"Cannot write the key file.*--file"):
        KeyFile(tmp_path / "taken" / "keys.jsonl").create(name="n", now=NOW)


@pytest.mark.parametrize("fields", [{"name": ""}, {"name": "n" * 101}, {"name": "n", "priority": 1001}])
def test_a_value_out_of_range_makes_no_key(file, fields):
    with pytest.raises(ConfigError, match="cannot be made"):
        file.create(now=NOW, **fields)
    assert not file.path.exists()


def test_a_full_file_takes_no_further_key(file):
    write(file, line_of(slot=MAX_KEYS - 1))
    with pytest.raises(ConfigError, match="is full"):
        file.create(name="n", now=NOW)


def test_a_file_never_grows_beyond_what_can_be_read(file, monkeypatch):
    monkeypatch.setattr(store, "MAX_FILE_BYTES", 100)
    with pytest.raises(ConfigError, match="would be larger"):
        file.create(name="n", now=NOW)
    assert not file.path.exists()


def test_the_target_of_a_link_is_replaced_and_the_link_stays(tmp_path):
    target = KeyFile(tmp_path / "real" / "keys.jsonl")
    target.create(name="a", now=NOW)
    link = tmp_path / "link"
    link.symlink_to(target.path)
    KeyFile(link).create(name="b", now=NOW)
    assert link.is_symlink()
    assert [key.name for key in target.read()] == ["a", "b"]


def test_what_a_writer_that_was_killed_left_does_not_stop_the_next(file):
    file.create(name="a", now=NOW)
    (file.path.parent / ".keys.jsonl.draft").write_text("half a li")
    file.create(name="b", now=NOW)
    assert len(file.read()) == 2


def test_a_lock_that_nobody_lets_go_is_said(file, monkeypatch):
    monkeypatch.setattr(store, "LOCK_WAIT_S", 0.05)
    file.create(name="a", now=NOW)
    with (file.path.parent / ".keys.jsonl.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ResourceError, match="Another process has held"):
            file.create(name="b", now=NOW)


def test_writers_at_the_same_time_lose_no_key(file):
    code = (
        "import sys; from pathlib import Path; from inferdock.keys.store import KeyFile\n"
        "for _ in range(5): KeyFile(Path(sys.argv[1])).create(name='n', now=1.0)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(file.path)]) for _ in range(3)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    assert sorted(key.slot for key in file.read()) == list(range(15))


def test_the_settings_name_the_file_or_leave_it_in_the_state_folder(tmp_path):
    assert key_file(KeysSettings(), tmp_path).path == tmp_path / "keys.jsonl"
    assert key_file(KeysSettings(file=Path("other")), tmp_path).path == Path("other")


def test_a_worker_reads_keys_without_the_library_of_the_settings():
    code = "import sys, inferdock.keys.store, inferdock.gateway.auth; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
