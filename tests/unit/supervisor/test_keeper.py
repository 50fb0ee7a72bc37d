"""The keeper: mirrors its command, and leaves nothing behind however things end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

GRANDCHILD = """
import os, subprocess, sys, time
# A grandchild in a session of its own, which a signal to the process group would miss.
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
"""

SLEEPER = "import os,sys,time; open(sys.argv[1],'w').write(str(os.getpid())); time.sleep(300)"


class Kept:
    def __init__(self, *command: str) -> None:
        self.read, self.write = os.pipe()
        keeper = [sys.executable, "-m", "inferdock.supervisor.keeper", "--lifeline-fd", str(self.read), "--"]
        self.process = subprocess.Popen([*keeper, *command], pass_fds=[self.read])

    def close(self) -> None:
        for fd in (self.read, self.write):
            try:
                os.close(fd)
            except OSError:
                continue
        self.process.kill()
        self.process.wait()


@pytest.fixture
def kept():
    made: list[Kept] = []

    def make(*command: str) -> Kept:
        made.append(Kept(*command))
        return made[-1]

    yield make
    for one in made:
        one.close()


def gone(pid: int, within_s: float = 10) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def read_pids(path: Path) -> list[int]:
    deadline = time.monotonic() + 20
    while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return [int(pid) for pid in path.read_text().split()]


@pytest.mark.parametrize("status", [0, 3])
def test_the_commands_exit_status_is_the_keepers(kept, status):
    assert kept(sys.executable, "-c", f"raise SystemExit({status})").process.wait(20) == status


def test_a_signal_that_ended_the_command_is_told(kept):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert kept(sys.executable, "-c", code).process.wait(20) == 128 + signal.SIGKILL


def test_a_command_that_does_not_exist_is_127(kept):
    assert kept("/nowhere/nothing").process.wait(20) == 127


def test_sigterm_reaches_the_command(kept, tmp_path):
    path = tmp_path / "pids"
    code = "import signal,time,sys; signal.signal(15, lambda *_: sys.exit(7)); open(sys.argv[1],'w').write('1')"
    one = kept(sys.executable, "-c", code + "; time.sleep(60)", str(path))
    read_pids(path)
    one.process.terminate()
    assert one.process.wait(20) == 7


def test_grandchildren_that_outlive_the_command_are_ended(kept, tmp_path):
    path = tmp_path / "pids"
    one = kept(sys.executable, "-c", GRANDCHILD, str(path))
    _, grandchild = read_pids(path)
    assert one.process.wait(20) == 0
    assert gone(grandchild)


def test_when_the_lifeline_closes_everything_ends(kept, tmp_path):
    path = tmp_path / "pids"
    one = kept(sys.executable, "-c", GRANDCHILD + "time.sleep(300)", str(path))
    command, grandchild = read_pids(path)
    os.close(one.write)
    assert gone(command, 5)
    assert gone(grandchild, 5)


def test_a_command_that_ignores_sigterm_is_killed_when_the_lifeline_closes(kept, tmp_path):
    path = tmp_path / "pids"
    one = kept(sys.executable, "-c", "import signal; signal.signal(15, signal.SIG_IGN)\n" + SLEEPER, str(path))
    (command,) = read_pids(path)
    os.close(one.write)
    assert gone(command, 10)


def test_when_the_keeper_is_killed_its_command_dies(kept, tmp_path):
    path = tmp_path / "pids"
    one = kept(sys.executable, "-c", SLEEPER, str(path))
    (command,) = read_pids(path)
    one.process.kill()
    assert gone(command)
