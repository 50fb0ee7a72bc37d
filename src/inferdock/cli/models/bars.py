"""Progress of work on files: bars on a terminal, plain lines elsewhere, both on standard error."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from inferdock.cli.models.options import size
from inferdock.cli.output import note
from inferdock.registry.progress import Progress

EVERY_S: Final = 5.0
"""Seconds between two plain lines."""


class Bars(Progress, Protocol):
    """Progress that is shown while it is entered."""

    def __enter__(self) -> Bars: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def bars() -> Bars:
    """What suits standard error."""
    console = Console(stderr=True)
    return TerminalBars(console) if console.is_terminal and not console.is_dumb_terminal else Lines()


class _Files(ProgressColumn):
    """Files done of all."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.fields['files']}/{task.fields['of']} files", style="cyan")


class TerminalBars:
    """One bar per piece of work."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), _Files())
        self._progress = RichProgress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console)
        self._task: TaskID | None = None
        self._lock = threading.Lock()
        self._files = 0

    def __enter__(self) -> TerminalBars:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, title: str, total_bytes: int, total_files: int) -> None:
        """Begin a bar."""
        with self._lock:
            self._files = 0
            # Without bytes to move a bar would stay empty for ever.
            total = total_bytes or None
            self._task = self._progress.add_task(f"{title:<9}", total=total, files=0, of=total_files)

    def moved(self, path: str, count: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.advance(self._task, count)

    def done(self, path: str) -> None:
        """Count a file."""
        with self._lock:
            self._files += 1
            if self._task is not None:
                self._progress.update(self._task, files=self._files)


class Lines:
    """A line at the beginning, every few seconds, and at the end.

    Args:
        say: takes the lines.
        clock: seconds.
    """

    def __init__(self, say: Callable[[str], None] = note, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._lock = threading.Lock()
        self._title, self._bytes, self._of_bytes, self._files, self._of_files = "", 0, 0, 0, 0
        self._began = self._told = clock()
        self._ended = True

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            with self._lock:
                self._end()

    def begin(self, title: str, total_bytes: int, total_files: int) -> None:
        """Say what begins."""
        with self._lock:
            self._end()
            self._title, self._bytes, self._of_bytes = title, 0, total_bytes
            self._files, self._of_files, self._ended = 0, total_files, False
            self._began = self._told = self._clock()
            self._say(f"{title}: {size(total_bytes)} in {total_files} files")

    def moved(self, path: str, count: int) -> None:
        """Say how far it is, now and then."""
        with self._lock:
            self._bytes += count
            now = self._clock()
            if now - self._told >= EVERY_S:
                self._told = now
                self._say(self._line(now))

    def done(self, path: str) -> None:
        """Count a file."""
        with self._lock:
            self._files += 1

    def _line(self, now: float) -> str:
        rate = self._bytes / max(now - self._began, 1e-3)
        left = (self._of_bytes - self._bytes) / rate if rate > 0 else 0
        moved = f"{size(self._bytes)} of {size(self._of_bytes)}, {self._files} of {self._of_files} files"
        return f"{self._title}: {moved}, {size(int(rate))}/s, {left:.0f} s left"

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            took = self._clock() - self._began
            rate = f", {size(int(self._bytes / took))}/s" if took > 0.1 else ""
            self._say(f"{self._title}: done, {size(self._bytes)} in {took:.1f} s{rate}")


def interactive() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()
