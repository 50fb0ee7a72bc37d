"""One client request from routing to its last byte: attempts on replicas, bytes back, figures taken on the way.

An exchange is both the :class:`~inferdock.gateway.upstream.Receiver` of a replica's response and the
:class:`~inferdock.gateway.http_server.Listener` of its client. Its states, in order::

    choosing -> (connecting) -> waiting -> relaying -> over
        ^------------------------'   a failed attempt, while nothing has been sent to the client

Body bytes are forwarded as they came. The head is held back until the first body bytes arrive, so that a replica
that dies between its head and its first token can still be replaced without the client noticing.
"""

from __future__ import annotations

import re
from typing import Protocol

from inferdock.balance.endpoints import Endpoint, EndpointSet, Lease
from inferdock.config.settings import GatewaySettings
from inferdock.domain.errors import RequestError
from inferdock.gateway.http_server import Request, Turn
from inferdock.gateway.metrics import GatewayMetrics
from inferdock.gateway.upstream import UpstreamConnection, UpstreamPool
from inferdock.wire.http1 import HOP_BY_HOP, LAST_CHUNK, Header, ResponseHead, chunk, head, status_line
from inferdock.wire.openai import RequestFields, Usage, error_body, find_usage

MAX_USAGE_TAIL_BYTES = 64 * 1024
"""End of a JSON answer that is kept to find its usage in; longer answers keep only their end."""

_NOT_FORWARDED = HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"expect",
    b"authorization",  # the client's key is for us, never for the engine
    b"cookie",
    b"accept-encoding",  # answers must stay readable for usage, and engines do not compress anyway
    b"x-request-id",
}
_NOT_RETURNED = frozenset({b"server", b"x-request-id"})
_RETRIED_STATUS = frozenset({502, 503})
_NO_CHOICES = re.compile(rb'"choices":\s*\[\s*\]')


class Surroundings(Protocol):
    """What an exchange uses of the gateway (``pipeline.Pipeline``)."""

    endpoints: EndpointSet
    pool: UpstreamPool
    metrics: GatewayMetrics
    settings: GatewaySettings

    def now(self) -> float:
        """Seconds on a monotonic clock."""

    def endpoint_failed(self, endpoint: Endpoint, *, refused: bool) -> None:
        """An attempt on the endpoint failed; ``refused``: it did not even take the connection."""

    def over(self, exchange: Exchange) -> None:
        """The exchange has ended; write its line in the log."""


class Exchange:
    """One request on its way. ``start`` is called once; everything else is called back."""

    __slots__ = (
        "_around",
        "_avoid",
        "_body",
        "_connection",
        "_drop_usage",
        "_endpoint",
        "_head",
        "_lease",
        "_paused",
        "_relaying",
        "_tail",
        "_turn",
        "attempts",
        "chunks",
        "ended_at",
        "fields",
        "first_byte_at",
        "model",
        "outcome",
        "request",
        "request_id",
        "revision",
        "route",
        "sent_at",
        "status",
        "usage",
    )

    def __init__(
        self,
        around: Surroundings,
        request: Request,
        turn: Turn,
        *,
        request_id: bytes,
        route: str,
        model: str,
        fields: RequestFields,
        body: bytes,
        drop_usage: bool,
    ) -> None:
        """``body`` is what the replica gets; ``drop_usage``: we asked for the usage event, the client did not."""
        self._around = around
        self._turn = turn
        self._body = body
        self._drop_usage = drop_usage
        self._avoid: list[Endpoint] = []
        self._endpoint: Endpoint | None = None
        self._lease: Lease | None = None
        self._connection: UpstreamConnection | None = None
        self._head: ResponseHead | None = None
        self._relaying = False
        self._paused = False
        self._tail = b""
        self.request = request
        self.request_id = request_id
        self.route = route
        self.model = model
        self.fields = fields
        self.revision = ""
        self.attempts = 0
        self.chunks = 0
        self.status = 0
        self.outcome = ""
        self.usage: Usage | None = None
        self.sent_at = 0.0
        self.first_byte_at = 0.0
        self.ended_at = 0.0

    @property
    def endpoint_name(self) -> str | None:
        """Endpoint of the last attempt, None when there was none."""
        return self._endpoint.spec.name if self._endpoint is not None else None

    # -- Attempts --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin the first attempt."""
        self._turn.listener = self
        self._attempt()

    def _attempt(self) -> None:
        lease = self._around.endpoints.lease(self.model, avoid=self._avoid)
        if lease is None:
            self._refuse(no_replica(self.model))
            return
        self.attempts += 1
        self._lease = lease
        endpoint = self._endpoint = lease.endpoint
        self.revision = endpoint.spec.revision
        address = (endpoint.spec.host, endpoint.spec.port)
        connection = self._around.pool.take_idle(address)
        if connection is not None:
            self._send(connection)
        else:
            self._around.pool.connect(address, self._send, self._connect_failed)

    def _send(self, connection: UpstreamConnection) -> None:
        if self.outcome:  # the client left while we connected
            self._around.pool.give_back(connection)
            return
        self._connection = connection
        if self._paused:
            connection.transport.pause_reading()
        self.sent_at = self._around.now()
        connection.send(
            self._upstream_head() + self._body,
            self,
            silence_s=self._around.settings.response_timeout_s,
            bodiless=self.request.method == b"HEAD",
        )

    def _upstream_head(self) -> bytes:
        request, endpoint = self.request, self._endpoint
        assert endpoint is not None
        dropped = _NOT_FORWARDED
        connection = request.header(b"connection")
        if connection is not None and b"," in connection:
            dropped = dropped | {name.strip().lower() for name in connection.split(b",")}
        fields: list[Header] = [(b"host", b"%b:%d" % (endpoint.spec.host.encode(), endpoint.spec.port))]
        fields += [field for field in request.headers if field[0] not in dropped]
        fields.append((b"x-request-id", self.request_id))
        if self._body or request.method == b"POST":
            fields.append((b"content-length", b"%d" % len(self._body)))
        return head(b"%b %b HTTP/1.1" % (request.method, request.target), fields)

    def _connect_failed(self, reason: str) -> None:
        if not self.outcome:
            self._attempt_failed(reason, refused=True)

    def _attempt_failed(self, reason: str, *, refused: bool = False) -> None:
        """Nothing has been sent to the client: try another replica, or say what happened."""
        endpoint = self._endpoint
        assert endpoint is not None
        self._release("failed")
        self._avoid.append(endpoint)
        self._around.endpoint_failed(endpoint, refused=refused)
        if self.attempts < self._around.settings.attempts:
            self._attempt()
        else:
            self._refuse(
                RequestError(502, f"No replica could answer: {reason}.", kind="server_error", code="bad_gateway")
            )

    # -- Receiver: what the replica sends --------------------------------------------------------------------

    def response_head(self, head: ResponseHead) -> None:
        """Hold the head until the body begins; give up on a replica that says it cannot serve."""
        if head.status in _RETRIED_STATUS and self.attempts < self._around.settings.attempts and self._others():
            connection = self._connection
            assert connection is not None
            connection.abort()
            self._attempt_failed(f"the replica answered {head.status}")
            return
        self._head = head

    def _others(self) -> bool:
        tried = {*self._avoid, self._endpoint}
        return any(e not in tried for e in self._around.endpoints.of_model(self.model))

    def response_body(self, data: bytes, payloads: list[tuple[int, int]]) -> None:
        """Forward bytes; on the way, find usage and drop the usage event that only we asked for."""
        response = self._head
        assert response is not None
        if response.event_stream:
            self.chunks += len(payloads)
            if b'"usage"' in data:
                data, payloads = self._take_usage(data, payloads)
        else:
            self._tail = (self._tail + data)[-MAX_USAGE_TAIL_BYTES:] if self._tail else data
        if response.chunked and self._turn.http10:
            data = b"".join([data[start:end] for start, end in payloads])
        if self._relaying:
            self._turn.write(data)
        elif data:
            self._begin(response, data)

    def _begin(self, response: ResponseHead, data: bytes) -> None:
        self._relaying = True
        self.first_byte_at = self._around.now()
        self.status = response.status
        self._turn.write(self._client_head(response) + data)

    def _client_head(self, response: ResponseHead) -> bytes:
        turn = self._turn
        fields = [field for field in response.headers if field[0] not in _NOT_RETURNED]
        overhead_ms = (self.sent_at - self.request.received_at) * 1e3
        fields.append((b"x-request-id", self.request_id))
        fields.append((b"x-inferdock-revision", self.revision.encode()))
        fields.append((b"x-inferdock-overhead-ms", b"%.3f" % overhead_ms))
        if response.length is not None:
            fields.append((b"content-length", b"%d" % response.length))
        elif response.chunked and not turn.http10:
            fields.append((b"transfer-encoding", b"chunked"))
        else:
            turn.keep_alive = False  # the body's end is the connection's end
        if not turn.keep_alive:
            fields.append((b"connection", b"close"))
        elif turn.http10:
            fields.append((b"connection", b"keep-alive"))
        return head(status_line(response.status), fields)

    def _take_usage(self, data: bytes, payloads: list[tuple[int, int]]) -> tuple[bytes, list[tuple[int, int]]]:
        """Read usage from a block of chunks, and take our usage event out of it."""
        self.usage = find_usage(data) or self.usage
        if not self._drop_usage or not _NO_CHOICES.search(data):
            return data, payloads
        kept: list[bytes] = []
        position = 0
        for start, end in payloads:
            payload = data[start:end]
            if _NO_CHOICES.search(payload):
                payload = _without_usage_events(payload)
                self.chunks -= 1
                if payload:
                    kept.append(chunk(payload))
            else:
                kept.append(data[position : end + 2])
            position = end + 2
        kept.append(data[position:])
        rebuilt = b"".join(kept)
        return rebuilt, _payload_places(rebuilt)

    def response_done(self) -> None:
        """The answer is complete."""
        response = self._head
        assert response is not None
        if not self._relaying:
            self._begin(response, b"")
        if response.event_stream and self._turn.http10:
            self._turn.keep_alive = False
        if not response.event_stream and self.usage is None:
            self.usage = find_usage(self._tail)
        self._release("answered")
        self._end("answered" if response.status < 500 else "failed")
        self._turn.finish()

    def response_failed(self, reason: str, *, stale: bool) -> None:
        """The attempt is lost: retry while the client has seen nothing, else end honestly."""
        if not self._relaying:
            if stale:
                self._release("stale")
                self.attempts -= 1
                self._attempt()
            else:
                self._attempt_failed(reason)
            return
        endpoint, response = self._endpoint, self._head
        assert endpoint is not None
        assert response is not None
        self._release("cut")
        if self._paused:
            reason = "the client did not read its answer"
        else:
            self._around.endpoint_failed(endpoint, refused=False)
        self._end("cut")
        if response.event_stream and response.chunked and not self._turn.http10 and not self._paused:
            error = RequestError(502, f"The answer was cut: {reason}.", kind="server_error", code="stream_cut")
            self._turn.write(chunk(b"data: " + error_body(error) + b"\n\n") + LAST_CHUNK)
            self._turn.finish()
        else:
            self._turn.abort()

    # -- Listener: what the client does ----------------------------------------------------------------------

    def client_gone(self) -> None:
        """Stop the replica's work: nobody wants the answer any more."""
        if self.outcome:
            return
        if self._connection is not None:
            self._connection.abort()
        self._release("cancelled")
        self.status = self.status or 499
        self._around.metrics.cancelled.cell(self.model).value += 1
        self._end("cancelled")

    def pause(self) -> None:
        """The client reads slowly: let the replica's bytes wait in the kernel."""
        self._paused = True
        if self._connection is not None and not self._connection.transport.is_closing():
            self._connection.transport.pause_reading()

    def resume(self) -> None:
        """The client reads again."""
        self._paused = False
        connection = self._connection
        if connection is not None and not connection.transport.is_closing():
            connection.transport.resume_reading()
            connection.touch()

    # -- End -------------------------------------------------------------------------------------------------

    def _release(self, outcome: str) -> None:
        lease, self._lease = self._lease, None
        self._connection = None
        if lease is not None:
            lease.release()
            self._around.metrics.attempts.cell(self.model, outcome).value += 1

    def _refuse(self, error: RequestError) -> None:
        self.status = error.status
        self._end("refused")
        respond_error(self._turn, error, self.request_id, bodiless=self.request.method == b"HEAD")

    def _end(self, outcome: str) -> None:
        self.outcome = outcome
        self.ended_at = self._around.now()
        self._around.over(self)


def no_replica(model: str) -> RequestError:
    """503: the model is known, but nothing can serve it now."""
    return RequestError(
        503,
        f"No replica of `{model}` is ready.",
        kind="server_error",
        code="no_ready_replica",
        retry_after_s=2,
    )


def respond_error(turn: Turn, error: RequestError, request_id: bytes, *, bodiless: bool = False) -> None:
    """Answer with an OpenAI error object."""
    fields: list[Header] = [(b"content-type", b"application/json"), (b"x-request-id", request_id)]
    if error.retry_after_s is not None:
        fields.append((b"retry-after", b"%d" % error.retry_after_s))
    turn.respond(error.status, fields, error_body(error), bodiless=bodiless)


def _without_usage_events(payload: bytes) -> bytes:
    """Drop the SSE events without choices from a chunk's payload (usually it is the only one)."""
    events = payload.split(b"\n\n")
    return b"\n\n".join(event for event in events if not _NO_CHOICES.search(event)).lstrip(b"\n")


def _payload_places(data: bytes) -> list[tuple[int, int]]:
    """Find the payloads again in whole chunks that we have just put together."""
    places: list[tuple[int, int]] = []
    position = 0
    while position < len(data):
        line_end = data.index(b"\r\n", position)
        length = int(data[position:line_end].partition(b";")[0], 16)
        if length == 0:
            break
        start = line_end + 2
        places.append((start, start + length))
        position = start + length + 2
    return places
