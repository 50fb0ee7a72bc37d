"""The client side of the gateway: HTTP/1.1 requests in, bytes out, one object per connection.

:class:`~inferdock.wire.http_request.RequestReader` reads; this class keeps pipelined requests in order, hands each
complete one to a :class:`Handler`, watches the clock and bounds what is held. The handler answers through the
:class:`Turn` it was given. Used for the public port and, with another handler, for the admin port.

What a connection holds at most, besides the request that is being answered: ``MAX_PIPELINED`` further requests (and
what one ``SLICE_BYTES`` brings), ``MAX_READ_AHEAD`` of their bodies, and one read of the socket. Then it reads no
more until an answer is out, and it begins no answer while ``WRITE_HIGH_WATER`` of earlier ones wait for the client.

A client that closes its side (FIN) while it waits for an answer has gone: its request is cancelled, as nginx and
uvicorn do (docs/decisions/0005-half-closed-clients.md).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from typing import Protocol, cast

from inferdock.domain.errors import RequestError, unavailable
from inferdock.wire.http1 import Header, head, status_line
from inferdock.wire.http_request import SLICE_BYTES, Request, RequestReader
from inferdock.wire.openai import error_body
from inferdock.wire.request_head import HeadMemory

__all__ = ["ClientConnection", "Handler", "Limits", "Listener", "Request", "Turn"]

MAX_PIPELINED = 16
"""Complete requests that may wait behind the current one before we stop reading."""

MAX_READ_AHEAD = 256 * 1024
"""Body bytes that are read behind the request that is being answered before we stop reading."""

WRITE_HIGH_WATER = 256 * 1024
"""Bytes that may wait for a slow client before its replica is no longer read."""

LINGER_S = 10.0
"""How long we go on reading, and forgetting, what a refused client still sends (see :meth:`_close_gently`)."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


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

    __slots__ = ("_client", "gone", "http10", "keep_alive", "listener", "paused")

    def __init__(self, client: ClientConnection, keep_alive: bool, http10: bool) -> None:
        self._client = client
        self.keep_alive = keep_alive
        self.http10 = http10
        self.listener: Listener | None = None
        self.paused = client.write_paused
        self.gone = False

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""
        if not self.gone:
            self._client.transport.write(data)

    def finish(self) -> None:
        """The answer is complete; the connection goes on to the next request, or closes."""
        self._client.turn_over(self)

    def abort(self) -> None:
        """The answer cannot be completed: cut the connection so that the client notices."""
        if not self.keep_alive:
            self._client.reset(self)  # the body may be one that ends with the connection: FIN would complete it
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
        "_closing",
        "_connections",
        "_deaf",
        "_handler",
        "_limits",
        "_lingering",
        "_loop",
        "_queue",
        "_queued_bytes",
        "_reader",
        "_reading_paused",
        "_refusal",
        "_since",
        "_turn",
        "_unread",
        "transport",
        "write_paused",
    )

    transport: asyncio.Transport

    def __init__(
        self,
        handler: Handler,
        limits: Limits,
        connections: set[ClientConnection],
        loop: asyncio.AbstractEventLoop,
        memory: HeadMemory | None = None,
    ) -> None:
        """``memory``: of the heads of requests, shared by all connections; default: one of its own."""
        self._handler = handler
        self._limits = limits
        self._connections = connections
        self._loop = loop
        self._reader = RequestReader(
            max_body_bytes=limits.max_body_bytes,
            max_header_bytes=limits.max_header_bytes,
            taken=self._taken,
            clock=loop.time,
            memory=memory,
        )
        self._queue: deque[tuple[Request, bool]] = deque()
        self._queued_bytes = 0
        self._turn: Turn | None = None
        self._refusal: RequestError | None = None
        self._unread = b""
        self._reading_paused = False
        self._deaf = False  # what the client still sends is read and forgotten
        self._closing = False
        self._lingering = False  # our side is closed, the client's is not yet
        self._since = 0.0  # when the connection was made, the last answer ended, or the close began
        self.write_paused = False

    @property
    def held_bytes(self) -> int:
        """Bytes of requests that are held but not being answered yet, rounded by what Python's objects need."""
        return self._queued_bytes + self._reader.held_bytes + len(self._unread)

    @property
    def waiting(self) -> int:
        """Complete requests that wait behind the one that is being answered."""
        return len(self._queue)

    # -- Life of the connection ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop does not subclass it
        self._connections.add(self)
        self._since = self._loop.time()
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._closing = self._deaf = True
        self._queue.clear()
        self._unread = b""
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.gone = True
            if turn.listener is not None:
                turn.listener.client_gone()

    def eof_received(self) -> bool:
        if self._turn is None and not self._queue and not self._deaf and self._reader.receiving:
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
        if turn is None:
            self._loop.call_soon(self._next)
            return
        turn.paused = False
        if turn.listener is not None:
            turn.listener.resume()

    def close(self) -> None:
        """Close now; a request that is being answered is cancelled."""
        self._closing = self._deaf = True
        self._since = self._loop.time()
        self.transport.close()

    def limits_changed(self) -> None:
        """Obey the limits as they are now."""
        limits = self._limits
        self._reader.limit(max_body_bytes=limits.max_body_bytes, max_header_bytes=limits.max_header_bytes)

    def refuse_for_memory(self) -> None:
        """All connections together hold too much: give this one's request up."""
        self._refuse(unavailable("Too many large requests are arriving at once.", code="overloaded", retry_after_s=1))

    def last_answer(self) -> None:
        """Drain: close after the answer under way; an idle connection stays until its next request is refused,
        so that health checks still get their 503."""
        if self._turn is not None:
            self._turn.keep_alive = False

    def check_time(self, now: float) -> None:
        """Called about once a second: closes idle connections, answers 408 to slow senders, gives up on clients
        that do not take their last bytes."""
        limits = self._limits
        if self._closing:
            if now - self._since > max(limits.keepalive_timeout_s, LINGER_S):
                self.transport.abort()
        elif self._turn is not None:
            return
        elif self._lingering:
            if now - self._since > LINGER_S:
                self.close()
        elif self._reader.receiving and not self._queue:
            # Since the first byte, or since the answer before it if that is later: each further byte buys no time.
            if now - max(self._since, self._reader.began_at) > limits.request_read_timeout_s:
                self._refuse(RequestError(408, "The request took too long to arrive.", code="request_timeout"))
        elif now - self._since > limits.keepalive_timeout_s:
            self.close()

    # -- Requests in -----------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if not self._unread and self._turn is None and not self._queue:
            request = self._reader.whole(data)
            if request is not None:
                self._taken(request, request.head.keep_alive)
                return
        if self._unread or (len(data) > SLICE_BYTES and len(data) > self._reader.body_left):
            self._unread += data
            self._read_unread()
            return
        self._feed(data)
        if (self._queue or self._turn is not None) and self._is_full():
            self._pause_reading()

    def _feed(self, data: bytes | memoryview) -> None:
        try:
            self._reader.feed(data)
        except RequestError as error:
            self._refuse(error)
            return
        if self._reader.wants_continue:
            self._offer_continue()

    def _read_unread(self) -> None:
        """Take a large read in slices, so that a client which pipelines cannot make us hold more than we want.

        A head is a slice of its own where its end is seen: then the body is not cut, and not joined again later.
        """
        data, self._unread = self._unread, b""
        view = memoryview(data)
        reader = self._reader
        position, size = 0, len(data)
        while position < size and not self._deaf:
            if self._is_full():
                self._unread = data[position:]
                break
            end = position + max(SLICE_BYTES, reader.body_left)
            if not reader.receiving:
                found = data.find(b"\r\n\r\n", position, end)
                end = found + 4 if found >= 0 else end
            self._feed(view[position:end])
            position = end
        if self._is_full():
            self._pause_reading()

    def _is_full(self) -> bool:
        if self._turn is None and not self._queue:
            return False
        return (
            len(self._queue) >= MAX_PIPELINED or self._queued_bytes + self._reader.held_bytes > MAX_READ_AHEAD
        ) and not self._deaf

    def _pause_reading(self) -> None:
        self._reading_paused = True
        self.transport.pause_reading()

    def _offer_continue(self) -> None:
        """Say 100 once it is this request's turn; a client behind other answers waits, and gets it then."""
        if self._turn is None and not self._queue:
            self._reader.wants_continue = False
            self.transport.write(_CONTINUE)

    def _taken(self, request: Request, keep_alive: bool) -> None:
        """The reader has a complete request."""
        if not keep_alive:
            self._deaf = True
        if self._turn is None and not self._queue and not self.write_paused:
            self._begin(request, keep_alive)
        else:
            self._queue.append((request, keep_alive))
            self._queued_bytes += len(request.body)

    # -- Turns -----------------------------------------------------------------------------------------------

    def _begin(self, request: Request, keep_alive: bool) -> None:
        turn = Turn(self, keep_alive, request.http10)
        self._turn = turn
        try:
            self._handler.handle(request, turn)
        except Exception as exc:  # a defect of ours; httptools would swallow it and leave the client waiting
            self._loop.call_exception_handler({"message": "A request handler failed", "exception": exc})
            turn.abort()

    def turn_over(self, turn: Turn) -> None:
        """Called by the current turn when its answer is complete."""
        if self._turn is not turn:
            return
        self._turn = None
        turn.listener = None
        self._since = self._loop.time()
        if not turn.keep_alive:
            self._shut()
        elif self._queue or self._reading_paused or self._refusal is not None or self._reader.wants_continue:
            # Not recursive: a client that pipelines thousands of refused requests must not deepen the stack.
            self._loop.call_soon(self._next)

    def reset(self, turn: Turn) -> None:
        """Close the current turn's connection by RST instead of FIN."""
        sock = self.transport.get_extra_info("socket")
        if self._turn is turn and sock is not None and not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.transport.abort()

    def _next(self) -> None:
        """Go on after an answer: with the next request, the refusal that had to wait, or what was left unread."""
        if self._turn is not None or self._closing or self._lingering or self.write_paused:
            return
        if self._queue:
            request, keep_alive = self._queue.popleft()
            self._queued_bytes -= len(request.body)
            self._begin(request, keep_alive)
        elif self._refusal is not None:
            self._send_refusal(self._refusal)
        elif self._reader.wants_continue:
            self._offer_continue()
        if self._reading_paused and not self._is_full():
            self._reading_paused = False
            self._read_unread()
            if not self._reading_paused:
                self.transport.resume_reading()

    # -- Ends ------------------------------------------------------------------------------------------------

    def _refuse(self, error: RequestError) -> None:
        """Answer a request that never became complete, then close: its framing cannot be trusted any more."""
        if self._deaf:
            return
        self._deaf = True
        self._unread = b""
        self._handler.refused(error.status)
        if self._turn is None and not self._queue:
            self._send_refusal(error)
        else:
            self._refusal = error  # answers to earlier requests come first

    def _send_refusal(self, error: RequestError) -> None:
        body = error_body(error)
        fields: list[Header] = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        if error.retry_after_s is not None:
            fields.append((b"retry-after", b"%d" % error.retry_after_s))
        self._refusal = None
        self.transport.write(head(status_line(error.status), fields) + (b"" if self._reader.is_head else body))
        self._close_gently()

    def _shut(self) -> None:
        """Close after an answer."""
        if self._queue or self._unread or self._reading_paused or self._reader.receiving:
            self._close_gently()
        else:
            self.close()

    def _close_gently(self) -> None:
        """Send FIN but go on reading for a while: an immediate close with unread input would reset the connection
        and take our answer away from a client that is still sending (RFC 9112, 9.6)."""
        self._deaf = True
        self._queue.clear()
        self._unread = b""
        self._since = self._loop.time()
        if not self.transport.is_closing() and self.transport.can_write_eof():
            self._lingering = True
            self.transport.write_eof()
            self.transport.resume_reading()
        else:
            self.close()
