"""How set-up speaks and how it runs other programs. Used by every `scripts/setup_*.py`; tests pass a fake `Runner`."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Protocol

HEARTBEAT_S = 10.0
TAIL_LINES = 12
LINE_WIDTH = 80


class SetupError(Exception):
    """Set-up cannot go on.

    Args:
        message: one sentence that says what is wrong.
        cure: one sentence that says what to do about it.
        detail: last lines of the program that failed, "" when there was none.
    """

    def __init__(self, message: str, *, cure: str, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Result:
    """Exit code of a program (127: not there) and everything it wrote."""

    code: int
    output: str

    @property
    def ok(self) -> bool:
        return self.code == 0

    def tail(self, lines: int = TAIL_LINES) -> str:
        """Last lines of the output, for an error."""
        return "\n".join(self.output.strip().splitlines()[-lines:])


class Runner(Protocol):
    """Runs programs; the seam between set-up and the machine."""

    def run(
        self, args: Sequence[str], *, env: Mapping[str, str] | None = None, busy: Callable[[str], None] | None = None
    ) -> Result:
        """Run to the end.

        Args:
            args: program and arguments.
            env: variables to add to the environment.
            busy: called every `HEARTBEAT_S` seconds with the newest line, so that long work is seen to go on.
        """
        ...


class Reporter:
    """One line per step: seconds since the start, name of the step, what was done."""

    def __init__(self, *, out: IO[str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out or sys.stdout
        self._clock = clock
        self._start = clock()

    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    def say(self, step: str, text: str) -> None:
        """Write one line."""
        print(f"[{self.elapsed_s():6.1f} s] {step:<12} {text}", file=self._out, flush=True)

    def busy(self, step: str) -> Callable[[str], None]:
        """A `busy` callback for `Runner.run` that names the step."""
        return lambda line: self.say(step, f"... {line.strip()[:LINE_WIDTH] or 'still working'}")


class LocalRunner:
    """Runs programs on this machine, without standard input and without the caller's Python settings."""

    def run(
        self, args: Sequence[str], *, env: Mapping[str, str] | None = None, busy: Callable[[str], None] | None = None
    ) -> Result:
        """See :meth:`Runner.run`."""
        full = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
        full.update(env or {})
        try:
            started = subprocess.Popen(
                list(args),
                env=full,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
        except OSError as exc:
            return Result(127, f"{args[0]}: {exc.strerror}")
        with started as process:
            try:
                output = _collect(process, busy)
            except BaseException:
                process.terminate()
                raise
        return Result(process.returncode, output)


def _collect(process: subprocess.Popen[str], busy: Callable[[str], None] | None) -> str:
    """Everything the process writes; calls `busy` while it takes its time."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    seen: list[str] = []
    next_beat = time.monotonic() + HEARTBEAT_S
    while True:
        try:
            line = lines.get(timeout=max(0.01, next_beat - time.monotonic()))
        except queue.Empty:
            next_beat = time.monotonic() + HEARTBEAT_S
            if busy is not None:
                busy(seen[-1] if seen else "")
            continue
        if line is None:
            return "".join(seen)
        seen.append(line)
        if busy is not None and time.monotonic() >= next_beat:
            next_beat = time.monotonic() + HEARTBEAT_S
            busy(line)


def _read(stream: IO[str] | None, lines: queue.SimpleQueue[str | None]) -> None:
    if stream is not None:
        for line in stream:
            lines.put(line)
    lines.put(None)
