"""What the gateway counts: one object that owns all its instruments.

Label values are bounded: models and revisions come from the endpoint set, routes and outcomes from fixed lists;
a request for a model that does not exist is counted under ``unknown``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from inferdock.balance.endpoints import EndpointSet, State
from inferdock.gateway.caching.metrics import CacheMetrics
from inferdock.gateway.shadow.metrics import ShadowMetrics
from inferdock.telemetry import names
from inferdock.telemetry.instruments import (
    LATENCY_BUCKETS_S,
    TOKEN_TIME_BUCKETS_S,
    Cell,
    Counter,
    Gauge,
    Histogram,
    HistogramCell,
    Instrument,
)
from inferdock.telemetry.published import Published

UNKNOWN = "unknown"
OTHERS = "others"
MAX_TENANTS = 500
"""Tenants of one revision that are counted by name; the use of further ones is counted under ``others``."""
Samples = Iterable[tuple[tuple[str, ...], float]]
Reply = Callable[[bytes | None], None]


class RevisionCells:
    """The cells that one request for one (model, revision) touches, looked up once."""

    __slots__ = (
        "_answered",
        "_cached",
        "_names",
        "_requests",
        "_tenant_cached",
        "_tenant_tokens",
        "_tenants",
        "duration",
        "itl",
        "output_tokens",
        "prompt_tokens",
        "tpot",
        "ttft",
    )

    def __init__(self, metrics: GatewayMetrics, model: str, revision: str) -> None:
        self._requests = metrics.requests
        self._names = (model, revision)
        self._answered: dict[tuple[str, int], Cell] = {}
        self._tenant_tokens = metrics.tenant_tokens
        self._tenant_cached = metrics.tenant_cached
        self._cached: dict[str, Cell] = {}
        self._tenants: dict[tuple[str, bool], tuple[Cell, Cell]] = {}
        self.ttft: HistogramCell = metrics.ttft.cell(model, revision)
        self.tpot: HistogramCell = metrics.tpot.cell(model, revision)
        self.itl: HistogramCell = metrics.itl.cell(model, revision)
        self.duration: HistogramCell = metrics.duration.cell(model, revision)
        self.prompt_tokens: Cell = metrics.prompt_tokens.cell(model, revision)
        self.output_tokens: Cell = metrics.output_tokens.cell(model, revision)

    def answered(self, route: str, status: int) -> Cell:
        """Counter of the answers of one route with one status."""
        cell = self._answered.get((route, status))
        if cell is None:
            cell = self._answered[route, status] = self._requests.cell(*self._names, route, str(status))
        return cell

    def of_tenant(self, tenant: str, spared: bool) -> tuple[Cell, Cell]:
        """Counters of one tenant's prompt and output tokens; ``spared`` are those that the response cache gave."""
        cells = self._tenants.get((tenant, spared))
        if cells is None:
            if len(self._tenants) >= 2 * MAX_TENANTS and tenant != OTHERS:
                return self.of_tenant(OTHERS, spared)
            kinds = ("spared_prompt", "spared_output") if spared else ("prompt", "output")
            prompt, output = (self._tenant_tokens.cell(*self._names, tenant, kind) for kind in kinds)
            cells = self._tenants[tenant, spared] = (prompt, output)
        return cells

    def cached_of_tenant(self, tenant: str) -> Cell:
        """Counter of one tenant's prompt tokens that the engine's prefix cache held."""
        cell = self._cached.get(tenant)
        if cell is None:
            if len(self._cached) >= MAX_TENANTS and tenant != OTHERS:
                return self.cached_of_tenant(OTHERS)
            cell = self._cached[tenant] = self._tenant_cached.cell(*self._names, tenant)
        return cell


class GatewayMetrics:
    """All instruments of one gateway process, or, in the parent of several workers, of all of them together.

    Instruments with ``merged=False`` have one truth, which the parent of the workers knows itself.

    Attributes:
        by_tenant: tokens are counted by tenant; else all under "".
        instruments: in the order in which they are shown.
        published: figures of the platform that this gateway is part of.
        request_text: asks for the Prometheus text of the whole gateway; the function that it is given is called with
            it, at once or later, or with None where nobody can say it now. The flag asks for OpenMetrics. Set by
            whoever can answer.
    """

    def __init__(
        self,
        endpoints: EndpointSet,
        *,
        connections: Callable[[], int],
        draining: Callable[[], bool],
        workers: Callable[[], int] = lambda: 1,
    ) -> None:
        per_revision = ("model", "revision")
        self.requests = Counter(
            names.REQUESTS, "Requests answered, by HTTP status.", (*per_revision, "route", "status")
        )
        self.attempts = Counter(names.ATTEMPTS, "Tries on a replica, by outcome.", (*per_revision, "outcome"))
        self.broken = Counter(
            names.BROKEN, "Answers that began with a good status and ended with an error.", per_revision
        )
        self.cancelled = Counter(names.CANCELLED, "Requests whose client left before the answer's end.", ("model",))
        self.prompt_tokens = Counter(names.PROMPT_TOKENS, "Prompt tokens of answered requests.", per_revision)
        self.output_tokens = Counter(names.OUTPUT_TOKENS, "Output tokens sent to clients.", per_revision)
        by_tenant = (*per_revision, "tenant", "kind")
        self.tenant_tokens = Counter(names.TENANT_TOKENS, "Tokens by tenant and kind.", by_tenant)
        self.tenant_cached = Counter(
            names.TENANT_CACHED, "Prompt tokens that the prefix cache held.", (*per_revision, "tenant")
        )
        self.replica_seconds = Counter(
            names.REPLICA_SECONDS, "Time of endpoints by state.", (*per_revision, "state"), merged=False
        )
        self.by_tenant = False
        self._ticked_at: float | None = None
        self.ttft = Histogram(
            names.TTFT, "Streams: request received to first output byte sent.", per_revision, LATENCY_BUCKETS_S
        )
        self.tpot = Histogram(
            names.TPOT, "Streams of 2+ tokens: time per token after the first.", per_revision, TOKEN_TIME_BUCKETS_S
        )
        self.itl = Histogram(
            names.ITL, "Streams: time between two blocks of output.", per_revision, TOKEN_TIME_BUCKETS_S
        )
        self.resumes = Counter(
            names.RESUMES, "Streams whose replica was lost, by what became of them.", ("model", "outcome")
        )
        self.retries_refused = Counter(names.RETRIES_REFUSED, "Retries that the budget did not allow.", ("model",))
        self.turned_away = Counter(names.TURNED_AWAY, "Requests that got no replica, by reason.", ("model", "reason"))
        self.waiting: Callable[[], dict[str, int]] = dict
        self.duration = Histogram(
            names.DURATION, "Request received to last byte sent.", per_revision, LATENCY_BUCKETS_S
        )
        self._endpoints = endpoints
        self._cells: dict[tuple[str, str], RevisionCells] = {}
        self.worker_deaths = Counter(names.WORKER_DEATHS, "Workers that died unasked.", (), merged=False)
        self.connections_lost = Counter(
            names.CONNECTIONS_LOST, "Client connections cut by the death of their worker.", (), merged=False
        )
        self.requests_lost = Counter(
            names.REQUESTS_LOST, "Requests cut by the death of their worker.", (), merged=False
        )
        for counter in (self.worker_deaths, self.connections_lost, self.requests_lost):
            counter.cell()  # shown as 0 before the first
        self.cache = CacheMetrics()
        self.shadow = ShadowMetrics()
        self.published = Published()
        self.request_text: Callable[[bool, Reply], None] = lambda openmetrics, reply: reply(None)
        self.instruments: list[Instrument] = [
            self.requests,
            self.attempts,
            self.cancelled,
            self.broken,
            self.prompt_tokens,
            self.output_tokens,
            self.tenant_tokens,
            self.tenant_cached,
            self.replica_seconds,
            self.ttft,
            self.tpot,
            self.itl,
            self.duration,
            self.resumes,
            self.retries_refused,
            self.turned_away,
            Gauge(names.WAITING, "Requests that wait for a replica.", ("model",), self._read_waiting),
            _own(names.IN_FLIGHT, "Requests held now.", per_revision, self._read_in_flight),
            _own(names.ENDPOINT_READY, "1 when the endpoint takes requests.", _ENDPOINT, self._read_ready),
            _own(names.ENDPOINT_IN_FLIGHT, "Requests on the endpoint now.", _ENDPOINT, self._read_endpoint),
            _own(names.CONNECTIONS, "Open client connections.", (), lambda: [((), float(connections()))]),
            _own(names.DRAINING, "1 while draining.", (), lambda: [((), float(draining()))]),
            _own(names.WORKERS, "Gateway processes that serve.", (), lambda: [((), float(workers()))]),
            self.worker_deaths,
            self.connections_lost,
            self.requests_lost,
            *self.shadow.instruments,
            *self.cache.instruments,
            *self.published.instruments,
        ]

    def duration_count(self) -> int:
        """Requests that went to a replica and have ended."""
        return sum(self.duration.merged_counts())

    def cells(self, model: str, revision: str) -> RevisionCells:
        """The cells of a (model, revision)."""
        key = (model, revision)
        cells = self._cells.get(key)
        if cells is None:
            cells = self._cells[key] = RevisionCells(self, model, revision)
        return cells

    def tick(self, now: float) -> None:
        """Add the time since the last call to the states that endpoints are in now, and forget figures of the platform
        that are not told any more; called about once a second."""
        self.published.tick(now)
        seconds = 0.0 if self._ticked_at is None else max(0.0, now - self._ticked_at)
        self._ticked_at = now
        for endpoint in self._endpoints:
            state = "busy" if endpoint.held else "idle" if endpoint.state is State.READY else "unready"
            self.replica_seconds.cell(endpoint.spec.model, endpoint.spec.revision, state).value += seconds

    def _read_waiting(self) -> Samples:
        return [((model,), float(count)) for model, count in self.waiting().items()]

    def _read_in_flight(self) -> Samples:
        sums: dict[tuple[str, ...], float] = {}
        for endpoint in self._endpoints:
            key = (endpoint.spec.model, endpoint.spec.revision)
            sums[key] = sums.get(key, 0.0) + endpoint.held
        return sums.items()

    def _read_ready(self) -> Samples:
        return [((e.spec.name, e.spec.model), float(e.state is State.READY)) for e in self._endpoints]

    def _read_endpoint(self) -> Samples:
        return [((e.spec.name, e.spec.model), float(e.held)) for e in self._endpoints]


_ENDPOINT = ("endpoint", "model")


def _own(name: str, text: str, labels: tuple[str, ...], read: Callable[[], Samples]) -> Gauge:
    """A gauge that the parent of several workers reads itself, from boards and from its own endpoint set."""
    return Gauge(name, text, labels, read, merged=False)
