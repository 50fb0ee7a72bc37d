"""The Prometheus text format: names, help texts and label escaping are prometheus_client's work.

A module of its own, so that a gateway worker, whose figures are shown by its parent, does not load the library.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from inferdock.telemetry.instruments import Counter, Histogram, Instrument


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

    def text(self) -> bytes:
        """Everything in the Prometheus text format."""
        return generate_latest(self._registry)


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
    for labels, numbers in instrument.samples():
        family.add_metric(labels, _cumulative(bounds, numbers[:-1]), numbers[-1])
    return family


def _cumulative(bounds: Sequence[str], counts: Sequence[float]) -> list[tuple[str, float]]:
    return list(zip(bounds, accumulate(counts), strict=True))
