"""Reads the gateway's own metrics back, by revision, for those who judge a release. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from inferdock.domain.errors import UnreachableError
from inferdock.telemetry import names

_WANTED: Final = (names.REQUESTS, names.TTFT, names.TPOT)


@dataclass(slots=True)
class RevisionFigures:
    """Totals of one revision since the gateway began.

    Attributes:
        by_status: requests by HTTP status.
        ttft, tpot: observations up to each bound in seconds, cumulative, infinity among them.
    """

    by_status: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    ttft: dict[float, int] = field(default_factory=lambda: defaultdict(int))
    tpot: dict[float, int] = field(default_factory=lambda: defaultdict(int))


def read_figures(text: str, model: str) -> dict[str, RevisionFigures]:
    """Figures of one model by revision, from the Prometheus text.

    Raises:
        UnreachableError: it is no such text.
    """
    found: dict[str, RevisionFigures] = defaultdict(RevisionFigures)
    lines = "\n".join(line for line in text.splitlines() if line.startswith(_WANTED))
    try:
        for family in text_string_to_metric_families(lines + "\n"):
            for sample in family.samples:
                if sample.labels.get("model") == model and (revision := sample.labels.get("revision")):
                    _take(found[revision], sample.name, sample.labels, int(sample.value))
    except (ValueError, KeyError, OverflowError) as exc:
        raise UnreachableError(f"The gateway's figures cannot be read: {exc}.") from exc
    return dict(found)


def _take(figures: RevisionFigures, name: str, labels: dict[str, str], value: int) -> None:
    if name == names.REQUESTS:
        figures.by_status[int(labels["status"])] += value
    elif name == f"{names.TTFT}_bucket":
        figures.ttft[float(labels["le"])] += value
    elif name == f"{names.TPOT}_bucket":
        figures.tpot[float(labels["le"])] += value
