"""Counters and histograms that cost a few hundred nanoseconds.

The hot path holds *cells* (one per combination of labels) and only adds numbers to them. One event loop owns a set
of instruments, so there are no locks. The text format is :mod:`inferdock.telemetry.exposition`'s work at scrape time.

Where several workers share one service, each has its own set; :func:`snapshot_of` takes the numbers out, a
:class:`SnapshotSum` adds those of all workers, and :func:`show` puts the sums into the parent's set. An instrument
made with ``merged=False`` is left out of this: there the parent's own value is the truth. Exemplars go the same way by
:func:`exemplars_of` and :func:`show_exemplars`: of a bucket the newest one stays.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

LATENCY_BUCKETS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 120.0, 300.0,
)  # fmt: skip
"""For TTFT and whole requests, in seconds: fine around the SLOs of chat (0.1-1 s), coarse up to long answers."""

TOKEN_TIME_BUCKETS_S = (
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5,
)  # fmt: skip
"""For times per output token, in seconds."""


Labels = tuple[str, ...]
Sample = tuple[Labels, list[float]]
"""Label values in the order of the labels, and the numbers that stand under them."""
Exemplar = tuple[str, float, float]
"""A trace id, the observation that was made in that trace, and when: seconds since 1970."""


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
        exemplars: the last traced observation of a bucket, by its index.
    """

    __slots__ = ("_bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.exemplars: dict[int, Exemplar] = {}
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Add one observation (bucket bounds are inclusive, as in Prometheus)."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def exemplify(self, value: float, trace_id: str, at: float) -> None:
        """Say in which trace an observation was made that :meth:`observe` has counted; ``at``: seconds since 1970."""
        self.exemplars[bisect_left(self._bounds, value)] = (trace_id, value, at)


class Counter:
    """A monotonic number per combination of labels."""

    def __init__(self, name: str, text: str, labels: Sequence[str], *, merged: bool = True) -> None:
        self.name, self.text, self.labels, self.merged = name, text, labels, merged
        self._cells: dict[Labels, Cell] = {}

    def cell(self, *values: str) -> Cell:
        """The number for these label values, in the order of the labels; made when first asked for."""
        cell = self._cells.get(values)
        if cell is None:
            cell = self._cells[values] = Cell()
        return cell

    def total(self) -> float:
        """Sum over all labels."""
        return sum(cell.value for cell in self._cells.values())

    def samples(self) -> list[Sample]:
        """Every combination of labels with its one number."""
        return [(values, [cell.value]) for values, cell in self._cells.items()]

    def clear(self) -> None:
        """Forget every combination."""
        self._cells.clear()

    def put(self, samples: Iterable[Sample]) -> None:
        """Set the numbers of these combinations."""
        for values, numbers in samples:
            self.cell(*values).value = numbers[0]


class Histogram:
    """Buckets per combination of labels."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float], *, merged: bool = True
    ) -> None:
        self.name, self.text, self.labels, self.merged = name, text, labels, merged
        self.bounds = bounds
        self._cells: dict[Labels, HistogramCell] = {}

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

    def exemplars(self) -> dict[Labels, dict[int, Exemplar]]:
        """Those of every combination of labels that has any, by the index of their bucket."""
        return {values: cell.exemplars for values, cell in self._cells.items() if cell.exemplars}

    def samples(self) -> list[Sample]:
        """Every combination of labels with its counts per bucket and, last, the sum of its observations."""
        return [(values, [*cell.counts, cell.total]) for values, cell in self._cells.items()]

    def put(self, samples: Iterable[Sample]) -> None:
        """Set the buckets of these combinations."""
        for values, numbers in samples:
            cell = self.cell(*values)
            cell.counts = [int(number) for number in numbers[:-1]]
            cell.total = numbers[-1]


class Gauge:
    """A value that is read at scrape time, per combination of labels."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        read: Callable[[], Iterable[tuple[Labels, float]]],
        *,
        merged: bool = True,
    ) -> None:
        self.name, self.text, self.labels, self.merged = name, text, labels, merged
        self._read = read
        self._put: list[Sample] | None = None

    def samples(self) -> list[Sample]:
        """Every combination of labels with its value now, or what :meth:`put` has set."""
        if self._put is not None:
            return self._put
        return [(values, [value]) for values, value in self._read()]

    def put(self, samples: Iterable[Sample]) -> None:
        """Show these values from now on instead of reading."""
        self._put = list(samples)


Instrument = Counter | Histogram | Gauge
Rows = dict[str, list[Sample]]
"""Samples by the name of their instrument."""
ExemplarRow = tuple[str, Labels, dict[int, Exemplar]]
"""Name of a histogram, label values, and exemplars by the index of their bucket."""


def snapshot_of(instruments: Iterable[Instrument]) -> tuple[Rows, Rows]:
    """The numbers of all merged instruments: (those that only grow, gauges)."""
    growing: Rows = {}
    gauges: Rows = {}
    for instrument in instruments:
        if instrument.merged:
            (gauges if isinstance(instrument, Gauge) else growing)[instrument.name] = instrument.samples()
    return growing, gauges


def show(instruments: Iterable[Instrument], rows: Rows) -> None:
    """Put ``rows`` into the merged instruments."""
    for instrument in instruments:
        if instrument.merged:
            instrument.put(rows.get(instrument.name, ()))


def exemplars_of(instruments: Iterable[Instrument]) -> list[ExemplarRow]:
    """The exemplars of all merged histograms."""
    merged = (one for one in instruments if isinstance(one, Histogram) and one.merged)
    return [(one.name, labels, found) for one in merged for labels, found in one.exemplars().items()]


def show_exemplars(instruments: Iterable[Instrument], rows: Iterable[ExemplarRow]) -> None:
    """Put a worker's exemplars into the merged histograms where no newer ones are known."""
    histograms = {one.name: one for one in instruments if isinstance(one, Histogram) and one.merged}
    for name, labels, found in rows:
        known = histograms[name].cell(*labels).exemplars
        for bucket, exemplar in found.items():
            if bucket not in known or known[bucket][2] <= exemplar[2]:
                known[bucket] = exemplar


class SnapshotSum:
    """Adds the snapshots of workers. What a worker that is gone had counted stays; its gauges go with it."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[Rows, Rows]] = {}
        self._gone: Sums = {}

    def update(self, worker: int, snapshot: tuple[Rows, Rows]) -> None:
        """Take the newest snapshot of a worker; the id belongs to one process and is never used again."""
        self._last[worker] = snapshot

    def gone(self, worker: int) -> None:
        """A worker has ended: its last snapshot counts for ever."""
        growing, _ = self._last.pop(worker, ({}, {}))
        _add(self._gone, growing)

    def total(self) -> Rows:
        """The sums over all workers, living and gone."""
        sums: Sums = {name: {labels: list(n) for labels, n in rows.items()} for name, rows in self._gone.items()}
        for growing, gauges in self._last.values():
            _add(sums, growing)
            _add(sums, gauges)
        return {name: list(rows.items()) for name, rows in sums.items()}


Sums = dict[str, dict[Labels, list[float]]]


def _add(sums: Sums, rows: Rows) -> None:
    for name, samples in rows.items():
        into = sums.setdefault(name, {})
        for labels, numbers in samples:
            known = into.get(labels)
            into[labels] = list(numbers) if known is None else [a + b for a, b in zip(known, numbers, strict=True)]


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
