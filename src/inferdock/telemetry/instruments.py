"""Counters and histograms that cost a few hundred nanoseconds, exposed through prometheus_client.

The hot path holds *cells* (one per combination of labels) and only adds numbers to them; names, help texts, label
escaping and the text format are prometheus_client's work at scrape time. One event loop owns a set of instruments,
so there are no locks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

LATENCY_BUCKETS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 120.0, 300.0,
)  # fmt: skip
"""For TTFT and whole requests, in seconds: fine around the SLOs of chat (0.1-1 s), coarse up to long answers."""

TOKEN_TIME_BUCKETS_S = (
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5,
)  # fmt: skip
"""For times per output token, in seconds."""


class Cell:
    """One number of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class HistogramCell:
    """One set of buckets.

    Attributes:
        counts: observations per bucket, not cumulative; the last one is above the highest bound.
        total: sum of all observations.
    """

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Add one observation (bucket bounds are inclusive, as in Prometheus)."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Counter:
    """A monotonic number per combination of labels."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._cells: dict[tuple[str, ...], Cell] = {}

    def cell(self, *values: str) -> Cell:
        """The number for these label values, in the order of the labels; made when first asked for."""
        cell = self._cells.get(values)
        if cell is None:
            cell = self._cells[values] = Cell()
        return cell

    def total(self) -> float:
        """Sum over all labels."""
        return sum(cell.value for cell in self._cells.values())

    def collect(self) -> Metric:
        """Snapshot for prometheus_client."""
        family = CounterMetricFamily(self._name.removesuffix("_total"), self._text, labels=self._labels)
        for values, cell in self._cells.items():
            family.add_metric(values, cell.value)
        return family


class Histogram:
    """Buckets per combination of labels."""

    def __init__(self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]) -> None:
        self._name, self._text, self._labels = name, text, labels
        self.bounds = bounds
        self._cells: dict[tuple[str, ...], HistogramCell] = {}

    def cell(self, *values: str) -> HistogramCell:
        """The buckets for these label values, in the order of the labels; made when first asked for."""
        cell = self._cells.get(values)
        if cell is None:
            cell = self._cells[values] = HistogramCell(self.bounds)
        return cell

    def merged_counts(self) -> list[int]:
        """Per-bucket counts summed over all labels."""
        merged = [0] * (len(self.bounds) + 1)
        for cell in self._cells.values():
            for index, count in enumerate(cell.counts):
                merged[index] += count
        return merged

    def collect(self) -> Metric:
        """Snapshot for prometheus_client."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, cell in self._cells.items():
            family.add_metric(values, list(self._cumulative(cell)), cell.total)
        return family

    def _cumulative(self, cell: HistogramCell) -> Iterator[tuple[str, float]]:
        running = 0
        for bound, count in zip((*self.bounds, float("inf")), cell.counts, strict=True):
            running += count
            yield ("+Inf" if bound == float("inf") else repr(float(bound)), running)


class Gauge:
    """A value that is read at scrape time, per combination of labels."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        read: Callable[[], Iterable[tuple[tuple[str, ...], float]]],
    ) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._read = read

    def collect(self) -> Metric:
        """Snapshot for prometheus_client."""
        family = GaugeMetricFamily(self._name, self._text, labels=self._labels)
        for values, value in self._read():
            family.add_metric(values, value)
        return family


Instrument = Counter | Histogram | Gauge


class Exposition:
    """A set of instruments and its text form."""

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self._instruments = list(instruments)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus_client."""
        for instrument in self._instruments:
            yield instrument.collect()

    def text(self) -> bytes:
        """Everything in the Prometheus text format."""
        return generate_latest(self._registry)


def quantile(counts: Sequence[int], bounds: Sequence[float], q: float) -> float | None:
    """Estimate a quantile from buckets as PromQL's ``histogram_quantile`` does (linear within a bucket).

    Args:
        counts: per bucket, not cumulative; one more than ``bounds``.
        bounds: upper bounds in ascending order.
        q: 0-1.

    Returns:
        The estimate; the highest bound when it lies above; None without observations.
    """
    total = sum(counts)
    if total == 0:
        return None
    rank = q * total
    running = 0
    lower = 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if running + count >= rank and count:
            return lower + (bound - lower) * (rank - running) / count
        running += count
        lower = bound
    return bounds[-1]
