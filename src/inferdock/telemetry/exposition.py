"""The Prometheus text format and OpenMetrics: names, help texts and label escaping are prometheus_client's work.

Exemplars, which link a bucket of a histogram to a trace, are in OpenMetrics only: the older format has no place for
them, and a reader of it would stumble.

A module of its own, so that a gateway worker, whose figures are shown by its parent, does not load the library.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, Exemplar, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from inferdock.telemetry import instruments as own
from inferdock.telemetry.instruments import Counter, Histogram, Instrument

TRACE_ID: Final = "trace_id"
"""Label of exemplars; Grafana and Prometheus know it by this name."""
Bucket = tuple[str, float] | tuple[str, float, Exemplar]


class Exposition:
    """A set of instruments and its text form."""

    def __init__(self, instruments: Iterable[Instrument]) -> None:
        self._instruments = list(instruments)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus_client."""
        for instrument in self._instruments:
            yield _family(instrument)

    def text(self, *, openmetrics: bool = False) -> bytes:
        """Everything in the Prometheus text format, or in OpenMetrics 1.0 with exemplars."""
        if not openmetrics:
            return generate_latest(self._registry)
        text: bytes = generate_openmetrics(self._registry)  # type: ignore[no-untyped-call]
        return text


def _family(instrument: Instrument) -> Metric:
    if isinstance(instrument, Histogram):
        return _histogram(instrument)
    family: CounterMetricFamily | GaugeMetricFamily
    if isinstance(instrument, Counter):
        name = instrument.name.removesuffix("_total")
        family = CounterMetricFamily(name, instrument.text, labels=instrument.labels)
    else:
        family = GaugeMetricFamily(instrument.name, instrument.text, labels=instrument.labels)
    for labels, numbers in instrument.samples():
        family.add_metric(labels, numbers[0])
    return family


def _histogram(instrument: Histogram) -> HistogramMetricFamily:
    family = HistogramMetricFamily(instrument.name, instrument.text, labels=instrument.labels)
    bounds = [*(repr(float(bound)) for bound in instrument.bounds), "+Inf"]
    exemplars = instrument.exemplars()
    for labels, numbers in instrument.samples():
        buckets = _cumulative(bounds, numbers[:-1])
        family.add_metric(labels, _with_exemplars(buckets, exemplars.get(labels, {})), numbers[-1])
    return family


def _with_exemplars(buckets: Sequence[tuple[str, float]], found: Mapping[int, own.Exemplar]) -> Sequence[Bucket]:
    if not found:
        return buckets
    return [(*bucket, _exemplar(*found[i])) if i in found else bucket for i, bucket in enumerate(buckets)]


def _exemplar(trace_id: str, value: float, at: float) -> Exemplar:
    return Exemplar({TRACE_ID: trace_id}, value, round(at, 3))


def _cumulative(bounds: Sequence[str], counts: Sequence[float]) -> list[tuple[str, float]]:
    return list(zip(bounds, accumulate(counts), strict=True))
