"""What the gateway counts: one object that owns all its instruments.

Label values are bounded: models and revisions come from the endpoint set, routes and outcomes from fixed lists;
a request for a model that does not exist is counted under ``unknown``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from inferdock.balance.endpoints import EndpointSet, State
from inferdock.gateway.caching.metrics import CacheMetrics
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

UNKNOWN = "unknown"
Samples = Iterable[tuple[tuple[str, ...], float]]
Reply = Callable[[bytes | None], None]


class RevisionCells:
    """The cells that one request for one (model, revision) touches, looked up once."""

    __slots__ = (
        "_answered",
        "_names",
        "_requests",
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


class GatewayMetrics:
    """All instruments of one gateway process, or, in the parent of several workers, of all of them together.

    Instruments with ``merged=False`` have one truth, which the parent of the workers knows itself.

    Attributes:
        instruments: in the order in which they are shown.
        request_text: asks for the Prometheus text of the whole gateway; the function that it is given is called with
            it, at once or later, or with None where nobody can say it now. Set by whoever can answer.
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
        self.attempts = Counter(names.ATTEMPTS, "Tries on a replica, by outcome.", ("model", "outcome"))
        self.cancelled = Counter(names.CANCELLED, "Requests whose client left before the answer's end.", ("model",))
        self.prompt_tokens = Counter(names.PROMPT_TOKENS, "Prompt tokens of answered requests.", per_revision)
        self.output_tokens = Counter(names.OUTPUT_TOKENS, "Output tokens sent to clients.", per_revision)
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
        self.request_text: Callable[[Reply], None] = lambda reply: reply(None)
        self.instruments: list[Instrument] = [
            self.requests,
            self.attempts,
            self.cancelled,
            self.prompt_tokens,
            self.output_tokens,
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
            *self.cache.instruments,
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
