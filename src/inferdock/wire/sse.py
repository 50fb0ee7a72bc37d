"""Server-sent events without a socket (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Only ``data`` matters to OpenAI streams; comments, ``event``, ``id`` and ``retry`` are read and dropped.
"""

from __future__ import annotations

MAX_EVENT_BYTES = 16 * 1024 * 1024


class SseError(Exception):
    """An event is larger than the limit."""


class EventSplitter:
    """Cuts bytes that come in any pieces into events; lines may end in LF, CRLF or CR."""

    __slots__ = ("_data", "_limit", "_line", "_size", "_skip_lf")

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        """``limit``: largest event, in bytes."""
        self._limit = limit
        self._line = b""
        self._data: list[bytes] = []
        self._size = 0
        self._skip_lf = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the payloads of the events that are now complete (lines of one event joined by LF).

        Raises:
            SseError: an event exceeds the limit.
        """
        if not data:
            return []
        skip_lf, self._skip_lf = self._skip_lf, data.endswith(b"\r")
        buffer = self._line + (data[1:] if skip_lf and data.startswith(b"\n") else data)
        lines = buffer.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._line = lines.pop()
        events: list[bytes] = []
        for line in lines:
            self._take(line, events)
        if len(self._line) + self._size > self._limit:
            raise SseError(f"an event exceeds {self._limit} bytes")
        return events

    def _take(self, line: bytes, events: list[bytes]) -> None:
        if not line:
            if self._data:
                events.append(b"\n".join(self._data))
                self._data = []
                self._size = 0
            return
        name, _, value = line.partition(b":")
        if name == b"data":
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._size += len(value)
            if self._size > self._limit:
                raise SseError(f"an event exceeds {self._limit} bytes")
