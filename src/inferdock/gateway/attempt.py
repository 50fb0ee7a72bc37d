"""One try on one replica: its lease, its connection, the bytes that are sent to it."""

from __future__ import annotations

from typing import Protocol

from inferdock.balance.endpoints import Endpoint, Lease
from inferdock.gateway.http_server import Request
from inferdock.gateway.upstream import Receiver, UpstreamConnection, UpstreamPool
from inferdock.telemetry.tracing import AttemptFacts, Trace
from inferdock.wire.http1 import HOP_BY_HOP
from inferdock.wire.request_head import RequestHead

_NOT_FORWARDED = HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"expect",
    b"authorization",  # the client's key is for us, never for the engine
    b"x-api-key",
    b"cookie",
    b"accept-encoding",  # answers must stay readable for usage, and engines do not compress anyway
    b"x-request-id",
}
_NOT_FORWARDED_TRACED = _NOT_FORWARDED | {b"traceparent"}
_NOT_FORWARDED_NEW = _NOT_FORWARDED_TRACED | {b"tracestate"}


class Owner(Receiver, Protocol):
    """Who made the attempt."""

    @property
    def paused(self) -> bool:
        """The client reads slowly: do not read from the replica either."""

    def attempt_refused(self, reason: str) -> None:
        """The replica took no connection."""


class Attempt:
    """Valid until :meth:`end`; whatever happens to its connection after that reaches nobody.

    Attributes:
        endpoint: the replica.
        began_at: clock time, in seconds.
        status: of the replica's answer, 0 without one.
        connection: set while a request is under way on it.
    """

    __slots__ = (
        "_bodiless",
        "_body",
        "_head",
        "_in_pieces",
        "_lease",
        "_owner",
        "_pool",
        "_silence_s",
        "began_at",
        "connection",
        "endpoint",
        "status",
    )

    def __init__(self, owner: Owner, pool: UpstreamPool, lease: Lease, began_at: float) -> None:
        self._owner: Owner | None = owner
        self._pool = pool
        self._lease: Lease | None = lease
        self._head = self._body = b""
        self._silence_s = 0.0
        self._bodiless = self._in_pieces = False
        self.endpoint: Endpoint = lease.endpoint
        self.began_at = began_at
        self.status = 0
        self.connection: UpstreamConnection | None = None

    def begin(
        self, head: bytes, body: bytes, *, silence_s: float, bodiless: bool, in_pieces: bool, fresh: bool = False
    ) -> None:
        """Send head and body over an idle connection or, in any case if ``fresh``, a new one; see
        ``UpstreamConnection.send``."""
        self._head = head
        self._body = body
        self._silence_s = silence_s
        self._bodiless = bodiless
        self._in_pieces = in_pieces
        spec = self.endpoint.spec
        connection = None if fresh else self._pool.take_idle((spec.host, spec.port))
        if connection is not None:
            self._send(connection)
        else:
            self._pool.connect((spec.host, spec.port), self._send, self._refused)

    def _send(self, connection: UpstreamConnection) -> None:
        owner = self._owner
        if owner is None:  # it ended while we connected
            self._pool.give_back(connection)
            return
        self.connection = connection
        if owner.paused:
            connection.transport.pause_reading()
        head, body = self._head, self._body
        self._head = self._body = b""
        connection.send(
            head,
            owner,
            silence_s=self._silence_s,
            bodiless=self._bodiless,
            body=body,
            in_pieces=self._in_pieces,
        )

    def _refused(self, reason: str) -> None:
        if self._owner is not None:
            self._owner.attempt_refused(reason)

    def pause(self) -> None:
        """Let the replica's bytes wait in the kernel."""
        if self.connection is not None and not self.connection.transport.is_closing():
            self.connection.transport.pause_reading()

    def resume(self) -> None:
        """Read again; the silence counts anew."""
        if self.connection is not None and not self.connection.transport.is_closing():
            self.connection.transport.resume_reading()
            self.connection.touch()

    def abort(self) -> None:
        """Drop the request: the engine notices the closed connection and stops its work."""
        if self.connection is not None:
            self.connection.abort()

    def facts(self, outcome: str, *, ended_at: float, resumes: bool) -> AttemptFacts:
        """For its span; ``resumes``: it goes on with an answer that has begun elsewhere."""
        spec = self.endpoint.spec
        return AttemptFacts(
            endpoint=spec.name,
            host=spec.host,
            port=spec.port,
            started_at=self.began_at,
            ended_at=ended_at,
            status=self.status,
            outcome=outcome,
            resumes=resumes,
        )

    def end(self) -> bool:
        """Give the lease back; False when it had been given back before."""
        lease, self._lease = self._lease, None
        self.connection = self._owner = None  # no cycle is left for the garbage collector to find
        if lease is None:
            return False
        lease.release()
        return True


def upstream_head(
    request: Request, target: bytes, endpoint: Endpoint, request_id: bytes, body: bytes, trace: Trace | None = None
) -> bytes:
    """The head that a replica gets: the client's headers without what concerns only us or the connection."""
    if trace is None:
        forwarded = request.head.forwarded(_NOT_FORWARDED)
    else:
        forwarded = request.head.forwarded(_NOT_FORWARDED_TRACED if trace.continues else _NOT_FORWARDED_NEW)
        forwarded += b"traceparent: %b\r\n" % trace.upstream_header()
    return _head(request.head, target, endpoint, forwarded, request_id, body)


def shadow_head(head: RequestHead, endpoint: Endpoint, request_id: bytes, body: bytes) -> bytes:
    """The head of a copy: it says that it is one, and belongs to no trace of the client."""
    forwarded = head.forwarded(_NOT_FORWARDED_NEW) + b"x-inferdock-shadow: 1\r\n"
    return _head(head, head.target, endpoint, forwarded, request_id, body)


def _head(
    head: RequestHead, target: bytes, endpoint: Endpoint, forwarded: bytes, request_id: bytes, body: bytes
) -> bytes:
    length = b"content-length: %d\r\n" % len(body) if body or head.method == b"POST" else b""
    return b"%b %b HTTP/1.1\r\nhost: %b\r\n%bx-request-id: %b\r\n%b\r\n" % (
        head.method,
        target,
        endpoint.authority,
        forwarded,
        request_id,
        length,
    )
