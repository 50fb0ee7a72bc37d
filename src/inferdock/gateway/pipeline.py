"""What a request meets, in order: own routes -> key -> admission -> fields -> model -> limits -> exchange -> log.

The public port's :class:`~inferdock.gateway.http_server.Handler`. What is not answered here goes through an
:class:`~inferdock.gateway.exchange.Exchange`.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from inferdock.balance.board import Board
from inferdock.balance.endpoints import Endpoint, EndpointSet, State
from inferdock.balance.wanted import Wanted
from inferdock.domain.errors import RequestError, unavailable
from inferdock.gateway.answer import Answer, Outlet, respond_error
from inferdock.gateway.ask import SESSION_HEADER, Ask
from inferdock.gateway.auth import Authenticator, check_model, model_not_found
from inferdock.gateway.books import Books, Record
from inferdock.gateway.caching.plan import Bypass, Plan
from inferdock.gateway.console import Console
from inferdock.gateway.exchange import Exchange
from inferdock.gateway.http_server import Request, Turn
from inferdock.gateway.limits import COLUMNS as LIMITER_COLUMNS
from inferdock.gateway.limits import Admission, Limiter, RateLimitError, estimate_tokens
from inferdock.gateway.load import IN_FLIGHT, LOAD_COLUMNS
from inferdock.gateway.metrics import UNKNOWN, GatewayMetrics
from inferdock.gateway.own_routes import OwnRoutes
from inferdock.gateway.retry_budget import RetryBudget
from inferdock.gateway.shadow.shadows import Shadows
from inferdock.gateway.upstream import UpstreamPool
from inferdock.gateway.waiting_room import WaitingRoom, no_replica
from inferdock.keys.key import ANONYMOUS, Key
from inferdock.telemetry.logs import EventLog
from inferdock.telemetry.tracing import NoTracing, Tracing
from inferdock.wire.continuation import ResumeMode, resume_mode
from inferdock.wire.openai import (
    IDS_WISH,
    STREAMING_PATHS,
    USAGE_WISH,
    RequestFields,
    StreamOptions,
    raw,
    raw_number,
    read_fields,
    with_wishes,
)

if TYPE_CHECKING:
    from inferdock.config.settings import GatewaySettings
    from inferdock.gateway.caching.door import Door
    from inferdock.gateway.caching.flight import Flight

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
TIMEOUT_HEADER = b"x-inferdock-timeout-ms"
"""How long the client will wait, in milliseconds; a request that cannot begin by then is refused."""

_REQUEST_ID = re.compile(rb"[!#-\[\]-~]{1,128}")  # visible ASCII that needs no escape in JSON
_PROMPT = re.compile(rb'"(?:messages|prompt|input)"\s*:')
_ROUTES = {path: path.decode() for path in POST_ONLY}


class Pipeline:
    """Takes every request of the public port to its answer.

    Attributes:
        settings: may be replaced at any time; requests under way keep the limits that they began with.
        draining: no new requests are taken.
        in_flight: requests that have not ended, waiting ones included.
        door: of the response cache; None where no model uses it.
        shadows: copies of requests for revisions that are to be tried.
    """

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
        auth: Authenticator | None = None,
        limiter: Limiter | None = None,
        load: Board | None = None,
        tracing: Tracing | None = None,
        clock: Callable[[], float] = time.perf_counter,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Without ``auth`` nobody needs a key; ``load`` outlives this process (``gateway.load``)."""
        self.settings = settings
        self.endpoints = endpoints
        self.pool = pool
        self.metrics = metrics
        self.auth = auth or Authenticator(check="never")
        self.limiter = limiter or Limiter(Board.private(LIMITER_COLUMNS))
        self.draining = False
        self.tracing = tracing or NoTracing()
        self._books = Books(
            metrics=metrics,
            log=log,
            tracing=self.tracing,
            log_requests=log_requests,
            clock=clock,
            wall_clock=wall_clock,
        )
        self._load = load or Board.private(LOAD_COLUMNS)
        self.in_flight = 0
        self.now = clock
        self.room = WaitingRoom(
            endpoints=endpoints, settings=lambda: self._settings, clock=clock, call_later=pool.loop.call_later
        )
        self._wall_clock = wall_clock
        self.door: Door | None = None
        self.shadows = Shadows(self, self._load)
        self._live: set[Exchange] = set()
        self._leaving: dict[Endpoint, float] = {}
        self._budgets: dict[str, RetryBudget] = {}
        self._idle = asyncio.Event()
        self._check_soon = check_soon
        self._own = OwnRoutes(endpoints=endpoints, metrics=metrics, is_draining=lambda: self.draining)
        self._console = Console(auth=self.auth, settings=lambda: self._settings, wall_clock=wall_clock)
        self._id_prefix = b"req-" + os.urandom(8).hex().encode() + b"-%x"
        self._id_counter = 0
        metrics.waiting = self.room.all_waiting

    @property
    def settings(self) -> GatewaySettings:
        return self._settings

    @settings.setter
    def settings(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._usual = Wanted(limit=settings.max_in_flight_per_replica)

    # -- Handler ---------------------------------------------------------------------------------------------

    def handle(self, request: Request, turn: Turn) -> None:
        """Answer one request (see the module's first line for the order)."""
        named = request.head.named
        request_id = self._request_id(named.get(b"x-request-id"))
        plan: Plan | Bypass | None = None
        try:
            key = ANONYMOUS
            if self.auth.enabled and request.path.startswith(b"/v1/"):
                key = self.auth.authenticate(named.get(b"authorization"), named.get(b"x-api-key"), self._wall_clock())
            route = _ROUTES.get(request.path)
            if route is None:
                if self._own.answers(request):
                    self._own.answer(request, turn, request_id, key)
                    return
                if self._console.answers(request.path):
                    self._console.answer(request, turn, request_id)
                    return
                _check_path(request.path)
                route = "other"
            elif request.method != b"POST":
                raise RequestError(405, "This route only takes POST.", code="method_not_allowed")
            self._admit(turn)
            fields = self._read(request, named.get(b"content-type"))
            model = self._resolve(fields.model, key)
            if self.door is not None:
                plan = self.door.plan(request, named, model, key.tenant)
            admission = self._limited(request, fields, key)
        except RequestError as error:
            self._count(UNKNOWN, "", "refused", error.status)
            extra = error.headers if isinstance(error, RateLimitError) else ()
            respond_error(turn, error, request_id, bodiless=request.method == b"HEAD", extra=extra)
            return
        self._now_in_flight(self.in_flight + 1)
        ask = Ask(
            request,
            Answer(turn, request_id),
            request_id,
            route,
            model,
            fields,
            key,
            admission,
            self._wanted(request, named, key),
            -key.priority if fields.priority is UNSET else _priority(fields, key),
            _deadline(request, named[TIMEOUT_HEADER]) if TIMEOUT_HEADER in named else math.inf,
            self.tracing.begin(named.get(b"traceparent")),
        )
        if key.limited:
            ask.answer.extra = admission.headers(self.now())
        if plan is None or self.door is None:
            self._begin(ask, ask.answer, self.over, False)
        else:
            self.door.enter(ask, plan)

    def pass_on(self, ask: Ask) -> None:
        """Answer an admitted request by an exchange of its own."""
        self._begin(ask, ask.answer, self.over, False)

    def generate(self, ask: Ask, flight: Flight) -> Exchange:
        """Begin an exchange whose answer goes to all who share it."""
        return self._begin(ask, flight.broadcast, lambda exchange: self._shared_over(exchange, flight), True)

    def _begin(self, ask: Ask, answer: Outlet, over: Callable[[Exchange], None], share: bool) -> Exchange:
        """``share``: the usage is wanted in any case, and whoever shares the answer takes it out where it is not."""
        if self.endpoints.shadows:
            answer, over = self.shadows.follow(ask, answer, over)
        request, fields, model = ask.request, ask.fields, ask.model
        mode = self._resume_mode(request, fields, model)
        body, drop_usage = _body_for_replica(request, fields, mode)
        if share and drop_usage:
            fields = msgspec.structs.replace(fields, stream_options=StreamOptions(include_usage=True))
            drop_usage = False
        if not share:
            request.body = body  # one copy is enough
        budget = self._budgets.get(model)
        if budget is None:
            budget = self._budgets[model] = RetryBudget(self.now())
        budget.request()
        exchange = Exchange(self, ask, answer, fields, body, drop_usage, mode, over)
        self._live.add(exchange)
        exchange.start()
        return exchange

    def refused(self, status: int) -> None:
        """A request that was not valid HTTP, or broke a limit, was answered by the connection itself."""
        self._count(UNKNOWN, "", "invalid", status)

    # -- Steps -----------------------------------------------------------------------------------------------

    def _admit(self, turn: Turn) -> None:
        if self.draining:
            turn.keep_alive = False
            raise unavailable("This gateway is shutting down.", code="draining", retry_after_s=1)
        if self._load.total(IN_FLIGHT) >= self._settings.max_in_flight:
            raise unavailable("Too many requests are in flight.", code="overloaded", retry_after_s=1)

    def _read(self, request: Request, content_type: bytes | None) -> RequestFields:
        if request.method != b"POST":
            return RequestFields()
        if content_type is not None and b"json" not in content_type.lower():
            if request.path in POST_ONLY:
                raise RequestError(415, "The body must be JSON (`Content-Type: application/json`).")
            return RequestFields()
        return read_fields(request.body)

    def _resolve(self, model: str | None, key: Key) -> str:
        if model is None:
            known = self.endpoints.models
            if not known:
                raise no_replica("any model")
            if len(known) > 1:
                raise RequestError(400, "`model` is missing.", param="model", code="model_missing")
            model = known[0]  # as vLLM does: one model needs no name
        if key.models:
            check_model(key, model)
        if self.endpoints.knows(model):
            return model
        raise model_not_found(model) if self.endpoints.models else no_replica(model[:200])

    def _limited(self, request: Request, fields: RequestFields, key: Key) -> Admission:
        tokens = 0
        if key.tokens_per_minute is not None:
            asked = raw_number(fields.max_completion_tokens) or raw_number(fields.max_tokens) or 0
            tokens = estimate_tokens(request.body, int(asked) if math.isfinite(asked) else None)
        return self.limiter.admit(key, stream=bool(fields.stream), now=self.now(), tokens=tokens)

    def _resume_mode(self, request: Request, fields: RequestFields, model: str) -> ResumeMode:
        if not fields.stream or request.path not in STREAMING_PATHS:
            return ResumeMode.NONE
        route = self._settings.models.get(model)
        wished = route.resume if route is not None and route.resume is not None else self._settings.resume
        return resume_mode(fields, request.path) if wished else ResumeMode.NONE

    def _wanted(self, request: Request, named: dict[bytes, bytes], key: Key) -> Wanted:
        session = named.get(SESSION_HEADER)
        if session is None and self._settings.sticky == "key" and key is not ANONYMOUS:
            session = b"key " + key.id.encode()
        prefix = _prompt_of(request.body, self.endpoints.prefix_bytes) if self.endpoints.prefix_bytes else b""
        if session is None and not prefix:
            return self._usual
        return Wanted(session=session, prefix=prefix, limit=self._usual.limit)

    def _request_id(self, given: bytes | None) -> bytes:
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given
        self._id_counter += 1
        return self._id_prefix % self._id_counter

    def turn_all_away(self) -> None:
        """The drain's deadline has passed: nobody waits any longer."""
        self.room.turn_all_away(unavailable("This gateway has shut down.", code="draining", retry_after_s=1))
        if self.door is not None:
            self.door.turn_all_away()

    # -- Chores ----------------------------------------------------------------------------------------------

    def endpoints_removed(self, endpoints: list[Endpoint]) -> None:
        """These are being taken out: what they still work on gets some time, then goes on elsewhere."""
        deadline = self.now() + self._settings.replica_drain_timeout_s
        self._leaving |= dict.fromkeys(endpoints, deadline)
        self.shadows.leave(endpoints)

    def check_time(self) -> None:
        """Called about once a second: moves streams away from replicas that hang or must go."""
        now = self.now()
        due = {endpoint for endpoint, deadline in self._leaving.items() if deadline <= now or not endpoint.in_flight}
        for exchange in list(self._live):
            if exchange.endpoint in due:
                exchange.migrate("the replica is being taken out")
            else:
                exchange.check_time(now)
        self.shadows.check_time(now)
        for endpoint in due:
            if not endpoint.in_flight:
                del self._leaving[endpoint]

    # -- What exchanges call back ----------------------------------------------------------------------------

    def may_retry(self, model: str) -> bool:
        """Pay for one retry of a request for ``model``."""
        allowed = self._budgets[model].take(self.now())
        if not allowed:
            self.metrics.retries_refused.cell(model).value += 1
        return allowed

    def endpoint_failed(self, endpoint: Endpoint, *, refused: bool) -> None:
        """Have the endpoint checked at once; leave it out for a while when it fails again and again."""
        ejected = self.endpoints.attempt_failed(endpoint, self.now(), refused)
        if refused and not ejected and endpoint.state is State.READY:
            endpoint.state = State.UNREADY  # it is the last one: requests wait for a good health check
        self._check_soon()

    def endpoint_answered(self, endpoint: Endpoint) -> None:
        """A request was answered: what was held against the endpoint fades."""
        self.endpoints.attempt_succeeded(endpoint, self.now())

    async def finish_all(self) -> None:
        """Take no new requests and wait until those under way have ended."""
        self.draining = True
        self.shadows.stop()
        if self.in_flight:
            await self._idle.wait()

    def over(self, exchange: Exchange) -> None:
        """A request has ended."""
        self._live.discard(exchange)
        self.closed(exchange)

    def _shared_over(self, exchange: Exchange, flight: Flight) -> None:
        self._live.discard(exchange)
        flight.exchange_over(exchange)

    def closed(self, record: Record) -> None:
        """A client's request has ended: note it."""
        self._now_in_flight(self.in_flight - 1)
        if self.draining and not self.in_flight:
            self._idle.set()
        self._books.close(record)

    def _now_in_flight(self, count: int) -> None:
        self.in_flight = count
        self._load.set(IN_FLIGHT, count)

    @property
    def log_requests(self) -> bool:
        """Write a line for each request."""
        return self._books.log_requests

    @log_requests.setter
    def log_requests(self, wanted: bool) -> None:
        self._books.log_requests = wanted

    def _count(self, model: str, revision: str, route: str, status: int) -> None:
        self.metrics.requests.cell(model, revision, route, str(status)).value += 1


def _check_path(path: bytes) -> None:
    if not path.startswith(b"/v1/") or b".." in path:
        shown = path[:200].decode("utf-8", "replace")
        raise RequestError(404, f"There is no route {shown}; the API lives under /v1.", code="route_not_found")


def _body_for_replica(request: Request, fields: RequestFields, mode: ResumeMode) -> tuple[bytes, bool]:
    """The body to send, and whether we added the wish for a usage event that the client did not ask for."""
    if not fields.stream or request.path not in STREAMING_PATHS:
        return request.body, False
    drop_usage = fields.stream_options is None
    wishes = USAGE_WISH if drop_usage else b""
    if mode is not ResumeMode.NONE and raw(fields.return_token_ids) != b"true":
        wishes += IDS_WISH
    return (with_wishes(request.body, wishes) if wishes else request.body), drop_usage


def _priority(fields: RequestFields, key: Key) -> int:
    """Lower goes first. A key's own priority decides; a body can move itself ahead only where nobody has a key."""
    asked = raw_number(fields.priority) or 0.0
    asked = max(-1e9, min(1e9, asked)) if math.isfinite(asked) else 0.0
    if key is ANONYMOUS:
        return int(asked)
    return max(0, int(asked)) - key.priority


def _deadline(request: Request, timeout_ms: bytes) -> float:
    if not timeout_ms.isdigit() or len(timeout_ms) > 9:
        return math.inf
    return request.received_at + int(timeout_ms) / 1e3


def _prompt_of(body: bytes, size: int) -> bytes:
    """The beginning of the prompt, as JSON."""
    found = _PROMPT.search(body)
    return body[found.end() : found.end() + size] if found is not None else b""
