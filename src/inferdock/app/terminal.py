"""What SIGHUP means to a process that may have a terminal."""

from __future__ import annotations

import os


def has_terminal() -> bool:
    """Whether this process has a controlling terminal that still exists.

    SIGHUP has two meanings: "read your configuration again" from an operator, and "your terminal is gone" from the
    kernel or the shell. Only after the second there is none any more.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
