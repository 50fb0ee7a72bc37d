"""What the gateway counts: one object that owns all its instruments.

Label values are bounded: models and revisions come from the endpoint set, routes and outcomes from fixed lists;
a request for a model that does not exist is counted under ``unknown``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from inferdock.balance.endpoints import EndpointSet, State
from inferdock.telemetry import names
from inferdock.telemetry.instruments import (
    LATENCY_BUCKETS_S,
    TOKEN_TIME_BUCKETS_S,
    Cell,
    Counter,
    Exposition,
    Gauge,
    Histogram,
    HistogramCell,
)

UNKNOWN = "unknown"
Samples = Iterable[tuple[tuple[str, ...], float]]


class RevisionCells:
    """The cells that one request for one (model, revision) touches, looked up once."""

    __slots__ = ("duration", "output_tokens", "prompt_tokens", "tpot", "ttft")

    def __init__(self, metrics: GatewayMetrics, model: str, revision: str) -> None:
        self.ttft: HistogramCell = metrics.ttft.cell(model, revision)
        self.tpot: HistogramCell = metrics.tpot.cell(model, revision)
        self.duration: HistogramCell = metrics.duration.cell(model, revision)
        self.prompt_tokens: Cell = metrics.prompt_tokens.cell(model, revision)
        self.output_tokens: Cell = metrics.output_tokens.cell(model, revision)


class GatewayMetrics:
    """All instruments of one gateway process."""

    def __init__(self, endpoints: EndpointSet, *, connections: Callable[[], int], draining: Callable[[], bool]) -> None:
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
        self.duration = Histogram(
            names.DURATION, "Request received to last byte sent.", per_revision, LATENCY_BUCKETS_S
        )
        self._endpoints = endpoints
        self._cells: dict[tuple[str, str], RevisionCells] = {}
        self._exposition = Exposition(
            [
                self.requests,
                self.attempts,
                self.cancelled,
                self.prompt_tokens,
                self.output_tokens,
                self.ttft,
                self.tpot,
                self.duration,
                Gauge(names.IN_FLIGHT, "Requests held now.", per_revision, self._read_in_flight),
                Gauge(names.ENDPOINT_READY, "1 when the endpoint takes requests.", _ENDPOINT, self._read_ready),
                Gauge(names.ENDPOINT_IN_FLIGHT, "Requests on the endpoint now.", _ENDPOINT, self._read_endpoint),
                Gauge(names.CONNECTIONS, "Open client connections.", (), lambda: [((), float(connections()))]),
                Gauge(names.DRAINING, "1 while draining.", (), lambda: [((), float(draining()))]),
            ]
        )

    def text(self) -> bytes:
        """The Prometheus text format of everything."""
        return self._exposition.text()

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

    def _read_in_flight(self) -> Samples:
        sums: dict[tuple[str, ...], float] = {}
        for endpoint in self._endpoints:
            key = (endpoint.spec.model, endpoint.spec.revision)
            sums[key] = sums.get(key, 0.0) + endpoint.in_flight
        return sums.items()

    def _read_ready(self) -> Samples:
        return [((e.spec.name, e.spec.model), float(e.state is State.READY)) for e in self._endpoints]

    def _read_endpoint(self) -> Samples:
        return [((e.spec.name, e.spec.model), float(e.in_flight)) for e in self._endpoints]


_ENDPOINT = ("endpoint", "model")
