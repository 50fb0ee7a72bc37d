"""Structured logs: one line per event, buffered so that the event loop does not pay a system call for each.

Lines hold ids, names, numbers and outcomes; callers never pass prompts, answers or keys.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import Callable
from typing import Literal

import msgspec

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
FLUSH_AFTER_S = 0.25
FLUSH_AT_BYTES = 64 * 1024
MAX_BUFFER_BYTES = 4 * 1024 * 1024

Value = str | int | float | bool | None


def write_to_fd(fd: int) -> Callable[[bytes], None]:
    """Return a sink that writes whole buffers to a file descriptor."""

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    return write


def write_lines_to_fd(fd: int) -> Callable[[bytes], None]:
    """Return a sink for a descriptor that several processes write lines to.

    Writes to a pipe are whole only up to PIPE_BUF bytes; a larger buffer is written in pieces that end with a line
    wherever one does, so that lines of two processes do not run into each other.
    """
    write = write_to_fd(fd)

    def write_lines(data: bytes) -> None:
        start = 0
        while len(data) - start > select.PIPE_BUF:
            end = data.rfind(b"\n", start, start + select.PIPE_BUF) + 1 or start + select.PIPE_BUF
            write(data[start:end])
            start = end
        write(data[start:])

    return write_lines


class EventLog:
    """Writes events as JSON objects or as text, level first.

    A sink that fails (disk full, closed pipe) costs log lines, never a request; :attr:`lost` counts them.
    """

    def __init__(
        self,
        sink: Callable[[bytes], None],
        *,
        level: str = "info",
        form: Literal["json", "text"] = "json",
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._sink = sink
        self._least = LEVELS[level]
        self._text = form == "text"
        self._wall_clock = wall_clock
        self._encoder = msgspec.json.Encoder()
        self._buffer = bytearray()
        self._flush_handle: asyncio.TimerHandle | None = None
        self.lost = 0

    def configure(self, *, level: str, form: Literal["json", "text"]) -> None:
        """Write with this level and form from now on."""
        self._least = LEVELS[level]
        self._text = form == "text"

    def event(self, level: str, event: str, **fields: Value) -> None:
        """Write one event; ``fields`` become keys of the object."""
        if LEVELS[level] < self._least:
            return
        self._add({"ts": round(self._wall_clock(), 3), "level": level, "event": event, **fields})

    def line(self, level: str, line: bytes) -> None:
        """Write one event that is put together already: a JSON object with ``ts``, ``level`` and ``event``, and LF."""
        if LEVELS[level] < self._least:
            return
        if self._text or len(self._buffer) > MAX_BUFFER_BYTES:
            self._add(msgspec.json.decode(line))
            return
        self._buffer += line
        if self._flush_handle is None or len(self._buffer) >= FLUSH_AT_BYTES:
            self._flush_later()

    def _flush_later(self) -> None:
        if len(self._buffer) >= FLUSH_AT_BYTES:
            self.flush()
        elif self._flush_handle is None:
            self._schedule()

    def _add(self, record: dict[str, Value]) -> None:
        if len(self._buffer) > MAX_BUFFER_BYTES:
            self.lost += 1
            return
        if self._text:
            self._buffer += _as_text(record)
        else:
            self._encoder.encode_into(record, self._buffer, -1)
            self._buffer += b"\n"
        self._flush_later()

    def _schedule(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        self._flush_handle = loop.call_later(FLUSH_AFTER_S, self.flush)

    def flush(self) -> None:
        """Hand everything to the sink now."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        if not self._buffer:
            return
        data = bytes(self._buffer)
        self._buffer.clear()
        try:
            self._sink(data)
        except OSError:
            self.lost += data.count(b"\n")


def _as_text(record: dict[str, Value]) -> bytes:
    stamp = time.strftime("%H:%M:%S", time.localtime(float(record["ts"] or 0)))
    rest = " ".join(f"{key}={value}" for key, value in record.items() if key not in ("ts", "level", "event"))
    line = f"{stamp} {str(record['level']).upper():7} {record['event']} {rest}".rstrip()
    return line.replace("\n", "\\n").encode() + b"\n"
