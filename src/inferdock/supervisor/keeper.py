"""A small process between the supervisor and one child, so that nothing outlives the supervisor.

The supervisor starts ``python -m inferdock.supervisor.keeper --lifeline-fd N -- COMMAND...``. The keeper makes a
session of its own, becomes the reaper of all its descendants (also of those that leave the process group, as engine
workers may), starts COMMAND, passes SIGTERM and SIGINT on to it, and ends the whole tree

- when the lifeline pipe closes, which the kernel does however the supervisor dies (``kill -9`` included), and
- when COMMAND ends and leaves descendants behind.

If the keeper itself is killed, PR_SET_PDEATHSIG kills COMMAND, and the supervisor kills the process group.
Only the standard library is imported: one of these runs per child.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
TERM_GRACE_S = 2.0
"""Seconds between SIGTERM and SIGKILL once the supervisor is gone."""


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


def descendants(root: int) -> list[int]:
    """Process ids of all living descendants, read from /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            parent = _parent(int(entry))
            if parent is not None:
                children.setdefault(parent, []).append(int(entry))
    found: list[int] = []
    queue = [root]
    while queue:
        for child in children.get(queue.pop(), []):
            found.append(child)
            queue.append(child)
    return found


def _parent(pid: int) -> int | None:
    """Parent of a living process; None for zombies and processes that are gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in parentheses may hold anything, so read behind the last one: state, parent, ...
            state, parent = file.read().rpartition(b")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state == b"Z" else int(parent)


def _signal_all(number: int) -> int:
    alive = descendants(os.getpid())
    for pid in alive:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
    return len(alive)


def _reap() -> None:
    """Collect every child that has ended, adopted ones too."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def end_descendants(grace_s: float, clock: Callable[[], float] = time.monotonic) -> None:
    """SIGTERM to all descendants, SIGKILL to those left after ``grace_s`` seconds, until none is left."""
    deadline = clock() + grace_s
    _signal_all(signal.SIGTERM)
    while _signal_all(0) and clock() < deadline:
        _reap()
        time.sleep(0.02)
    while _signal_all(signal.SIGKILL):
        _reap()
        time.sleep(0.02)
    _reap()


def keep(lifeline_fd: int, command: list[str]) -> int:
    """Run ``command`` until it ends or the lifeline closes.

    Returns:
        The command's exit status; 128 + N when signal N ended it.
    """
    if os.getsid(0) != os.getpid():  # the supervisor starts it as a leader already
        os.setsid()
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, preexec_fn=lambda: _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        )
    except OSError as exc:
        print(f"cannot start {command[0]}: {exc.strerror}", file=sys.stderr)
        return 127
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    signal.signal(signal.SIGCHLD, lambda *_: None)  # only so that the wake-up pipe is written
    orphaned = _wait(child, lifeline_fd, wake_read)
    end_descendants(TERM_GRACE_S if orphaned else 0.5)
    status = child.returncode if child.returncode is not None else child.wait()
    return 128 - status if status < 0 else status


def _wait(child: subprocess.Popen[bytes], lifeline_fd: int, wake_fd: int) -> bool:
    """Wait for the child's end (False) or the supervisor's (True)."""
    while child.poll() is None:
        ready, _, _ = select.select([lifeline_fd, wake_fd], [], [], 5.0)
        if wake_fd in ready:
            os.read(wake_fd, 4096)
        if lifeline_fd in ready and not os.read(lifeline_fd, 1):
            return True
    return False


def main() -> None:
    """Entry point: ``--lifeline-fd N -- COMMAND...``."""
    if len(sys.argv) < 5 or sys.argv[1] != "--lifeline-fd" or sys.argv[3] != "--":
        sys.exit("usage: keeper --lifeline-fd N -- COMMAND...")
    sys.exit(keep(int(sys.argv[2]), sys.argv[4:]))


if __name__ == "__main__":
    main()
