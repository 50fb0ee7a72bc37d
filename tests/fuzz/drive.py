"""Drives the real client connection without a socket, and h11 beside it as the strict reference."""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import h11

from inferdock.gateway.http_server import MAX_PIPELINED, MAX_READ_AHEAD, ClientConnection, Request, Turn
from inferdock.wire.http1 import head
from inferdock.wire.http_request import SLICE_BYTES
from inferdock.wire.request_head import HeadMemory

MAX_BODY = 64 * 1024
MAX_HEADER = 4 * 1024
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass
class SmallLimits:
    """Limits that a test reaches quickly."""

    max_body_bytes: int = MAX_BODY
    max_header_bytes: int = MAX_HEADER
    request_read_timeout_s: float = 30.0
    keepalive_timeout_s: float = 75.0


class FakeLoop:
    """The parts of an event loop that a connection uses; time stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.failures: list[dict[str, Any]] = []
        self._soon: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    def time(self) -> float:
        return self.now

    def call_soon(self, function: Callable[..., None], *arguments: Any) -> None:
        self._soon.append((function, arguments))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.failures.append(context)

    def run(self) -> None:
        """Run what waits, and what that makes wait."""
        while self._soon:
            function, arguments = self._soon.popleft()
            function(*arguments)


class FakeTransport:
    """Attributes:
    written: every byte that went to the client.
    eof, closed: our side was ended, or the connection closed.
    reading: bytes are taken from the client.
    """

    def __init__(self) -> None:
        self.written = bytearray()
        self.eof = self.closed = False
        self.reading = True

    def write(self, data: bytes) -> None:
        assert not self.eof, "wrote after the end"
        assert not self.closed, "wrote to a closed connection"
        self.written += data

    def write_eof(self) -> None:
        self.eof = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, high: int) -> None:
        """Nothing: the fake takes everything at once."""

    def get_extra_info(self, name: str) -> None:
        """No socket."""


class Answering:
    """A handler that answers each request, at once or when told.

    Attributes:
        requests: all that came.
        statuses: of requests refused before they were complete.
    """

    def __init__(self, *, at_once: bool = True) -> None:
        self.requests: list[Request] = []
        self.statuses: list[int] = []
        self.turns: deque[tuple[Request, Turn]] = deque()
        self._at_once = at_once

    def handle(self, request: Request, turn: Turn) -> None:
        self.requests.append(request)
        self.turns.append((request, turn))
        assert len(self.turns) == 1, "two requests at once on one connection"
        if self._at_once:
            self.answer()

    def refused(self, status: int) -> None:
        self.statuses.append(status)

    def answer(self) -> None:
        """Answer the request that waits."""
        request, turn = self.turns.popleft()
        body = b"answer %d" % len(self.requests)
        turn.respond(200, [], body, bodiless=request.method == b"HEAD")


Fields = tuple[bytes, bytes, tuple[tuple[bytes, bytes], ...], bytes]
"""Method, target, headers and body of a request; framing is judged by the body that it gives."""


def fields(request: Request) -> Fields:
    """What a request says, to compare it."""
    return request.method, request.target, _unframed(request.headers), request.body


def _unframed(headers: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name, value) for name, value in headers if name not in (b"content-length", b"transfer-encoding"))


@dataclass
class Driven:
    """One connection under test.

    Attributes:
        ended_by_answer: our side was closed before the client left.
    """

    loop: FakeLoop = field(default_factory=FakeLoop)
    transport: FakeTransport = field(default_factory=FakeTransport)
    handler: Answering = field(default_factory=Answering)
    limits: SmallLimits = field(default_factory=SmallLimits)
    memory: HeadMemory = field(default_factory=HeadMemory)
    connection: ClientConnection = field(init=False)
    pending: bytes = b""
    ended_by_answer: bool = False

    def __post_init__(self) -> None:
        self.connection = ClientConnection(self.handler, self.limits, set(), self.loop, self.memory)  # type: ignore[arg-type]
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]

    def feed(self, data: bytes) -> None:
        """Bytes from the client; they wait, as in the kernel, while the connection does not read."""
        self.pending += data
        self._deliver()

    def take_answers(self, yes: bool) -> None:
        """The client reads what is written to it, or lets it wait."""
        if yes == self.connection.write_paused:
            (self.connection.resume_writing if yes else self.connection.pause_writing)()
            self._deliver()

    def answer_all(self) -> None:
        """Answer what waits, and what comes after that."""
        while self.handler.turns:
            self.handler.answer()
            self._deliver()

    def _deliver(self) -> None:
        while True:
            if self.pending and self.transport.reading and not self.transport.closed:
                data, self.pending = self.pending, b""
                self.connection.data_received(data)
                self.check_bounds(len(data))
            self.loop.run()
            if not self.pending or not self.transport.reading or self.transport.closed:
                return

    def check_bounds(self, last_read: int) -> None:
        """What the connection may hold, see ``gateway.http_server``."""
        if self.handler.turns or self.connection.write_paused:
            assert self.connection.waiting <= MAX_PIPELINED + SLICE_BYTES // 26
            assert self.connection.held_bytes <= MAX_READ_AHEAD + self.limits.max_body_bytes + last_read
        else:
            assert self.connection.held_bytes <= self.limits.max_body_bytes + SLICE_BYTES

    def end(self) -> None:
        """The client closes its side."""
        self.ended_by_answer = self.transport.closed or self.transport.eof
        if not self.transport.closed and not self.connection.eof_received():
            self.transport.close()
        self.connection.connection_lost(None)
        self.loop.run()
        assert not self.loop.failures, self.loop.failures

    @property
    def seen(self) -> list[Fields]:
        """Requests that the handler got."""
        return [fields(request) for request in self.handler.requests]

    @property
    def answers(self) -> bytes:
        """Everything written, without the 100s, whose number depends on how the bytes came."""
        return bytes(self.transport.written).replace(CONTINUE, b"")


def drive(
    pieces: Iterable[bytes],
    *,
    limits: SmallLimits | None = None,
    at_once: bool = True,
    slow: bool = False,
    memory: HeadMemory | None = None,
) -> Driven:
    """Feed pieces to a new connection and end it; a ``slow`` client takes its answers only after every other piece."""
    driven = Driven(handler=Answering(at_once=at_once), limits=limits or SmallLimits(), memory=memory or HeadMemory())
    for number, piece in enumerate(pieces):
        if slow:
            driven.take_answers(number % 2 == 1)
        driven.feed(piece)
    if slow:
        driven.take_answers(True)
    driven.answer_all()
    driven.end()
    return driven


# -- The reference -------------------------------------------------------------------------------------------


@dataclass
class Reference:
    """What h11 made of the same bytes.

    Attributes:
        seen: complete requests.
        refused: why it stopped, if it found an error.
        closed: it takes nothing more on this connection, because a request said so (or is HTTP/1.0).
    """

    seen: list[Fields] = field(default_factory=list)
    refused: str = ""
    closed: bool = False


_REQUEST_LINE = re.compile(rb"\A[\r\n]*([A-Z]+) +([^ \r\n]+) +(?:HTTP|RTSP|ICE)/")


def read_by_h11(raw: bytes, *, lenient: bool = False) -> Reference:
    """Read requests as an h11 server does; ``lenient`` spares it what our parser forgives at a request's start."""
    found = Reference()
    while True:
        if lenient:
            raw = _REQUEST_LINE.sub(rb"\1 \2 HTTP/", raw)
        server = h11.Connection(our_role=h11.SERVER, max_incomplete_event_size=16 * MAX_BODY)
        server.receive_data(raw)
        body = b""
        try:
            request = server.next_event()
            if not isinstance(request, h11.Request):
                return found
            while isinstance(event := server.next_event(), h11.Data):
                body += bytes(event.data)
        except h11.RemoteProtocolError as error:
            found.refused = str(error)
            return found
        if not isinstance(event, h11.EndOfMessage):
            return found
        found.seen.append((request.method, request.target, _unframed(request.headers), body))
        if server.their_state is h11.MUST_CLOSE or request.http_version == b"1.0":
            found.closed = True
            return found
        raw = server.trailing_data[0]


def forwarded(request: Request) -> bytes:
    """The request as a gateway writes it: framed by one Content-Length."""
    kept = [field for field in request.headers if field[0] not in (b"content-length", b"transfer-encoding", b"expect")]
    kept += [(b"host", b"replica")] if request.header(b"host") is None else []
    kept.append((b"content-length", b"%d" % len(request.body)))
    return head(b"%b %b HTTP/1.1" % (request.method, request.target), kept) + request.body


def answers_by_h11(requests: list[Request], written: bytes, *, refusals: int) -> list[int]:
    """Status codes in the bytes that went to the client, which must be whole and valid HTTP.

    Raises:
        h11.RemoteProtocolError: they are not.
        AssertionError: more answers than requests, or bytes that belong to none.
    """
    statuses: list[int] = []
    rest = written
    for request in [*requests, *[None] * refusals]:
        client = h11.Connection(our_role=h11.CLIENT)
        if request is None:  # the refusal of a HEAD has no body
            method = "HEAD" if rest.find(b"\r\n\r\n") == len(rest) - 4 else "GET"
        else:
            method = request.method.decode()
        client.send(h11.Request(method=method, target="/", headers=[("host", "x"), ("content-length", "0")]))
        client.send(h11.EndOfMessage())
        client.receive_data(rest)
        for event in iter(client.next_event, None):
            if event is h11.NEED_DATA:
                assert not rest, f"cut answer: {rest[:200]!r}"
                return statuses
            if isinstance(event, h11.Response):
                statuses.append(event.status_code)
            if isinstance(event, h11.EndOfMessage):
                break
        rest = client.trailing_data[0]
    assert not rest, f"bytes behind the last answer: {rest[:200]!r}"
    return statuses


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Split ``data`` at the given places (taken modulo its length)."""
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(marks)]


def all_cuttings(data: bytes) -> Iterable[list[bytes]]:
    """Every way to split ``data`` into pieces: 2 ** (len(data) - 1) of them."""
    for number in range(2 ** (len(data) - 1)):
        yield cut(data, [place for place in range(1, len(data)) if number >> (place - 1) & 1])
