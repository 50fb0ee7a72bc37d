"""``inferdock status`` in a pseudo-terminal: what it draws, keys, sizes, and how it leaves the terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time


class Viewer:
    """``inferdock status`` in a terminal of its own."""

    def __init__(self, *arguments: str, size: tuple[int, int] = (80, 24), **environment: str) -> None:
        self.ours, theirs = pty.openpty()
        self.resize(*size, tell=False)
        self.before = termios.tcgetattr(theirs)
        self.text = ""
        kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "inferdock.cli.main", "status", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**kept, "TERM": "xterm-256color", **environment},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.theirs = theirs

    def resize(self, width: int, height: int, *, tell: bool = True) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        if tell:
            self.process.send_signal(signal.SIGWINCH)

    def wait_for(self, wanted: str, within_s: float = 40) -> str:
        """Read until something is drawn; returns all that was drawn since the last time."""
        deadline = time.monotonic() + within_s
        while wanted not in self.text and time.monotonic() < deadline:
            if select.select([self.ours], [], [], 0.2)[0]:
                self.text += os.read(self.ours, 65536).decode("utf-8", "replace")
        assert wanted in self.text, self.text
        drawn, self.text = self.text, ""
        return drawn

    def press(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def end(self, within_s: float = 30) -> int:
        """Its exit status; reads meanwhile, as a terminal does."""
        deadline = time.monotonic() + within_s
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.ours], [], [], 0.1)[0]:
                self.text += os.read(self.ours, 65536).decode("utf-8", "replace")
        while select.select([self.ours], [], [], 0)[0]:
            self.text += os.read(self.ours, 65536).decode("utf-8", "replace")
        return self.process.wait(1)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)

    def given_back(self) -> bool:
        """The screen and the cursor are those from before, and keys echo as they did."""
        left = self.text.rpartition("\x1b[?1049l")
        return bool(left[1]) and "\x1b[?25h" in self.text and termios.tcgetattr(self.theirs) == self.before
