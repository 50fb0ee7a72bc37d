"""HTTP/1.1 without a socket: what both sides of the gateway read and write.

Requests are parsed by httptools (llhttp) in ``gateway.http_server``; this module reads *responses*, because there
we must know where each chunk ends in the raw bytes: they are forwarded as they came, and a stream is only ever
handed on up to a chunk's end, so that what the client holds is always whole.

Grammar: RFC 9112. Everything here is pure; malformed input raises :class:`ProtocolError`.
"""

from __future__ import annotations

from collections.abc import Iterable

Header = tuple[bytes, bytes]
"""Lower-case name and value, both without surrounding white space."""

MAX_HEAD_BYTES = 64 * 1024
"""Largest response head accepted from a replica."""

MAX_CHUNK_BYTES = 16 * 1024 * 1024
"""Largest single chunk accepted from a replica."""

_MAX_CHUNK_LINE = 1024

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers that concern one connection only and are never forwarded (RFC 9110, 7.6.1)."""

REASONS: dict[int, bytes] = {
    100: b"Continue",
    200: b"OK",
    201: b"Created",
    202: b"Accepted",
    204: b"No Content",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    409: b"Conflict",
    411: b"Length Required",
    413: b"Content Too Large",
    414: b"URI Too Long",
    415: b"Unsupported Media Type",
    417: b"Expectation Failed",
    422: b"Unprocessable Content",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}


class ProtocolError(Exception):
    """The other side sent something that is not HTTP/1.1, or broke one of our limits."""


def head(start_line: bytes, headers: Iterable[Header]) -> bytes:
    """Join a start line and headers into the bytes of a message head."""
    lines = [start_line]
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def status_line(status: int) -> bytes:
    """Return ``HTTP/1.1 <status> <reason>``."""
    return b"HTTP/1.1 %d %b" % (status, REASONS.get(status, b"Status"))


def chunk(payload: bytes) -> bytes:
    """Frame one non-empty payload as an HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


LAST_CHUNK = b"0\r\n\r\n"


class ResponseHead:
    """Status and headers of a response, and how its body is framed.

    Attributes:
        status: 200-599 (informational answers are skipped by the reader).
        headers: in order of arrival, hop-by-hop ones and ``content-length`` left out.
        length: body length in bytes; None when chunked or ended by close.
        chunked: the body comes in chunks.
        keep_alive: the connection may be used again after this response.
        event_stream: the body is ``text/event-stream``.
    """

    __slots__ = ("chunked", "event_stream", "headers", "keep_alive", "length", "status")

    def __init__(self, raw: bytes) -> None:
        lines = raw.split(b"\r\n")
        self.status = _status(lines[0])
        self.keep_alive = lines[0].startswith(b"HTTP/1.1")
        self.headers: list[Header] = []
        self.length: int | None = None
        self.chunked = False
        self.event_stream = False
        for line in lines[1:]:
            self._take(line)
        if self.chunked and self.length is not None:
            raise ProtocolError("both Content-Length and Transfer-Encoding in a response")

    def _take(self, line: bytes) -> None:
        name, colon, value = line.partition(b":")
        if not colon or not name or name[0] in b" \t" or name[-1] in b" \t" or b"\r" in line or b"\n" in line:
            raise ProtocolError("malformed header line in a response")
        name = name.lower()
        value = value.strip(b" \t")
        if name == b"content-length":
            self._set_length(value)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked" or self.chunked:
                raise ProtocolError("unsupported Transfer-Encoding in a response")
            self.chunked = True
        elif name == b"connection":
            self._set_connection(value.lower())
        elif name not in HOP_BY_HOP:
            if name == b"content-type":
                self.event_stream = value[:17].lower() == b"text/event-stream"
            self.headers.append((name, value))

    def _set_length(self, value: bytes) -> None:
        if not value.isdigit() or (self.length is not None and self.length != int(value)):
            raise ProtocolError("malformed or conflicting Content-Length in a response")
        self.length = int(value)

    def _set_connection(self, value: bytes) -> None:
        if b"close" in value:
            self.keep_alive = False
        elif b"keep-alive" in value:
            self.keep_alive = True


def _status(line: bytes) -> int:
    if line[:7] != b"HTTP/1." or line[7:9] not in (b"1 ", b"0 ") or not line[9:12].isdigit():
        raise ProtocolError("not an HTTP/1.1 status line")
    if len(line) > 12 and line[12:13] != b" ":
        raise ProtocolError("not an HTTP/1.1 status line")
    status = int(line[9:12])
    if not 100 <= status <= 599:
        raise ProtocolError("status code out of range")
    return status


class ResponseReader:
    """Reads one response from bytes that come in any pieces.

    Feed bytes with :meth:`feed`; it returns the raw body bytes that are now whole (for a chunked body: up to the
    end of the last complete chunk, framing included), or None while the head is still incomplete.

    Attributes:
        head: the response head once it is complete.
        done: the response is complete.
        surplus: bytes followed the end of the response.
        payloads: (start, end) of each data chunk's payload within the bytes last returned (chunked bodies only).
    """

    __slots__ = (
        "_bodiless",
        "_held",
        "_held_size",
        "_needed",
        "_remaining",
        "done",
        "head",
        "payloads",
        "surplus",
    )

    def __init__(self, *, bodiless: bool = False) -> None:
        """``bodiless``: the request was a HEAD, so no body follows whatever the head says."""
        self._bodiless = bodiless
        self._held: list[bytes] = []
        self._held_size = 0
        self._needed = 0
        self._remaining = 0
        self.head: ResponseHead | None = None
        self.done = False
        self.surplus = False
        self.payloads: list[tuple[int, int]] = []

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes from the wire.

        Raises:
            ProtocolError: the bytes are not a valid HTTP/1.1 response, or exceed a limit.
        """
        if self.done:
            self.surplus = True
            return b""
        if self._held:
            self._hold(data)
            if self._held_size < self._needed:
                self.payloads = []
                return b"" if self.head is not None else None
            data = b"".join(self._held)
            self._held.clear()
            self._held_size = 0
        if self.head is None:
            body = self._feed_head(data)
            if body is None:
                return None
            data = body
        return self._feed_body(data)

    @property
    def untouched(self) -> bool:
        """Not a single byte has come."""
        return self.head is None and not self._held

    def feed_eof(self) -> None:
        """The connection was closed: completes a body that is ended by close.

        Raises:
            ProtocolError: the response is cut.
        """
        head = self.head
        if self.done:
            return
        if head is None or head.chunked or head.length is not None:
            raise ProtocolError("connection closed in the middle of a response")
        self.done = True

    def _hold(self, data: bytes) -> None:
        """Keep bytes; joined once ``_needed`` are there, so that a large chunk is not copied again and again."""
        self._held.append(data)
        self._held_size += len(data)

    def _feed_head(self, data: bytes) -> bytes | None:
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > MAX_HEAD_BYTES:
                    raise ProtocolError("response head too large")
                self._refuse_early(data)
                self._hold(data)
                return None
            if end > MAX_HEAD_BYTES:
                raise ProtocolError("response head too large")
            found = ResponseHead(data[:end])
            data = data[end + 4 :]
            if found.status == 101:
                raise ProtocolError("unasked protocol switch")
            if found.status >= 200:
                break
        self.head = found
        if self._bodiless or found.status in (204, 304):
            found.length, found.chunked = 0, False
        if found.length is not None:
            self._remaining = found.length
        return data

    @staticmethod
    def _refuse_early(data: bytes) -> None:
        """Garbage is named at once instead of being gathered up to the limit."""
        if data[:7] != b"HTTP/1."[: len(data[:7])]:
            raise ProtocolError("not an HTTP/1.1 status line")

    def _feed_body(self, data: bytes) -> bytes:
        head = self.head
        assert head is not None
        if head.chunked:
            return self._feed_chunks(data)
        if head.length is None:
            return data
        taken = data[: self._remaining] if len(data) > self._remaining else data
        self._remaining -= len(taken)
        if self._remaining == 0:
            self.done = True
            self.surplus = len(taken) < len(data)
        return taken

    def _feed_chunks(self, data: bytes) -> bytes:
        """Return ``data`` up to the end of its last complete chunk and keep the rest."""
        payloads: list[tuple[int, int]] = []
        position = 0
        size = len(data)
        self._needed = 0
        while position < size:
            line_end = data.find(b"\r\n", position, position + _MAX_CHUNK_LINE)
            if line_end < 0:
                if size - position >= _MAX_CHUNK_LINE:
                    raise ProtocolError("chunk line too long")
                break
            length = _chunk_length(data[position:line_end])
            if length == 0:
                end = self._trailer_end(data, line_end)
                if end < 0:
                    break
                position = end
                self.done = True
                self.surplus = end < size
                break
            start = line_end + 2
            end = start + length
            if end + 2 > size:
                self._needed = end + 2 - position
                break
            if data[end : end + 2] != b"\r\n":
                raise ProtocolError("chunk not ended by CRLF")
            payloads.append((start, end))
            position = end + 2
        self.payloads = payloads
        if position == size:
            return data
        if not self.done:
            self._hold(data[position:])
        return data[:position]

    @staticmethod
    def _trailer_end(data: bytes, line_end: int) -> int:
        """Offset behind the trailer section, or -1 while it is incomplete."""
        if data[line_end : line_end + 4] == b"\r\n\r\n":
            return line_end + 4
        end = data.find(b"\r\n\r\n", line_end)
        if end < 0 and len(data) - line_end > MAX_HEAD_BYTES:
            raise ProtocolError("trailers too large")
        return end + 4 if end >= 0 else -1


_HEX = frozenset(b"0123456789abcdefABCDEF")


def _chunk_length(line: bytes) -> int:
    digits = line.partition(b";")[0].rstrip(b" \t")
    if not digits or len(digits) > 8 or not _HEX.issuperset(digits):
        raise ProtocolError("malformed chunk length")
    length = int(digits, 16)
    if length > MAX_CHUNK_BYTES:
        raise ProtocolError("chunk too large")
    return length
