"""Kills a process at a chosen one of its calls to the system that change something on disk.

The work is done in a fork, so that each step costs milliseconds; whoever calls this must have no threads.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

CHANGES: Final = (
    "open",
    "write",
    "pwrite",
    "ftruncate",
    "fsync",
    "mkdir",
    "rename",
    "replace",
    "link",
    "symlink",
    "unlink",
    "rmdir",
    "chmod",
    "fchmod",
)
"""Functions of ``os`` that count as a step; ``open`` where it makes something."""


def deaths(work: Callable[[], object], prepare: Callable[[], object]) -> Iterator[int]:
    """Do the work again and again, killed at its first step, then at its second, until it is through.

    Yields the step after each death, so that the caller looks at what was left; ``prepare`` runs before each.
    """
    step = 1
    while True:
        prepare()
        if not dies(work, partial(_arm, step), at=step):
            return
        yield step
        step += 1


def dies(work: Callable[[], object], arm: Callable[[], None], *, at: int) -> bool:
    """Do the work in a fork that was armed; whether it was killed.

    Args:
        work: must succeed where it is not killed.
        arm: sees to it, in the fork, that the process kills itself at some step.
        at: that step, for the message.
    """
    child = os.fork()
    if child == 0:
        failure = 1
        try:
            arm()
            work()
            failure = 0
        finally:
            os._exit(failure)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, f"the work failed by itself before step {at}"
    return killed


def _arm(step: int) -> None:
    """Kill this process at its ``step``-th change; a write is cut in the middle."""
    left = [step]

    def counted(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name != "open" or args[1] & os.O_CREAT:
                left[0] -= 1
                if left[0] == 0:
                    if name in ("write", "pwrite"):
                        real(args[0], args[1][: len(args[1]) // 2], *args[2:])
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for name in CHANGES:
        setattr(os, name, counted(getattr(os, name), name))
    fcntl.flock = counted(fcntl.flock, "flock")
