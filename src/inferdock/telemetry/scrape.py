"""Reads the gateway's own metrics back, by revision, for those who judge a release. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from inferdock.domain.errors import UnreachableError
from inferdock.telemetry import names
from inferdock.telemetry.samples import read_samples

Buckets = dict[float, int]
"""Observations up to each bound in seconds, cumulative, infinity among them."""


def _counter() -> dict[str, int]:
    return defaultdict(int)


def _buckets() -> Buckets:
    return defaultdict(int)


@dataclass(slots=True)
class ShadowFigures:
    """Totals of a revision's shadow requests since the gateway began.

    Attributes:
        by_outcome: copies by what became of them.
        by_kind: answered ones by how their answer compares with the client's.
        ttft, tpot: of copies that were streams.
    """

    by_outcome: dict[str, int] = field(default_factory=_counter)
    by_kind: dict[str, int] = field(default_factory=_counter)
    ttft: Buckets = field(default_factory=_buckets)
    tpot: Buckets = field(default_factory=_buckets)


@dataclass(slots=True)
class RevisionFigures:
    """Totals of one revision since the gateway began.

    Attributes:
        by_status: requests by HTTP status.
        broken: requests whose answer had begun with a good status and ended with an error.
        attempts: tries on its replicas, by outcome.
        ttft, tpot: of streams.
        shadow: of copies, which are in none of the other figures.
    """

    by_status: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    broken: int = 0
    attempts: dict[str, int] = field(default_factory=_counter)
    ttft: Buckets = field(default_factory=_buckets)
    tpot: Buckets = field(default_factory=_buckets)
    shadow: ShadowFigures = field(default_factory=ShadowFigures)


def read_figures(text: str, model: str) -> dict[str, RevisionFigures]:
    """Figures of one model by revision, from the Prometheus text.

    Raises:
        UnreachableError: it is no such text.
    """
    found: dict[str, RevisionFigures] = defaultdict(RevisionFigures)
    try:
        for sample in read_samples(text, _WANTED):
            if sample.labels.get("model") == model and (revision := sample.labels.get("revision")):
                _take(found[revision], sample.name, sample.labels, int(sample.value))
    except (ValueError, KeyError, OverflowError) as exc:
        raise UnreachableError(f"The gateway's figures cannot be read: {exc}.") from exc
    return dict(found)


def _take(figures: RevisionFigures, name: str, labels: dict[str, str], value: int) -> None:
    shadow = figures.shadow
    match name:
        case names.REQUESTS:
            figures.by_status[int(labels["status"])] += value
        case names.BROKEN:
            figures.broken += value
        case names.ATTEMPTS:
            figures.attempts[labels["outcome"]] += value
        case names.SHADOW_REQUESTS:
            shadow.by_outcome[labels["outcome"]] += value
        case names.SHADOW_DIFFERENCES:
            shadow.by_kind[labels["kind"]] += value
        case _ if name in _HISTOGRAMS:
            _HISTOGRAMS[name](figures)[float(labels["le"])] += value


_HISTOGRAMS: Final = {
    f"{names.TTFT}_bucket": lambda figures: figures.ttft,
    f"{names.TPOT}_bucket": lambda figures: figures.tpot,
    f"{names.SHADOW_TTFT}_bucket": lambda figures: figures.shadow.ttft,
    f"{names.SHADOW_TPOT}_bucket": lambda figures: figures.shadow.tpot,
}
_WANTED: Final = frozenset(
    {
        names.REQUESTS,
        names.BROKEN,
        names.ATTEMPTS,
        names.SHADOW_REQUESTS,
        names.SHADOW_DIFFERENCES,
        *_HISTOGRAMS,
    }
)
