"""One answer on its way to the client: its head, its body, and how it ends when it cannot be completed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from inferdock.domain.errors import RequestError
from inferdock.gateway.auth import CHALLENGE
from inferdock.gateway.http_server import Listener, Turn
from inferdock.wire.http1 import LAST_CHUNK, WITHOUT_BODY, Header, ResponseHead, chunk, header_lines, status_line
from inferdock.wire.openai import error_body

_NOT_RETURNED = frozenset({b"server", b"x-request-id"})
_EVENT_STREAM = (
    b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n"
)
HEARTBEAT = b": waiting for a replica\n\n"
"""An SSE comment: clients skip it, proxies see that the connection lives."""


class Outlet(Protocol):
    """Where the answer of one exchange goes: to a client (:class:`Answer`), or to all who share it.

    Attributes:
        status: as the client got it, 0 before.
        begun: the head has been written; the status cannot be changed any more.
        extra: further headers of ours, for whatever answer it becomes.
    """

    status: int
    extra: Sequence[Header]

    @property
    def begun(self) -> bool: ...
    @property
    def chunked(self) -> bool:
        """Bodies come framed in chunks; else as they are."""

    @property
    def takes_beats(self) -> bool:
        """:meth:`beat` may be called."""

    def listen(self, listener: Listener) -> None:
        """Tell this one what the client does."""

    def begin(self, response: ResponseHead, first: bytes, *, framed_by_us: bool, extra: bytes) -> None:
        """Head and first bytes of the body."""

    def write(self, data: bytes) -> None:
        """More of the body."""

    def beat(self) -> None:
        """The client of a stream is still being waited for."""

    def refuse(self, error: RequestError, *, bodiless: bool) -> None:
        """Answer with an error instead."""

    def cut(self, error: RequestError, *, readable: bool) -> None:
        """The body cannot be completed."""

    def finish(self, last: bytes = b"") -> None:
        """The answer is complete."""


class Answer:
    """What has been said to one client.

    Attributes:
        begun: the head has been written; the status cannot be changed any more.
        status: as the client got it, 0 before.
        extra: further headers of ours, for whatever answer it becomes.
    """

    __slots__ = ("_events", "_request_id", "_turn", "begun", "extra", "status")

    def __init__(self, turn: Turn, request_id: bytes) -> None:
        self._turn = turn
        self._request_id = request_id
        self._events = False
        self.begun = False
        self.status = 0
        self.extra: Sequence[Header] = ()

    @property
    def chunked(self) -> bool:
        """The client understands chunks."""
        return not self._turn.http10

    @property
    def takes_beats(self) -> bool:
        """Only chunks can carry a heartbeat before anything else."""
        return not self._turn.http10

    def listen(self, listener: Listener) -> None:
        """Tell this one what the client does."""
        self._turn.listener = listener

    def begin(self, response: ResponseHead, first: bytes, *, framed_by_us: bool, extra: bytes) -> None:
        """Write the head and the first bytes of the body.

        Args:
            response: the replica's head.
            first: bytes of the body, framed.
            framed_by_us: the body is framed anew, whatever the replica's framing was.
            extra: header lines of our own.
        """
        if self.begun:  # a heartbeat needed the head before
            self._turn.write(first)
            return
        self.begun = True
        self.status = response.status
        self._events = response.event_stream
        turn = self._turn
        if response.status in WITHOUT_BODY:
            framing = b""  # RFC 9110, 8.6: a 204 has no Content-Length; of a 304 it would say what another answer has
        elif response.length is not None and not framed_by_us:
            framing = b"content-length: %d\r\n" % response.length
        elif (response.chunked or framed_by_us) and not turn.http10:
            framing = b"transfer-encoding: chunked\r\n"
        else:
            framing = b""
            turn.keep_alive = False  # the body's end is the connection's end
        self._write_head(response.status, response.lines(_NOT_RETURNED) + extra + framing, first)

    def _write_head(self, status: int, lines: bytes, first: bytes) -> None:
        turn = self._turn
        if not turn.keep_alive:
            lines += b"connection: close\r\n"
        elif turn.http10:
            lines += b"connection: keep-alive\r\n"
        if self.extra:
            lines += header_lines(self.extra)
        turn.write(b"%b\r\nx-request-id: %b\r\n%b\r\n%b" % (status_line(status), self._request_id, lines, first))

    def write(self, data: bytes) -> None:
        """Write more of the body, framed."""
        self._turn.write(data)

    def beat(self) -> None:
        """Tell the client of a stream that it is still being waited for (HTTP/1.1 only)."""
        if not self.begun:
            self.begun = self._events = True
            self.status = 200
            self._write_head(200, _EVENT_STREAM, chunk(HEARTBEAT))
        else:
            self._turn.write(chunk(HEARTBEAT))

    def refuse(self, error: RequestError, *, bodiless: bool) -> None:
        """Answer with an error instead; after a heartbeat it can only be an event."""
        if self.begun:
            self.cut(error, readable=True)
        else:
            self.status = error.status
            respond_error(self._turn, error, self._request_id, bodiless=bodiless, extra=self.extra)

    def cut(self, error: RequestError, *, readable: bool) -> None:
        """The body cannot be completed: say so in the stream if that is possible, else cut the connection."""
        if self._events and readable and not self._turn.http10:
            self._turn.write(chunk(b"data: " + error_body(error) + b"\n\n") + LAST_CHUNK)
            self._turn.finish()
        else:
            self._turn.abort()

    def finish(self, last: bytes = b"") -> None:
        """The answer is complete."""
        if last:
            self._turn.write(last)
        if self._events and self._turn.http10:
            self._turn.keep_alive = False
        self._turn.finish()


def respond_error(
    turn: Turn, error: RequestError, request_id: bytes, *, bodiless: bool = False, extra: Iterable[Header] = ()
) -> None:
    """Answer with an OpenAI error object; ``extra``: further headers."""
    fields: list[Header] = [(b"content-type", b"application/json"), (b"x-request-id", request_id), *extra]
    if error.retry_after_s is not None:
        fields.append((b"retry-after", b"%d" % error.retry_after_s))
    if error.status == 401:
        fields.append(CHALLENGE)
    turn.respond(error.status, fields, error_body(error), bodiless=bodiless)
