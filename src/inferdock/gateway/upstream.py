"""The replica side of the gateway: pooled keep-alive connections and one request at a time on each.

``gateway.relay`` sends clients' requests through it; ``gateway.health`` sends its own. No coroutine runs per
request on the fast path: an idle connection is taken from the pool and written to at once.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol, cast

from inferdock.wire.http1 import ProtocolError, ResponseHead, ResponseHeads, ResponseReader

MAX_IDLE_PER_ENDPOINT = 256
"""Idle connections kept per endpoint; more are closed when they come back."""

MAX_IDLE_S = 60.0
"""Seconds that an idle connection is kept: health checks open a new one each, and not every replica closes them."""

_COPIED_BYTES = 16 * 1024
"""Bodies up to this size are joined to their head: one write costs more than so short a copy."""

SILENT = "the replica was silent for too long"
"""Reason of a failure by time: asking another replica would make the client wait as long again."""

NOT_READ = "the client did not read its answer"
"""Reason of a failure that is the client's, not the replica's."""

Address = tuple[str, int]


class Receiver(Protocol):
    """Takes one response as it comes."""

    def response_head(self, head: ResponseHead) -> None:
        """The head is complete. Called once, before any body."""

    def response_body(self, data: bytes, payloads: list[tuple[int, int]]) -> None:
        """Raw body bytes (framing included when chunked), with the places of the chunks' payloads in them."""

    def response_done(self) -> None:
        """The response is complete. Nothing is called after this."""

    def response_whole(self, head: ResponseHead, body: bytes) -> None:
        """A whole response in one read, in place of the three calls above: sized, no stream, status below 500."""

    def response_failed(self, reason: str, *, stale: bool) -> None:
        """The response will never be complete. Nothing is called after this.

        ``stale``: not one byte of a response had come, on a connection that had been idle before, so
        the replica most likely closed it while we wrote; the request may be sent again to the same replica.
        """


class UpstreamConnection(asyncio.Protocol):
    """One connection to one replica."""

    __slots__ = (
        "_bodiless",
        "_in_pieces",
        "_pool",
        "_reader",
        "address",
        "deadline",
        "receiver",
        "reused",
        "silence_s",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, pool: UpstreamPool, address: Address) -> None:
        self._pool = pool
        self.address = address
        self.receiver: Receiver | None = None
        self._reader: ResponseReader | None = None  # made when the first bytes are no whole response
        self._bodiless = False
        self._in_pieces = False
        self.reused = False
        self.silence_s = 0.0
        self.deadline = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop does not subclass it
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(
        self,
        request: bytes,
        receiver: Receiver,
        *,
        silence_s: float,
        bodiless: bool = False,
        body: bytes = b"",
        in_pieces: bool = False,
    ) -> None:
        """Write one request; ``receiver`` gets the response.

        Args:
            request: the head, and the body too if ``body`` is left out.
            receiver: called until ``response_done`` or ``response_failed``.
            silence_s: the attempt fails when nothing comes for this long.
            bodiless: the request is a HEAD.
            body: written behind ``request``; a large one is not copied.
            in_pieces: never call ``response_whole``.
        """
        self.receiver = receiver
        self._bodiless = bodiless
        self._in_pieces = in_pieces or bodiless
        self.silence_s = silence_s
        self.deadline = self._pool.loop.time() + silence_s
        if len(body) > _COPIED_BYTES:
            self.transport.write(request)
            self.transport.write(body)
        else:
            self.transport.write(request + body if body else request)

    def data_received(self, data: bytes) -> None:
        receiver, reader = self.receiver, self._reader
        if receiver is None:
            self.transport.abort()  # Nobody asked: what follows could be taken for the next answer.
            return
        if reader is None:
            if not self._in_pieces:
                whole = self._pool.heads.whole(data)
                if whole is not None and whole[0].status < 500 and not whole[0].event_stream:
                    self._complete_whole(receiver, *whole)
                    return
            reader = self._reader = ResponseReader(self._pool.heads, bodiless=self._bodiless)
        self.deadline = self._pool.loop.time() + self.silence_s
        fresh = reader.head is None
        try:
            body = reader.feed(data)
        except ProtocolError as exc:
            self._fail(f"the replica sent an invalid response ({exc})", stale=False)
            return
        if body is None:
            return
        if fresh:
            assert reader.head is not None
            receiver.response_head(reader.head)
        if body and self.receiver is receiver:
            receiver.response_body(body, reader.payloads)
        if reader.done and self.receiver is receiver:
            self._complete(receiver, reader)

    def _complete_whole(self, receiver: Receiver, head: ResponseHead, body: bytes) -> None:
        self.receiver = None
        if self._is_clean(head):
            self._pool.give_back(self)
        else:
            self.transport.abort()
        receiver.response_whole(head, body)

    def _complete(self, receiver: Receiver, reader: ResponseReader) -> None:
        assert reader.head is not None
        self.receiver = None
        self._reader = None
        if not reader.surplus and self._is_clean(reader.head):
            self._pool.give_back(self)
        else:
            self.transport.abort()
        receiver.response_done()

    def _is_clean(self, head: ResponseHead) -> bool:
        """The connection may serve another request: both sides have said and read all there was."""
        transport = self.transport
        if not head.keep_alive or transport.is_closing():
            return False
        if transport.get_write_buffer_size():
            return False  # answered before it took the whole request: the rest would precede the next one
        if not transport.is_reading():
            transport.resume_reading()  # paused for the client that got this response, not for the next one
        return True

    def _fail(self, reason: str, *, stale: bool) -> None:
        receiver, self.receiver = self.receiver, None
        self._reader = None
        self.transport.abort()
        if receiver is not None:
            receiver.response_failed(reason, stale=stale)

    def touch(self) -> None:
        """Start the silence over: we were the ones who did not read."""
        self.deadline = self._pool.loop.time() + self.silence_s

    def abort(self) -> None:
        """Drop the request: the engine notices the closed connection and stops its work."""
        self.receiver = None
        self._reader = None
        self.transport.abort()

    def time_out(self) -> None:
        """The deadline has passed in silence, or while we did not read because the client did not."""
        self._fail(SILENT if self.transport.is_reading() else NOT_READ, stale=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.forget(self)
        receiver, reader = self.receiver, self._reader
        if receiver is None:
            return
        untouched = reader is None or reader.untouched
        try:
            if exc is not None or reader is None:
                raise ProtocolError("connection lost")  # a reset does not complete a body that ends by close
            reader.feed_eof()
        except ProtocolError:
            self._fail("the replica closed the connection", stale=self.reused and untouched)
            return
        self.receiver = None
        self._reader = None
        receiver.response_done()


class UpstreamPool:
    """Connections to all replicas, idle ones kept for the next request (last used first)."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop, connect_timeout_s: float) -> None:
        self.loop = loop
        self.connect_timeout_s = connect_timeout_s
        self.heads = ResponseHeads()
        self._idle: dict[Address, list[UpstreamConnection]] = {}
        self._all: set[UpstreamConnection] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    def take_idle(self, address: Address) -> UpstreamConnection | None:
        """Return an idle connection, if there is one that has not been closed by the replica."""
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if not connection.transport.is_closing():
                connection.reused = True
                return connection
        return None

    def connect(
        self,
        address: Address,
        connected: Callable[[UpstreamConnection], None],
        failed: Callable[[str], None],
    ) -> None:
        """Open a connection and call one of the two functions later."""
        task = self.loop.create_task(self._connect(address, connected, failed))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(
        self,
        address: Address,
        connected: Callable[[UpstreamConnection], None],
        failed: Callable[[str], None],
    ) -> None:
        host, port = address
        try:
            async with asyncio.timeout(self.connect_timeout_s):
                _, connection = await self.loop.create_connection(lambda: UpstreamConnection(self, address), host, port)
        except TimeoutError:
            failed(f"no connection to the replica within {self.connect_timeout_s:g} s")
        except OSError as exc:
            failed(f"no connection to the replica ({exc.strerror or exc})")
        else:
            if connection.transport.is_closing():
                failed("the replica closed the connection at once")
                return
            self._all.add(connection)
            connected(connection)

    def give_back(self, connection: UpstreamConnection) -> None:
        """Keep a connection for the next request."""
        idle = self._idle.setdefault(connection.address, [])
        if len(idle) < MAX_IDLE_PER_ENDPOINT:
            connection.deadline += MAX_IDLE_S - connection.silence_s  # it was set when the last bytes came
            idle.append(connection)
        else:
            connection.transport.close()

    def forget(self, connection: UpstreamConnection) -> None:
        """The connection is gone."""
        self._all.discard(connection)
        idle = self._idle.get(connection.address)
        if idle and connection in idle:
            idle.remove(connection)

    def drop_address(self, address: Address) -> None:
        """An endpoint is gone: close its idle connections."""
        for connection in self._idle.pop(address, []):
            connection.transport.close()

    def check_time(self, now: float) -> None:
        """Called about once a second: fails attempts whose replica has been silent for too long, closes what has been
        idle for too long."""
        for connection in [c for c in self._all if c.receiver is not None and c.deadline < now]:
            connection.time_out()
        for idle in self._idle.values():
            for connection in [c for c in idle if c.deadline < now]:
                connection.transport.close()

    def close(self) -> None:
        """Close every connection; attempts under way fail."""
        for task in list(self._connecting):
            task.cancel()
        for connection in list(self._all):
            connection.transport.abort()
