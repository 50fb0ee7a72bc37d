"""From the gateway's own figures to what a release judges: the one place that says what counts as a failure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from inferdock.release.judging.figures import Counts, Histogram, Shadows
from inferdock.telemetry.scrape import RevisionFigures, ShadowFigures

_FAILED_ATTEMPTS: Final = ("failed", "cut")
_ENDED_ATTEMPTS: Final = ("answered", *_FAILED_ATTEMPTS)
"""Those that say something of the replica; clients that left and connections that were stale do not."""
_EQUAL: Final = "equal"
_NOT_COMPARED: Final = "not_compared"


def counts_of(figures: RevisionFigures) -> Counts:
    """One revision's figures: failures are the server's, never the client's."""
    answered = sum(count for status, count in figures.by_status.items() if status < 400 or status >= 500)
    errors = sum(count for status, count in figures.by_status.items() if status >= 500) + figures.broken
    return Counts(
        requests=answered,
        errors=min(errors, answered),  # an answer that several clients shared may break before any of them counts
        ttft=_histogram(figures.ttft),
        tpot=_histogram(figures.tpot),
        attempts=sum(figures.attempts.get(outcome, 0) for outcome in _ENDED_ATTEMPTS),
        failures=sum(figures.attempts.get(outcome, 0) for outcome in _FAILED_ATTEMPTS),
        shadow=_shadows(figures.shadow),
    )


def _shadows(figures: ShadowFigures) -> Shadows:
    answered, failed = figures.by_outcome.get("answered", 0), figures.by_outcome.get("failed", 0)
    kinds = {kind: count for kind, count in sorted(figures.by_kind.items()) if kind not in (_EQUAL, _NOT_COMPARED)}
    return Shadows(
        answered=answered,
        failed=failed,
        dropped=sum(figures.by_outcome.values()) - answered - failed,
        equal=figures.by_kind.get(_EQUAL, 0),
        different=kinds,
        ttft=_histogram(figures.ttft),
        tpot=_histogram(figures.tpot),
    )


def _histogram(cumulative: Mapping[float, int]) -> Histogram:
    bounds = sorted(bound for bound in cumulative if bound != float("inf"))
    if not bounds:
        return Histogram()
    totals = [cumulative[bound] for bound in bounds]
    totals.append(cumulative.get(float("inf"), totals[-1]))
    return Histogram(tuple(bounds), tuple(max(0, b - a) for a, b in zip([0, *totals], totals, strict=False)))
