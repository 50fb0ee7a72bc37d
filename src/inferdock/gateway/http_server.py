"""The client side of the gateway: HTTP/1.1 requests in, bytes out, one object per connection.

httptools (llhttp) parses; this class enforces limits, keeps pipelined requests in order and hands each complete
request to a :class:`Handler`. The handler answers through the :class:`Turn` it was given. Used for the public port
and, with another handler, for the admin port.

A client that closes its side (FIN) while it waits for an answer has gone: its request is cancelled, as nginx and
uvicorn do (docs/decisions/0005-half-closed-clients.md).
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import NoReturn, Protocol, cast

import httptools

from inferdock.domain.errors import RequestError
from inferdock.wire.http1 import Header, head, status_line
from inferdock.wire.openai import error_body

MAX_PIPELINED = 16
"""Complete requests that may wait behind the current one before we stop reading."""

MAX_HEADERS = 128
_FRAMING = frozenset({b"expect", b"transfer-encoding", b"content-length"})
WRITE_HIGH_WATER = 256 * 1024
"""Bytes that may wait for a slow client before its replica is no longer read."""


class Request:
    """One complete request.

    Attributes:
        method, path: as sent; ``path`` without the query.
        target: path and query, as sent.
        headers: lower-case names, in order.
        body: the whole body, de-chunked.
        http10: the client speaks HTTP/1.0 (no chunked answers).
        received_at: loop time when the last byte had arrived, in seconds.
    """

    __slots__ = ("body", "headers", "http10", "method", "path", "received_at", "target")

    def __init__(
        self, method: bytes, target: bytes, headers: list[Header], body: bytes, http10: bool, received_at: float
    ) -> None:
        self.method = method
        self.target = target
        self.path = target.partition(b"?")[0]
        self.headers = headers
        self.body = body
        self.http10 = http10
        self.received_at = received_at

    def header(self, name: bytes) -> bytes | None:
        """First value of a header, by lower-case name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class Listener(Protocol):
    """What a handler hears of the client while it answers."""

    def client_gone(self) -> None:
        """The client has left; nothing more can be sent."""

    def pause(self) -> None:
        """The client reads slowly: send no more for now."""

    def resume(self) -> None:
        """The client reads again."""


class Handler(Protocol):
    """Answers requests."""

    def handle(self, request: Request, turn: Turn) -> None:
        """Answer ``request`` now or later through ``turn``; must not raise."""

    def refused(self, status: int) -> None:
        """A request was answered with an error before it was complete (for counting)."""


class Limits(Protocol):
    """The settings that a connection obeys (``config.settings.GatewaySettings`` has them)."""

    @property
    def max_body_bytes(self) -> int: ...
    @property
    def max_header_bytes(self) -> int: ...
    @property
    def request_read_timeout_s(self) -> float: ...
    @property
    def keepalive_timeout_s(self) -> float: ...


class Turn:
    """One request's chance to answer. Valid until :meth:`finish`; after the client has gone, writes do nothing."""

    __slots__ = ("_client", "http10", "keep_alive", "listener", "paused")

    def __init__(self, client: ClientConnection, keep_alive: bool, http10: bool) -> None:
        self._client = client
        self.keep_alive = keep_alive
        self.http10 = http10
        self.listener: Listener | None = None
        self.paused = client.write_paused

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""
        self._client.transport.write(data)

    def finish(self) -> None:
        """The answer is complete; the connection goes on to the next request, or closes."""
        self._client.turn_over(self)

    def abort(self) -> None:
        """The answer cannot be completed: cut the connection so that the client notices."""
        self.keep_alive = False
        self._client.turn_over(self)

    def respond(self, status: int, headers: list[Header], body: bytes, *, bodiless: bool = False) -> None:
        """Send a whole answer and finish; ``bodiless`` answers a HEAD."""
        fields = [*headers, (b"content-length", b"%d" % len(body))]
        if not self.keep_alive:
            fields.append((b"connection", b"close"))
        elif self.http10:
            fields.append((b"connection", b"keep-alive"))
        self.write(head(status_line(status), fields) + (b"" if bodiless else body))
        self.finish()


class ClientConnection(asyncio.Protocol):
    """One connection of one client."""

    __slots__ = (
        "_body",
        "_body_size",
        "_closing",
        "_connections",
        "_expect_continue",
        "_handler",
        "_has_body",
        "_head_done",
        "_head_size",
        "_headers",
        "_limits",
        "_loop",
        "_parser",
        "_problem",
        "_queue",
        "_target",
        "_turn",
        "since",
        "state",
        "transport",
        "write_paused",
    )

    transport: asyncio.Transport

    def __init__(
        self, handler: Handler, limits: Limits, connections: set[ClientConnection], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._handler = handler
        self._limits = limits
        self._connections = connections
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[tuple[Request, bool]] = deque()
        self._turn: Turn | None = None
        self._closing = False
        self.write_paused = False
        self.since = 0.0
        self.state = "idle"
        self._start_message()

    # -- Life of the connection ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop does not subclass it
        self._connections.add(self)
        self.since = self._loop.time()
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._closing = True
        self._queue.clear()
        self._leave()

    def eof_received(self) -> bool:
        if self._turn is None and self.state != "idle":
            self._refuse(RequestError(400, "The request was cut: the connection was closed in the middle of it."))
        return False

    def pause_writing(self) -> None:
        self.write_paused = True
        turn = self._turn
        if turn is not None:
            turn.paused = True
            if turn.listener is not None:
                turn.listener.pause()

    def resume_writing(self) -> None:
        self.write_paused = False
        turn = self._turn
        if turn is not None:
            turn.paused = False
            if turn.listener is not None:
                turn.listener.resume()

    def close(self) -> None:
        """Close now; a request that is being answered is cancelled."""
        self._closing = True
        self.transport.close()

    def last_answer(self) -> None:
        """Drain: close after the answer under way; an idle connection stays until its next request is refused,
        so that health checks still get their 503."""
        if self._turn is not None:
            self._turn.keep_alive = False

    def check_time(self, now: float) -> None:
        """Called about once a second: closes idle connections and answers 408 to slow senders."""
        if self._turn is not None or self._closing:
            return
        if self.state == "idle":
            if now - self.since > self._limits.keepalive_timeout_s:
                self.close()
        elif now - self.since > self._limits.request_read_timeout_s:
            self._refuse(RequestError(408, "The request took too long to arrive.", code="request_timeout"))

    def _leave(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None and turn.listener is not None:
            turn.listener.client_gone()

    # -- Bytes in --------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self.state == "idle":
            self.state = "reading"
            self.since = self._loop.time()
        if not self._head_done:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            self._ignore_upgrade(data, exc)
        except httptools.HttpParserError as exc:
            # httptools does not hand on what a callback raised, so the callbacks leave it in _problem.
            self._refuse(self._problem or _malformed(exc))
        else:
            if not self._head_done and self._head_size > self._limits.max_header_bytes:
                self._refuse(_header_too_large(self._limits.max_header_bytes))

    def _ignore_upgrade(self, data: bytes, exc: Exception) -> None:
        """RFC 9110, 7.8: a server may ignore Upgrade. llhttp stops there, so a new parser goes on behind it.

        Only requests without a body come here: llhttp would take the body for the next request, see
        :meth:`on_headers_complete`.
        """
        self._parser = httptools.HttpRequestParser(self)
        rest = data[exc.args[0] :]
        if rest:
            self.data_received(rest)

    # -- httptools callbacks ---------------------------------------------------------------------------------

    def _start_message(self) -> None:
        self._target = b""
        self._headers: list[Header] = []
        self._body: list[bytes] = []
        self._body_size = 0
        self._head_size = 0
        self._head_done = False
        self._expect_continue = False
        self._has_body = False
        self._problem: RequestError | None = None

    def on_message_begin(self) -> None:
        self._start_message()

    def _fail(self, problem: RequestError) -> NoReturn:
        self._problem = problem
        raise problem

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._headers.append((name, value))
        if len(self._headers) > MAX_HEADERS:
            self._fail(_header_too_large(self._limits.max_header_bytes))
        if name in _FRAMING:
            self._take_framing(name, value.lower())

    def _take_framing(self, name: bytes, value: bytes) -> None:
        if name == b"expect":
            if value != b"100-continue":
                self._fail(RequestError(417, "Only `Expect: 100-continue` is understood."))
            self._expect_continue = True
        elif name == b"transfer-encoding":
            if value != b"chunked":
                self._fail(RequestError(501, "Only `Transfer-Encoding: chunked` is understood."))
            self._has_body = True
        elif value.isdigit():
            self._has_body = int(value) > 0
            if int(value) > self._limits.max_body_bytes:
                self._fail(_body_too_large(self._limits.max_body_bytes))

    def on_headers_complete(self) -> None:
        self._head_done = True
        size = len(self._target) + sum(len(name) + len(value) for name, value in self._headers)
        if size > self._limits.max_header_bytes:
            self._fail(_header_too_large(self._limits.max_header_bytes))
        if self._parser.get_http_version() not in ("1.1", "1.0"):
            self._fail(RequestError(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here."))
        if self._has_body and self._parser.should_upgrade():
            self._fail(RequestError(501, "A request with a body cannot ask for an Upgrade."))
        if self._expect_continue and self._turn is None and not self._queue:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_size += len(body)
        if self._body_size > self._limits.max_body_bytes:
            self._fail(_body_too_large(self._limits.max_body_bytes))
        self._body.append(body)

    def on_message_complete(self) -> None:
        parser = self._parser
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        http10 = parser.get_http_version() == "1.0"
        request = Request(parser.get_method(), self._target, self._headers, body, http10, self._loop.time())
        keep_alive = parser.should_keep_alive()
        self._start_message()
        self.state = "idle"
        if self._turn is None and not self._queue:
            self._begin(request, keep_alive)
            return
        self._queue.append((request, keep_alive))
        if len(self._queue) >= MAX_PIPELINED:
            self.transport.pause_reading()

    # -- Turns -----------------------------------------------------------------------------------------------

    def _begin(self, request: Request, keep_alive: bool) -> None:
        turn = Turn(self, keep_alive, request.http10)
        self._turn = turn
        self._handler.handle(request, turn)

    def turn_over(self, turn: Turn) -> None:
        """Called by the current turn when its answer is complete."""
        if self._turn is not turn:
            return
        self._turn = None
        turn.listener = None
        if not turn.keep_alive:
            self.close()
            return
        self.since = self._loop.time()
        if self._queue:
            # Not recursive: a client that pipelines thousands of refused requests must not deepen the stack.
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        if self._turn is not None or self._closing or not self._queue:
            return
        request, keep_alive = self._queue.popleft()
        self.transport.resume_reading()
        self._begin(request, keep_alive)

    def _refuse(self, error: RequestError) -> None:
        """Answer a request that never became complete, then close: its framing cannot be trusted any more."""
        if self._closing:
            return
        self._handler.refused(error.status)
        if self._turn is not None or self._queue:
            # Answers to earlier requests come first and this one cannot wait for them safely: cut.
            self.close()
            return
        body = error_body(error)
        fields: list[Header] = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        self.transport.write(head(status_line(error.status), fields) + body)
        self._closing = True
        self._close_gently()

    def _close_gently(self) -> None:
        """Send FIN but go on reading for a moment: an immediate close with unread input would reset the
        connection and take our answer away from a client that is still sending (RFC 9112, 9.6)."""
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._loop.call_later(1.0, self.transport.close)


def _malformed(exc: Exception) -> RequestError:
    return RequestError(400, f"The request is not valid HTTP/1.1: {exc}.", code="malformed_http")


def _header_too_large(limit: int) -> RequestError:
    return RequestError(431, f"The request's headers exceed {limit} bytes.", code="headers_too_large")


def _body_too_large(limit: int) -> RequestError:
    return RequestError(413, f"The request body exceeds {limit} bytes.", code="body_too_large")
