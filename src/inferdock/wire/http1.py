"""HTTP/1.1 without a socket: what both sides of the gateway read and write.

Requests are parsed by httptools (llhttp) in ``gateway.http_server``; this module reads *responses*, because there
we must know where each chunk ends in the raw bytes: they are forwarded as they came, and a stream is only ever
handed on up to a chunk's end, so that what the client holds is always whole.

Grammar: RFC 9112. Everything here is pure; malformed input raises :class:`ProtocolError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

Header = tuple[bytes, bytes]
"""Lower-case name and value, both without surrounding white space."""

MAX_HEAD_BYTES = 64 * 1024
"""Largest response head accepted from a replica."""

MAX_CHUNK_BYTES = 16 * 1024 * 1024
"""Largest single chunk accepted from a replica."""

MAX_TRAILER_BYTES = 8 * 1024
"""Largest trailer section accepted from a replica."""

MAX_INFORMATIONAL = 16
"""Informational (1xx) answers accepted before the real one."""

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

_TAKEN = frozenset({b"content-length", b"content-type"})
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_PERSISTENCE = frozenset({b"close", b"keep-alive", b""})
_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CONTROLS = bytes(code for code in range(32) if code not in b"\t\r\n") + b"\x7f"
_LONGEST_LENGTH = 19
"""Digits of the largest 64-bit number."""

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
    return start_line + b"\r\n" + header_lines(headers) + b"\r\n"


def header_lines(headers: Iterable[Header]) -> bytes:
    """Headers as lines, each with its end."""
    return b"".join([b"%b: %b\r\n" % field for field in headers])


LENGTH_LINE = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?(\d{1,12})(?=\r\n|\Z)")
"""The usual line of Content-Length. Heads that were read before are remembered by their bytes without its digits."""

WITHOUT_BODY = frozenset({204, 304})
"""Statuses whose answers have no body, whatever their head says (RFC 9112, 6.3)."""


def whole_message(data: bytes) -> tuple[int, int, int] | None:
    """Whether a read is exactly one sized message, as far as its Content-Length says.

    Returns:
        (start of the length's digits, their end, end of the head's last line), or None when it may be anything else.
    """
    end = data.find(b"\r\n\r\n")
    found = LENGTH_LINE.search(data, 0, end) if end > 0 else None
    if found is None:
        return None
    start, stop = found.span(1)
    return (start, stop, end) if end + 4 + int(data[start:stop]) == len(data) else None


def status_line(status: int) -> bytes:
    """Return ``HTTP/1.1 <status> <reason>``."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d Status" % status


_STATUS_LINES = {status: b"HTTP/1.1 %d %b" % (status, reason) for status, reason in REASONS.items()}


def end_to_end(headers: Iterable[Header], never: frozenset[bytes]) -> list[Header]:
    """Headers that go on to the next server: none of ``never`` (lower case, ``connection`` among them), and none
    that a Connection header names as its own (RFC 9110, 7.6.1); there may be several Connection headers."""
    kept: list[Header] = []
    named: frozenset[bytes] = frozenset()
    for field in headers:
        if field[0] not in never:
            kept.append(field)
        elif field[0] == b"connection":
            named |= _options(field[1])
    return kept if named <= _PERSISTENCE else [field for field in kept if field[0] not in named]


def _options(value: bytes) -> frozenset[bytes]:
    """Members of a Connection header, lower case."""
    value = value.lower()
    if value in _PERSISTENCE:
        return frozenset((value,))
    return frozenset(option.strip(b" \t") for option in value.split(b","))


def chunk(payload: bytes) -> bytes:
    """Frame one non-empty payload as an HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


LAST_CHUNK = b"0\r\n\r\n"


class ResponseHead:
    """Status and headers of a response, and how its body is framed.

    Attributes:
        status: 200-599 (informational answers are skipped by the reader).
        headers: in order of arrival; those that concern the connection (also by its own word) and
            ``content-length`` left out.
        length: body length in bytes; None when chunked or ended by close. The answer to a HEAD says what the body
            of a GET would have.
        chunked: the body comes in chunks.
        keep_alive: the connection may be used again after this response.
        event_stream: the body is ``text/event-stream``.
    """

    __slots__ = ("_lines", "_named", "chunked", "event_stream", "headers", "keep_alive", "length", "status")

    def __init__(self, raw: bytes) -> None:
        """``raw``: without the empty line at its end.

        Raises:
            ProtocolError: it is not a valid head, or its framing is ambiguous.
        """
        lines = _lines(raw)
        self.status = _status(lines[0])
        http11 = lines[0].startswith(b"HTTP/1.1")
        self.keep_alive = http11
        self.headers: list[Header] = []
        self.length: int | None = None
        self.chunked = False
        self.event_stream = False
        self._lines: list[bytes] = []  # shared by heads that differ in their length only
        self._named: frozenset[bytes] = frozenset()
        for name, value in _fields(lines[1:]):
            if name in _TAKEN or name in HOP_BY_HOP:
                self._take(name, value)
            else:
                self.headers.append((name, value))
        self._settle(http11)

    def lines(self, never: frozenset[bytes]) -> bytes:
        """The lines of all headers but those of ``never``, which is always the same set; made once."""
        if not self._lines:
            self._lines.append(header_lines(field for field in self.headers if field[0] not in never))
        return self._lines[0]

    def sized(self, length: int) -> ResponseHead:
        """The same head over a body of another length."""
        twin = ResponseHead.__new__(ResponseHead)
        twin.status = self.status
        twin.keep_alive = self.keep_alive
        twin.headers = self.headers
        twin.chunked = self.chunked
        twin.event_stream = self.event_stream
        twin.length = length
        twin._lines = self._lines
        twin._named = self._named
        return twin

    def _take(self, name: bytes, value: bytes) -> None:
        if name == b"content-type":
            self.event_stream = value[:17].lower() == b"text/event-stream"
            self.headers.append((name, value))
        elif name == b"content-length":
            if self.length is not None or not value.isdigit() or len(value) > _LONGEST_LENGTH:
                raise ProtocolError("malformed or repeated Content-Length in a response")
            self.length = int(value)
        elif name == b"transfer-encoding":
            if self.chunked or value.lower() != b"chunked":
                raise ProtocolError("unsupported Transfer-Encoding in a response")
            self.chunked = True
        elif name == b"connection":
            self._take_connection(value)

    def _settle(self, http11: bool) -> None:
        """What can only be said once all headers are known."""
        if self.chunked and (self.length is not None or not http11):
            raise ProtocolError("ambiguous framing of a response")
        if not self._named <= _PERSISTENCE:
            self.headers = [field for field in self.headers if field[0] not in self._named]

    def _take_connection(self, value: bytes) -> None:
        options = _options(value)
        if b"close" in options:
            self.keep_alive = False
        elif b"keep-alive" in options:
            self.keep_alive = True
        self._named |= options


def _lines(raw: bytes) -> list[bytes]:
    lines = raw.split(b"\r\n")
    breaks = len(lines) - 1
    if raw.count(b"\n") != breaks or raw.count(b"\r") != breaks or len(raw.translate(None, _CONTROLS)) < len(raw):
        raise ProtocolError("control characters in a response head")
    return lines


def _fields(lines: list[bytes]) -> list[Header]:
    fields: list[Header] = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name.translate(None, _TOKEN):
            raise ProtocolError("malformed header line in a response")
        fields.append((name.lower(), value.strip(b" \t")))
    return fields


def _status(line: bytes) -> int:
    if line[:7] != b"HTTP/1." or line[7:9] not in (b"1 ", b"0 ") or not line[9:12].isdigit():
        raise ProtocolError("not an HTTP/1.1 status line")
    if len(line) > 12 and line[12:13] != b" ":
        raise ProtocolError("not an HTTP/1.1 status line")
    status = int(line[9:12])
    if not 100 <= status <= 599:
        raise ProtocolError("status code out of range")
    return status


class ResponseHeads:
    """Heads that were read before, by their bytes without the digits of Content-Length.

    A replica says the same in each answer, but for the length and once a second the date. What is found is what
    :class:`ResponseHead` made of the very same bytes.
    """

    __slots__ = ("_sized", "_unsized")

    def __init__(self) -> None:
        # Two dictionaries: a head whose Content-Length is empty must not find the one that lost its digits here.
        self._sized: dict[bytes, ResponseHead] = {}
        self._unsized: dict[bytes, ResponseHead] = {}

    def whole(self, data: bytes) -> tuple[ResponseHead, bytes] | None:
        """Head and body, if ``data`` is exactly one sized response with a known head."""
        places = whole_message(data)
        if places is None:
            return None
        start, stop, end = places
        head = self._sized.get(data[:start] + data[stop:end])
        if head is None:
            return None
        length = len(data) - end - 4
        return head if head.length == length else head.sized(length), data[end + 4 :]

    def read(self, raw: bytes) -> ResponseHead:
        """The head that these bytes are.

        Raises:
            ProtocolError: they are none.
        """
        found = LENGTH_LINE.search(raw)
        if found is not None:
            heads, key = self._sized, raw[: found.start(1)] + raw[found.end(1) :]
        else:
            heads, key = self._unsized, raw
        head = heads.get(key)
        if head is None:
            head = ResponseHead(raw)
            if head.status >= 200 and head.status not in WITHOUT_BODY and len(key) <= _MAX_REMEMBERED_BYTES:
                if len(heads) >= _MAX_REMEMBERED:
                    heads.clear()
                heads[key] = head
        elif found is not None and head.length != (length := int(found[1])):
            return head.sized(length)
        return head


_MAX_REMEMBERED = 256
_MAX_REMEMBERED_BYTES = 2048


class ResponseReader:
    """Reads one response from bytes that come in any pieces.

    Feed bytes with :meth:`feed`; it returns the raw body bytes that are now whole (for a chunked body: up to the
    end of the last complete chunk, framing included), or None while the head is still incomplete. Trailers are
    dropped: nobody here announces that a client would read them.

    Attributes:
        head: the response head once it is complete.
        done: the response is complete.
        surplus: bytes followed the end of the response.
        payloads: (start, end) of each data chunk's payload within the bytes last returned (chunked bodies only).
    """

    __slots__ = (
        "_bodiless",
        "_heads",
        "_held",
        "_held_size",
        "_informational",
        "_needed",
        "_remaining",
        "done",
        "head",
        "payloads",
        "surplus",
    )

    def __init__(self, heads: ResponseHeads | None = None, *, bodiless: bool = False) -> None:
        """``bodiless``: the request was a HEAD, so no body follows whatever the head says.

        ``heads``: those read before, shared by all readers of a pool.
        """
        self._heads = heads
        self._bodiless = bodiless
        self._held: list[bytes] = []
        self._held_size = 0
        self._informational = 0
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
            self.surplus = self.surplus or bool(data)
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

    @property
    def held_bytes(self) -> int:
        """Bytes kept until what they belong to is whole."""
        return self._held_size

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
            found = self._heads.read(data[:end]) if self._heads is not None else ResponseHead(data[:end])
            data = data[end + 4 :]
            if found.status == 101:
                raise ProtocolError("unasked protocol switch")
            if found.status >= 200:
                break
            self._informational += 1
            if self._informational > MAX_INFORMATIONAL:
                raise ProtocolError("too many informational responses")
        self.head = found
        if found.status in WITHOUT_BODY:
            self._bodiless = True
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
        if self._bodiless:
            self.done = True
            self.surplus = bool(data)
            return b""
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
            line = data[position:line_end]
            length = _LENGTHS.get(line, -1)
            if length < 0:
                length = _chunk_length(line)
            if length == 0:
                end = _trailer_end(data, line_end)
                if end < 0:
                    break
                self.done = True
                self.surplus = end < size
                self.payloads = payloads
                return data[:end] if end - position == len(LAST_CHUNK) else data[:position] + LAST_CHUNK
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
        self._hold(data[position:])
        return data[:position]


def _trailer_end(data: bytes, line_end: int) -> int:
    """Offset behind the trailer section, or -1 while it is incomplete."""
    if data[line_end : line_end + 4] == b"\r\n\r\n":
        return line_end + 4
    end = data.find(b"\r\n\r\n", line_end)
    if end - line_end > MAX_TRAILER_BYTES or (end < 0 and len(data) - line_end > MAX_TRAILER_BYTES):
        raise ProtocolError("trailers too large")
    if end < 0:
        return -1
    if any(name in _FRAMING for name, _ in _fields(_lines(data[line_end + 2 : end]))):
        raise ProtocolError("framing in a trailer")
    return end + 4


_HEX = b"0123456789abcdefABCDEF"
_LENGTHS = {b"%x" % length: length for length in range(2048)}
"""Chunk lines as engines write them, looked up: most chunks of a stream are of a few hundred bytes."""


def _chunk_length(line: bytes) -> int:
    """Length in a chunk line; strict, because the line goes on to the client as it is."""
    digits, _, extension = line.partition(b";")
    if not digits or len(digits) > 8 or digits.translate(None, _HEX):
        raise ProtocolError("malformed chunk length")
    if b"\r" in extension or b"\n" in extension or len(extension.translate(None, _CONTROLS)) < len(extension):
        raise ProtocolError("control characters in a chunk extension")
    length = int(digits, 16)
    if length > MAX_CHUNK_BYTES:
        raise ProtocolError("chunk too large")
    return length
