"""What a request meets, in order: own routes -> admission -> fields -> model -> exchange with a replica -> log.

The public port's :class:`~inferdock.gateway.http_server.Handler`. What is not answered here goes through an
:class:`~inferdock.gateway.exchange.Exchange`.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable

from inferdock.balance.endpoints import Endpoint, EndpointSet, State
from inferdock.config.settings import GatewaySettings
from inferdock.domain.errors import RequestError
from inferdock.gateway.exchange import Exchange, no_replica, respond_error
from inferdock.gateway.http_server import Request, Turn
from inferdock.gateway.metrics import UNKNOWN, GatewayMetrics
from inferdock.gateway.own_routes import OwnRoutes
from inferdock.gateway.upstream import UpstreamPool
from inferdock.telemetry.logs import EventLog
from inferdock.wire.openai import STREAMING_PATHS, RequestFields, read_fields, with_usage

POST_ONLY = frozenset(
    {
        b"/v1/chat/completions",
        b"/v1/completions",
        b"/v1/embeddings",
        b"/v1/responses",
        b"/v1/messages",
        b"/v1/score",
        b"/v1/rerank",
    }
)
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class Pipeline:
    """Takes every request of the public port to its answer."""

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        endpoints: EndpointSet,
        pool: UpstreamPool,
        metrics: GatewayMetrics,
        log: EventLog,
        log_requests: bool,
        check_soon: Callable[[], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.settings = settings
        self.endpoints = endpoints
        self.pool = pool
        self.metrics = metrics
        self.draining = False
        self.in_flight = 0
        self.now = clock
        self._idle = asyncio.Event()
        self._log = log
        self._log_requests = log_requests
        self._check_soon = check_soon
        self._own = OwnRoutes(endpoints=endpoints, metrics=metrics, is_draining=lambda: self.draining)
        self._id_prefix = os.urandom(8).hex()
        self._id_counter = 0

    # -- Handler ---------------------------------------------------------------------------------------------

    def handle(self, request: Request, turn: Turn) -> None:
        """Answer one request (see the module's first line for the order)."""
        request_id = self._request_id(request)
        try:
            if self._own.answers(request):
                self._count(UNKNOWN, "", "own", self._own.answer(request, turn, request_id))
                return
            self._check_route(request)
            self._admit(turn)
            fields = self._read(request)
            model = self._resolve(fields.model)
        except RequestError as error:
            self._count(UNKNOWN, "", "refused", error.status)
            respond_error(turn, error, request_id, bodiless=request.method == b"HEAD")
            return
        body, drop_usage = _body_for_replica(request, fields)
        self.in_flight += 1
        Exchange(
            self,
            request,
            turn,
            request_id=request_id,
            route=_route_label(request.path),
            model=model,
            fields=fields,
            body=body,
            drop_usage=drop_usage,
        ).start()

    def refused(self, status: int) -> None:
        """A request that was not valid HTTP, or broke a limit, was answered by the connection itself."""
        self._count(UNKNOWN, "", "invalid", status)

    # -- Steps -----------------------------------------------------------------------------------------------

    def _check_route(self, request: Request) -> None:
        path = request.path
        if not path.startswith(b"/v1/") or b".." in path:
            shown = path[:200].decode("utf-8", "replace")
            raise RequestError(404, f"There is no route {shown}; the API lives under /v1.", code="route_not_found")
        if path in POST_ONLY and request.method != b"POST":
            raise RequestError(405, "This route only takes POST.", code="method_not_allowed")

    def _admit(self, turn: Turn) -> None:
        if self.draining:
            turn.keep_alive = False
            raise RequestError(
                503, "This gateway is shutting down.", kind="server_error", code="draining", retry_after_s=1
            )
        if self.in_flight >= self.settings.max_in_flight:
            raise RequestError(
                503, "Too many requests are in flight.", kind="server_error", code="overloaded", retry_after_s=1
            )

    def _read(self, request: Request) -> RequestFields:
        if request.method != b"POST":
            return RequestFields()
        content_type = request.header(b"content-type") or b"application/json"
        if b"json" not in content_type.lower():
            if request.path in POST_ONLY:
                raise RequestError(415, "The body must be JSON (`Content-Type: application/json`).")
            return RequestFields()
        return read_fields(request.body)

    def _resolve(self, model: str | None) -> str:
        known = self.endpoints.models
        if model is None:
            if len(known) == 1:
                return known[0]  # as vLLM does: one model needs no name
            if known:
                raise RequestError(400, "`model` is missing.", param="model", code="model_missing")
        elif self.endpoints.of_model(model):
            return model
        elif known:
            raise RequestError(404, f"The model `{model[:200]}` does not exist.", param="model", code="model_not_found")
        raise no_replica(model[:200] if model else "any model")

    def _request_id(self, request: Request) -> bytes:
        given = request.header(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given
        self._id_counter += 1
        return b"req-%b-%x" % (self._id_prefix.encode(), self._id_counter)

    # -- What exchanges call back ----------------------------------------------------------------------------

    def endpoint_failed(self, endpoint: Endpoint, *, refused: bool) -> None:
        """Have the endpoint checked at once; stop choosing one that takes no connections."""
        endpoint.failures += 1
        if refused and endpoint.state is State.READY:
            endpoint.state = State.UNREADY
        self._check_soon()

    async def finish_all(self) -> None:
        """Take no new requests and wait until those under way have ended."""
        self.draining = True
        if self.in_flight:
            await self._idle.wait()

    def over(self, exchange: Exchange) -> None:
        """Count a finished exchange and write its line."""
        self.in_flight -= 1
        if self.draining and not self.in_flight:
            self._idle.set()
        self._count(exchange.model, exchange.revision, exchange.route, exchange.status)
        duration_s = exchange.ended_at - exchange.request.received_at
        cells = self.metrics.cells(exchange.model, exchange.revision)
        cells.duration.observe(duration_s)
        usage = exchange.usage
        output_tokens = usage.completion_tokens if usage is not None else exchange.chunks
        cells.output_tokens.value += output_tokens
        if usage is not None:
            cells.prompt_tokens.value += usage.prompt_tokens
        ttft_s: float | None = None
        if exchange.fields.stream and exchange.first_byte_at and exchange.status == 200:
            ttft_s = exchange.first_byte_at - exchange.request.received_at
            cells.ttft.observe(ttft_s)
            if output_tokens > 1 and exchange.outcome == "answered":
                cells.tpot.observe((duration_s - ttft_s) / (output_tokens - 1))
        if self._log_requests:
            self._log_line(exchange, duration_s, ttft_s, output_tokens)

    def _log_line(self, exchange: Exchange, duration_s: float, ttft_s: float | None, output_tokens: int) -> None:
        self._log.event(
            "info",
            "request",
            request_id=exchange.request_id.decode(),
            model=exchange.model,
            revision=exchange.revision,
            endpoint=exchange.endpoint_name,
            route=exchange.route,
            status=exchange.status,
            outcome=exchange.outcome,
            attempts=exchange.attempts,
            stream=bool(exchange.fields.stream),
            duration_s=round(duration_s, 6),
            ttft_s=None if ttft_s is None else round(ttft_s, 6),
            prompt_tokens=exchange.usage.prompt_tokens if exchange.usage is not None else None,
            output_tokens=output_tokens,
        )

    def _count(self, model: str, revision: str, route: str, status: int) -> None:
        self.metrics.requests.cell(model, revision, route, str(status)).value += 1


def _body_for_replica(request: Request, fields: RequestFields) -> tuple[bytes, bool]:
    """The body to send, and whether we added the wish for a usage event that the client did not ask for."""
    if fields.stream and fields.stream_options is None and request.path in STREAMING_PATHS:
        return with_usage(request.body), True
    return request.body, False


def _route_label(path: bytes) -> str:
    """A bounded label: known routes by name, everything else as ``other``."""
    return path.decode() if path in POST_ONLY else "other"
