"""One try on one replica: its lease, its connection, the bytes that are sent to it."""

from __future__ import annotations

from typing import Protocol

from inferdock.balance.endpoints import Endpoint, Lease
from inferdock.gateway.http_server import Request
from inferdock.gateway.upstream import Receiver, UpstreamConnection, UpstreamPool
from inferdock.telemetry.tracing import Trace
from inferdock.wire.http1 import HOP_BY_HOP, Header, head

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

    def sending(self) -> None:
        """There is a connection; the request is written to it now."""


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
        "_lease",
        "_owner",
        "_pool",
        "_request",
        "_silence_s",
        "began_at",
        "connection",
        "endpoint",
        "status",
    )

    def __init__(self, owner: Owner, pool: UpstreamPool, lease: Lease, began_at: float) -> None:
        self._owner = owner
        self._pool = pool
        self._lease: Lease | None = lease
        self._request = b""
        self._silence_s = 0.0
        self._bodiless = False
        self.endpoint: Endpoint = lease.endpoint
        self.began_at = began_at
        self.status = 0
        self.connection: UpstreamConnection | None = None

    def begin(self, request: bytes, *, silence_s: float, bodiless: bool) -> None:
        """Send head and body over an idle connection or a new one; see ``UpstreamConnection.send``."""
        self._request = request
        self._silence_s = silence_s
        self._bodiless = bodiless
        spec = self.endpoint.spec
        connection = self._pool.take_idle((spec.host, spec.port))
        if connection is not None:
            self._send(connection)
        else:
            self._pool.connect((spec.host, spec.port), self._send, self._refused)

    def _send(self, connection: UpstreamConnection) -> None:
        if self._lease is None:  # it ended while we connected
            self._pool.give_back(connection)
            return
        self.connection = connection
        if self._owner.paused:
            connection.transport.pause_reading()
        self._owner.sending()
        request, self._request = self._request, b""
        connection.send(request, self._owner, silence_s=self._silence_s, bodiless=self._bodiless)

    def _refused(self, reason: str) -> None:
        if self._lease is not None:
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

    def end(self) -> bool:
        """Give the lease back; False when it had been given back before."""
        lease, self._lease = self._lease, None
        self.connection = None
        if lease is None:
            return False
        lease.release()
        return True


def upstream_head(
    request: Request, target: bytes, endpoint: Endpoint, request_id: bytes, body: bytes, trace: Trace | None = None
) -> bytes:
    """The head that a replica gets: the client's headers without what concerns only us or the connection."""
    dropped = _NOT_FORWARDED if trace is None else _NOT_FORWARDED_TRACED if trace.continues else _NOT_FORWARDED_NEW
    connection = request.header(b"connection")
    if connection is not None and connection.lower() not in (b"keep-alive", b"close"):
        dropped = dropped | {name.strip().lower() for name in connection.split(b",")}
    fields: list[Header] = [(b"host", b"%b:%d" % (endpoint.spec.host.encode(), endpoint.spec.port))]
    fields += [field for field in request.headers if field[0] not in dropped]
    fields.append((b"x-request-id", request_id))
    if trace is not None:
        fields.append((b"traceparent", trace.upstream_header()))
    if body or request.method == b"POST":
        fields.append((b"content-length", b"%d" % len(body)))
    return head(b"%b %b HTTP/1.1" % (request.method, target), fields)
