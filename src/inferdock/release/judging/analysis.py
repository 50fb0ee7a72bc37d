"""Judges live figures of a new revision, alone and against the stable one. Pure.

Each limit is compared with an interval, not with a number: it is kept when the whole interval lies within, broken when
all of it lies beyond, and otherwise nobody can tell yet. The intervals:

- a share of errors: Wilson's score interval (Wilson 1927).
- a difference of two shares: Newcombe's hybrid score interval (Newcombe 1998, method 10), made of the two Wilson
  intervals.
- a quantile: the values at the ends of Wilson's interval for its share (Woodruff 1952), read from the histogram with
  linear interpolation inside a bucket.
- a ratio of two quantiles: the same construction as Newcombe's, on logarithms (MOVER; Zou and Donner 2008).

What clients saw as errors is judged, and with the same limits what they did not see: tries on the revision's replicas
that failed and were made good elsewhere. Without any such failure the requests say all there is to say.

A limit in seconds that the stable revision breaks as well is no verdict on the new one, but on the platform.

Whoever looks again and again finds something by chance. Look number k is judged at an error of (1 - confidence) divided
by k(k + 1); the sum over all looks is then no greater than that of one (Bonferroni's inequality).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

from inferdock.domain.interval import wilson
from inferdock.domain.verdict import Verdict
from inferdock.release.judging.figures import Counts, Histogram
from inferdock.release.judging.gate import Finding
from inferdock.release.steps import Limits

STRICT_LOOK: Final = 20
"""A look whose verdict may be acted on at once: an error of 0.012 % at a confidence of 95 %."""
_P50, _P95 = 0.5, 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One limit and what was found.

    Attributes:
        limit: name of the limit.
        verdict: on this limit alone.
        point, low, high: what was measured, and the interval; seconds, shares or ratios, as the limit is.
        allowed: the limit.
        samples: that it rests on; the smaller number where two revisions are compared.
    """

    limit: str
    verdict: Verdict
    point: float
    low: float
    high: float
    allowed: float
    samples: int

    def __str__(self) -> str:
        beyond = {Verdict.PASS: "keeps to", Verdict.FAIL: "breaks"}.get(self.verdict, "may or may not keep to")
        spread = f"{_spell(self.low)} to {_spell(self.high)}"
        return f"{self.limit} {_spell(self.point)} ({spread}, {self.samples} samples) {beyond} {_spell(self.allowed)}"


def needed(limits: Limits) -> int:
    """Requests without any error that it takes to pass: a hold is as long as that takes.

    From Wilson's interval of 0 in n, whose upper end is z² / (n + z²). For a difference the stable revision's own
    uncertainty comes on top, so that more may be needed then.
    """
    shares = [share for share in (limits.error_rate, limits.error_increase) if share is not None]
    square = width(limits, 0) ** 2
    return max([limits.min_requests, *(math.ceil(square * (1 - share) / share) for share in shares)])


def judge(canary: Counts, stable: Counts | None, limits: Limits, *, look: int = 0) -> Finding:
    """Whether the new revision's figures keep to the limits.

    Args:
        canary: its requests in a window.
        stable: the stable revision's, in the same window or in the last one that it had; None: it has none.
        limits: the limits.
        look: 0 for the one look at the end; 1, 2, ... for looks on the way.
    """
    z = width(limits, look)
    if canary.seen < limits.min_to_fail:
        return _finding(Verdict.INCONCLUSIVE, f"it answered only {canary.requests} requests", [], canary, stable)
    found = list(_alone(canary, stable, limits, z)) + (list(_compared(canary, stable, limits, z)) if stable else [])
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        if chosen := [one for one in found if one.verdict is verdict]:
            return _finding(verdict, "; ".join(map(str, chosen)), found, canary, stable)
    if canary.requests < limits.min_requests:
        reason = f"it answered {canary.requests} requests, and {limits.min_requests} are wanted"
        return _finding(Verdict.INCONCLUSIVE, reason, found, canary, stable)
    kept = "; ".join(map(str, found)) or "no limit applies to its requests"
    return _finding(Verdict.PASS, kept, found, canary, stable)


def _finding(verdict: Verdict, reason: str, found: list[Measured], canary: Counts, stable: Counts | None) -> Finding:
    evidence: dict[str, Any] = {
        "limits": [
            {
                "limit": one.limit,
                "verdict": str(one.verdict),
                "measured": _number(one.point),
                "low": _number(one.low),
                "high": _number(one.high),
                "allowed": one.allowed,
                "samples": one.samples,
            }
            for one in found
        ],
        "new": _summary(canary),
        "stable": _summary(stable) if stable is not None else None,
    }
    return Finding(verdict=verdict, reason=reason, evidence=evidence)


def _alone(canary: Counts, stable: Counts | None, limits: Limits, z: float) -> Iterator[Measured]:
    """Limits that hold for any revision."""
    if limits.error_rate is not None:
        for what, (bad, total) in _telling(canary).items():
            yield _share(f"{what}_rate", bad, total, limits.error_rate, z)
    for name, share, limit in (("ttft_p95_s", _P95, limits.ttft_p95_s), ("tpot_p50_s", _P50, limits.tpot_p50_s)):
        if limit is None:
            continue
        mine = _measure(name, _histogram(canary, name), share, limit, limits, z)
        if mine is None:
            continue
        other = _measure(name, _histogram(stable, name), share, limit, limits, z) if stable is not None else None
        if mine.verdict is Verdict.FAIL and other is not None and other.verdict is Verdict.FAIL:
            name = f"{name} (which the stable revision breaks too)"
            mine = _judged(name, mine.point, mine.low, mine.high, limit, mine.samples, unsure=True)
        yield mine


def _compared(canary: Counts, stable: Counts, limits: Limits, z: float) -> Iterator[Measured]:
    """Limits on how the new revision differs from the stable one; none where the stable one had too few requests."""
    if limits.error_increase is not None:
        other = _shares(stable)
        for what, mine in _telling(canary).items():
            if other[what][1] >= limits.min_requests:
                yield _increase(f"{what}_increase", mine, other[what], limits.error_increase, z)
    for name, share, limit in (("ttft_ratio", _P95, limits.ttft_ratio), ("tpot_ratio", _P50, limits.tpot_ratio)):
        seen, theirs = _histogram(canary, name), _histogram(stable, name)
        if limit is None or theirs.total < limits.min_requests:
            continue
        yield _ratio(name, seen, theirs, share, limit, limits, z)


def _shares(counts: Counts) -> dict[str, tuple[int, int]]:
    """How many of how many failed: requests, and tries."""
    return {"error": (counts.errors, counts.requests), "attempt_failure": (counts.failures, counts.attempts)}


def _telling(canary: Counts) -> dict[str, tuple[int, int]]:
    """Those of the new revision that say something: without a failed try the requests say it all."""
    shares = _shares(canary)
    wanted = {"error": canary.requests > 0, "attempt_failure": canary.failures > 0}
    return {what: share for what, share in shares.items() if wanted[what]}


def _share(name: str, bad: int, total: int, limit: float, z: float) -> Measured:
    share = wilson(bad, total - bad, z)
    return _judged(name, share.point, share.low, share.high, limit, total)


def _increase(name: str, mine: tuple[int, int], other: tuple[int, int], limit: float, z: float) -> Measured:
    a = wilson(mine[0], mine[1] - mine[0], z)
    b = wilson(other[0], other[1] - other[0], z)
    point = a.point - b.point
    low = point - math.hypot(a.point - a.low, b.high - b.point)
    high = point + math.hypot(a.high - a.point, b.point - b.low)
    return _judged(name, point, low, high, limit, min(mine[1], other[1]))


def _measure(name: str, seen: Histogram, share: float, limit: float, limits: Limits, z: float) -> Measured | None:
    """A quantile against a limit in seconds; None where no request was of the kind that is measured."""
    if not seen.total:
        return None
    low, point, high = _quantile(seen, share, z)
    return _judged(name, point, low, high, limit, seen.total, unsure=seen.total < limits.min_to_fail)


def _ratio(
    name: str, mine: Histogram, other: Histogram, share: float, limit: float, limits: Limits, z: float
) -> Measured:
    if mine.total < limits.min_to_fail:  # the stable revision has such requests; where are the new one's?
        return _judged(name, math.nan, 0.0, math.inf, limit, mine.total)
    (low_a, a, high_a), (low_b, b, high_b) = ((_quantile(seen, share, z)) for seen in (mine, other))
    log_a, log_b = _log(a, mine), _log(b, other)
    down = math.hypot(log_a - _log(low_a, mine), _log(high_b, other) - log_b)
    up = math.hypot(_log(high_a, mine) - log_a, log_b - _log(low_b, other))
    point = math.exp(log_a - log_b)
    return _judged(name, point, point * math.exp(-down), point * math.exp(up), limit, min(mine.total, other.total))


def _quantile(seen: Histogram, share: float, z: float) -> tuple[float, float, float]:
    """Lower end, estimate, upper end."""
    bounds = wilson(share * seen.total, (1 - share) * seen.total, z)
    return seen.at(bounds.low), seen.at(share), seen.at(bounds.high)


def _log(value: float, seen: Histogram) -> float:
    """Values beyond the last bound count as twice it: they are finite, and nobody knows how large."""
    last = seen.bounds[-1] if seen.bounds else 1.0
    first = seen.bounds[0] if seen.bounds else 1.0
    return math.log(min(max(value, first / 1000), 2 * last))


def above(low: float, high: float, limit: float) -> Verdict:
    """Whether what lies between two bounds is above a limit: the whole interval must say so, either way."""
    return Verdict.FAIL if low > limit else Verdict.PASS if high <= limit else Verdict.INCONCLUSIVE


def _judged(
    name: str, point: float, low: float, high: float, limit: float, samples: int, *, unsure: bool = False
) -> Measured:
    verdict = Verdict.INCONCLUSIVE if unsure else above(low, high, limit)
    return Measured(limit=name, verdict=verdict, point=point, low=low, high=high, allowed=limit, samples=samples)


def _histogram(counts: Counts, name: str) -> Histogram:
    return counts.ttft if name.startswith("ttft") else counts.tpot


def width(limits: Limits, look: int = 0) -> float:
    """Width in standard deviations of a two-sided interval."""
    error = 1 - limits.confidence
    if look > 0:
        error /= look * (look + 1)
    return -NormalDist().inv_cdf(error / 2)


def _summary(counts: Counts) -> dict[str, Any]:
    return {
        "requests": counts.requests,
        "errors": counts.errors,
        "attempts": counts.attempts,
        "attempt_failures": counts.failures,
        "ttft_p95_s": _number(counts.ttft.at(_P95)) if counts.ttft.total else None,
        "tpot_p50_s": _number(counts.tpot.at(_P50)) if counts.tpot.total else None,
    }


def _number(value: float) -> float | None:
    """For JSON, which has no infinity."""
    return round(value, 6) if math.isfinite(value) else None


def _spell(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "?"
