"""Reads HTTP/1.1 requests without a socket; used by ``gateway.http_server`` for each client connection.

httptools (llhttp) parses; :class:`RequestReader` adds what a strict gateway needs on top (RFC 9112): one valid Host,
one unambiguous framing, known methods and forms of target, limits on everything that can grow, trailers dropped.
What it hands on can be written again with a Content-Length and means the same to every server that reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import httptools

from inferdock.domain.errors import RequestError
from inferdock.wire.http1 import Header, whole_message
from inferdock.wire.request_head import HeadMemory, RequestHead

MAX_HEADERS = 128
"""Header lines of one request, and trailer lines of one request."""

SLICE_BYTES = 8 * 1024
"""Most bytes given to :meth:`RequestReader.feed` at once outside of a sized body: so exact are the limits, and so
many pipelined requests (of 26 bytes or more each) can come out of one call."""

METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
"""Methods that are served or forwarded. CONNECT and TRACE never are; llhttp knows others, down to RTSP's."""

_PIECES = 256
"""Pieces of a body that are joined to one block: a body in chunks of one byte must not cost a hundred times itself."""

_FRAMING_PER_BYTE = 16
"""Bytes of chunk framing that may be spent for one byte of body (a chunk of one byte needs 5)."""

_WATCHED = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})
_HOST_CHARACTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%!$&'()*+;=:[]"
_MOST_DIGITS = 13
_LONGEST_LENGTH = 19
"""Digits of the largest 64-bit number; longer ones are padded with zeros to confuse somebody."""


class Request:
    """One complete request.

    Attributes:
        head: method, target, headers; method, target, path, headers and http10 stand here too.
        body: the whole body, de-chunked.
        received_at: loop time when the last byte had arrived, in seconds.
    """

    __slots__ = ("body", "head", "headers", "http10", "method", "path", "received_at", "target")

    def __init__(self, head: RequestHead, body: bytes, received_at: float) -> None:
        self.head = head
        self.method = head.method
        self.target = head.target
        self.path = head.path
        self.headers = head.headers
        self.http10 = head.http10
        self.body = body
        self.received_at = received_at

    def header(self, name: bytes) -> bytes | None:
        """First value of a header, by lower-case name."""
        return self.head.named.get(name)


class RequestReader:
    """Reads the requests of one connection from bytes that come in any pieces.

    Attributes:
        receiving: a request has begun and is not complete.
        began_at: when its first byte came (loop time, seconds).
        held_bytes: body bytes of that request that are held.
        body_left: bytes that a sized body still lacks; 0 when there is none.
        wants_continue: the client waits for ``100 Continue``; whoever sends it sets this back.
        ended: the last request asked for a close, so nothing behind it is read.
    """

    # _barren counts bytes since the last step forward (a request begun, its head complete, a byte of body): one number
    # bounds endless heads, blank lines, chunk extensions and trailers alike. Where a head is complete, its exact size
    # decides.
    __slots__ = (
        "_after",
        "_barren",
        "_before",
        "_blocks",
        "_chunked",
        "_clock",
        "_expects",
        "_framing",
        "_good_host",
        "_head_done",
        "_headers",
        "_host",
        "_http10",
        "_key",
        "_last",
        "_length",
        "_max_body_bytes",
        "_max_header_bytes",
        "_memory",
        "_method",
        "_parser",
        "_pieces",
        "_problem",
        "_taken",
        "_target",
        "_trailers",
        "began_at",
        "body_left",
        "ended",
        "held_bytes",
        "receiving",
        "wants_continue",
    )

    def __init__(
        self,
        *,
        max_body_bytes: int,
        max_header_bytes: int,
        taken: Callable[[Request, bool], None],
        clock: Callable[[], float],
        memory: HeadMemory | None = None,
    ) -> None:
        """``taken`` gets each complete request, and whether the connection may serve another one after it.

        ``memory``: of heads, shared with other connections.
        """
        self._memory = memory if memory is not None else HeadMemory()
        self._key = b""
        self._last: RequestHead | None = None  # the last head that was found, cut at the digits of Content-Length
        self._before = self._after = b"\n"  # no request begins with this
        self.limit(max_body_bytes=max_body_bytes, max_header_bytes=max_header_bytes)
        self._taken = taken
        self._clock = clock
        self._parser = httptools.HttpRequestParser(self)
        self._problem: RequestError | None = None
        self._barren = 0
        self._framing = 0
        self._good_host = b""
        self.began_at = 0.0
        self.ended = False
        self._clear()

    def limit(self, *, max_body_bytes: int, max_header_bytes: int) -> None:
        """Obey these from now on."""
        self._last, self._before, self._after = None, b"\n", b"\n"
        self._max_body_bytes = max_body_bytes
        self._max_header_bytes = max_header_bytes

    def _clear(self) -> None:
        self._target = b""
        self._headers: list[Header] = []
        self._pieces: list[bytes] = []
        self._blocks: list[bytes] = []
        self._host: bytes | None = None
        self._length = -1
        self._chunked = False
        self._expects = b""
        self._head_done = False
        self._trailers = 0
        self.held_bytes = 0
        self.body_left = 0
        self.receiving = False
        self.wants_continue = False

    @property
    def is_head(self) -> bool:
        """The request that is being received is a HEAD, as far as is known."""
        return self.receiving and bool(self._parser.get_method() == b"HEAD")

    def whole(self, data: bytes) -> Request | None:
        """The request, if ``data`` is exactly one whose head is known; otherwise :meth:`feed` has to take it."""
        if self.receiving or self.ended or self._barren:
            return None
        if data.startswith(self._before):  # the head of this connection's last request again, most likely
            start = len(self._before)
            stop = data.find(b"\r", start, start + _MOST_DIGITS)
            digits = data[start:stop]
            if data.startswith(self._after, stop) and digits.isdigit():
                head, body_at = self._last, stop + len(self._after)
                if head is not None and int(digits) == len(data) - body_at <= self._max_body_bytes:
                    self.ended = not head.keep_alive
                    return Request(head, data[body_at:], self._clock())
        places = whole_message(data)
        if places is None:
            return None
        start, stop, end = places
        key = data[:start] + data[stop:end]
        head = self._memory.get(key)
        if head is None:
            self._key = key
            return None
        if end > self._max_header_bytes or len(data) - end - 4 > self._max_body_bytes:
            return None
        self._last, self._before, self._after = head, data[:start], data[stop : end + 4]
        self.ended = not head.keep_alive
        return Request(head, data[end + 4 :], self._clock())

    # -- Bytes in --------------------------------------------------------------------------------------------

    def feed(self, data: bytes | memoryview) -> None:
        """Take bytes from the wire: at most ``SLICE_BYTES``, or what ``body_left`` says if that is more.

        Raises:
            RequestError: the bytes are not a valid request or break a limit; the reader is of no more use.
        """
        if self.ended:
            return
        self._barren += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._ignore_upgrade(data, exc)
        except httptools.HttpParserError as exc:
            if self.ended:
                return  # llhttp refuses what follows `Connection: close`; we do not look at it
            # httptools does not hand on what a callback raised, so the callbacks leave it in _problem.
            raise self._problem or _malformed(f"{exc}") from None
        if self._barren > self._max_header_bytes + SLICE_BYTES:
            raise _header_too_large(self._max_header_bytes)
        if self._chunked and self._head_done:
            self._weigh_framing(len(data))

    def _ignore_upgrade(self, data: bytes | memoryview, exc: Exception) -> None:
        """RFC 9110, 7.8: a server may ignore Upgrade. llhttp stops there, so a new parser goes on behind it.

        Only requests without a body come here: llhttp would take the body for the next request, see
        :meth:`on_headers_complete`. A loop: thousands of such requests must not deepen the stack.
        """
        rest = memoryview(data)
        while not self.ended:
            self._parser = httptools.HttpRequestParser(self)
            rest = rest[exc.args[0] :]
            try:
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as again:
                exc = again
            except httptools.HttpParserError as error:
                if not self.ended:
                    raise self._problem or _malformed(f"{error}") from None
            else:
                return

    def _weigh_framing(self, size: int) -> None:
        """Refuse bodies that consist of chunk extensions, which nobody needs and everybody has to skip."""
        self._framing += size
        if self._framing > self._max_header_bytes + SLICE_BYTES + _FRAMING_PER_BYTE * self.held_bytes:
            self._problem = _malformed("its chunks have more framing than content")
            raise self._problem

    # -- httptools callbacks ---------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.receiving = True
        self.began_at = self._clock()
        self._barren = 0

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_done:
            self._drop_trailer()
            return
        name = name.lower()
        value = value.rstrip(b" \t")
        self._headers.append((name, value))
        if name in _WATCHED:
            self._watch(name, value)

    def on_headers_complete(self) -> None:
        parser = self._parser
        self._head_done = True
        if self._barren + SLICE_BYTES > self._max_header_bytes or len(self._headers) > MAX_HEADERS:
            self._measure_head()
        self._barren = 0
        version = parser.get_http_version()
        self._http10 = version == "1.0"
        if version != "1.1" and not self._http10:
            self._fail(RequestError(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here."))
        self._method = parser.get_method()
        if self._method not in METHODS:
            self._fail(RequestError(501, "This method is not known here.", code="method_unknown"))
        self._check_host()
        if self._target[:1] != b"/" or b"#" in self._target:
            self._check_target()
        self._check_framing()

    def on_body(self, body: bytes) -> None:
        self.held_bytes += len(body)
        self._barren = 0
        self.wants_continue = False
        if self._length >= 0:
            self.body_left = self._length - self.held_bytes
        elif self.held_bytes > self._max_body_bytes:
            self._fail(_body_too_large(self._max_body_bytes))
        self._pieces.append(body)
        if len(self._pieces) >= _PIECES:
            self._blocks.append(b"".join(self._pieces))
            self._pieces.clear()

    def on_message_complete(self) -> None:
        pieces = self._pieces
        if self._blocks:
            pieces = [*self._blocks, *pieces]
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        keep_alive = self._parser.should_keep_alive()
        head = RequestHead(self._method, self._target, self._headers, http10=self._http10, keep_alive=keep_alive)
        plain = self._length >= 0 and not (self._chunked or self._expects or self._trailers)
        if self._key and plain and not self._parser.should_upgrade():
            self._memory.keep(self._key, head)
        self._key = b""
        request = Request(head, body, self._clock())
        self._barren = self._framing = 0
        self._clear()
        self.ended = not keep_alive
        self._taken(request, keep_alive)

    # -- Rules -----------------------------------------------------------------------------------------------

    def _fail(self, problem: RequestError) -> NoReturn:
        self._problem = problem
        raise problem

    def _drop_trailer(self) -> None:
        """Trailers are read and forgotten: as headers they could overrule what was already decided upon."""
        self._trailers += 1
        if self._trailers > MAX_HEADERS:
            self._fail(_header_too_large(self._max_header_bytes))

    def _watch(self, name: bytes, value: bytes) -> None:
        """Headers that decide how the request is read. llhttp has refused malformed and repeated lengths."""
        if name == b"host":
            if self._host is not None:
                self._fail(_malformed("it has two Host headers"))
            self._host = value
        elif name == b"content-length":
            if self._length >= 0 or not value.isdigit() or len(value) > _LONGEST_LENGTH:
                self._fail(_malformed("its Content-Length is not one number"))
            self._length = self.body_left = int(value)
            if self._length > self._max_body_bytes:
                self._fail(_body_too_large(self._max_body_bytes))
        elif name == b"transfer-encoding":
            if self._chunked or value.lower() != b"chunked":
                self._fail(RequestError(501, "Only `Transfer-Encoding: chunked` is understood."))
            self._chunked = True
        else:
            self._expects = value.lower()

    def _measure_head(self) -> None:
        size = len(self._target) + sum(len(name) + len(value) for name, value in self._headers)
        if size > self._max_header_bytes or len(self._headers) > MAX_HEADERS:
            self._fail(_header_too_large(self._max_header_bytes))

    def _check_host(self) -> None:
        """RFC 9112, 3.2: exactly one valid Host in HTTP/1.1."""
        if self._host is None:
            if not self._http10:
                self._fail(_malformed("it has no Host header"))
        elif self._host != self._good_host:  # looked at once per connection
            if self._host.translate(None, _HOST_CHARACTERS):
                self._fail(_malformed("its Host header is not a host"))
            self._good_host = self._host

    def _check_target(self) -> None:
        """RFC 9112, 3.2.2 to 3.2.4: absolute form for everything, asterisk for OPTIONS, authority for CONNECT only."""
        target = self._target
        if b"#" in target:
            self._fail(_malformed("its target has a fragment"))
        if target == b"*" and self._method == b"OPTIONS":
            return
        scheme, found, rest = target.partition(b"://")
        if not found or scheme.lower() not in (b"http", b"https"):
            self._fail(_malformed("its target is neither a path nor a URL"))
        end = min((place for place in (rest.find(b"/"), rest.find(b"?")) if place >= 0), default=len(rest))
        authority, path = rest[:end], rest[end:]
        if not authority or authority.translate(None, _HOST_CHARACTERS):
            self._fail(_malformed("the URL in its target has no valid host"))
        self._target = path if path[:1] == b"/" else b"/" + path
        self._headers = [field for field in self._headers if field[0] != b"host"]
        self._headers.append((b"host", authority))  # RFC 9112, 3.2.2: it overrules the Host header

    def _check_framing(self) -> None:
        has_body = self._chunked or self._length > 0
        if self._chunked and (self._length >= 0 or self._http10):
            self._fail(_malformed("its framing is ambiguous"))
        if has_body and self._parser.should_upgrade():
            self._fail(RequestError(501, "A request with a body cannot ask for an Upgrade."))
        if self._expects and not self._http10:  # RFC 9110, 10.1.1: HTTP/1.0 clients do not mean it
            if self._expects != b"100-continue":
                self._fail(RequestError(417, "Only `Expect: 100-continue` is understood."))
            self.wants_continue = has_body


def _malformed(reason: str) -> RequestError:
    return RequestError(400, f"The request is not valid HTTP/1.1: {reason}.", code="malformed_http")


def _header_too_large(limit: int) -> RequestError:
    return RequestError(
        431, f"The request's headers exceed {limit} bytes or {MAX_HEADERS} lines.", code="headers_too_large"
    )


def _body_too_large(limit: int) -> RequestError:
    return RequestError(413, f"The request body exceeds {limit} bytes.", code="body_too_large")
