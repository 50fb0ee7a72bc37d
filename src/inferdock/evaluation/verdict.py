"""From outcomes to measures, and from measures to pass, fail or inconclusive. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from inferdock.domain.verdict import Verdict
from inferdock.evaluation.bootstrap import Drawing, Estimate, Row, estimates
from inferdock.evaluation.limits import Limit, Rules, for_groups
from inferdock.evaluation.metrics import METRICS, Metric, Outcome, Scoring

_WORTH_SAYING: Final = 1_000_000
"""Tasks that nobody has: a larger number is not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One metric over all tasks or one group.

    Attributes:
        group: "" for all tasks.
        samples: tasks that it was measured on.
        candidate: its value; of a metric that compares, the one value.
        champion, difference, relative: None for a metric that compares.
    """

    group: str
    metric: str
    samples: int
    candidate: Estimate
    champion: Estimate | None = None
    difference: Estimate | None = None
    relative: Estimate | None = None

    def of(self, limit: Limit) -> Estimate:
        """What a limit bounds."""
        return {"difference": self.difference, "relative": self.relative}.get(limit.of) or self.candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A limit, judged.

    Attributes:
        measured: what it bounds, None where nothing was measured.
        reason: why this verdict, as part of a sentence.
        needed: tasks that would about decide, None where that cannot be told.
    """

    limit: Limit
    verdict: Verdict
    samples: int
    measured: Estimate | None
    reason: str
    needed: int | None = None


def measure(
    outcomes: Sequence[Outcome], groups: Sequence[str], scoring: Scoring, drawing: Drawing
) -> dict[tuple[str, str], Measure]:
    """Every metric over all tasks and over each group, by (group, metric); what nothing measures is left out."""
    rows = {
        metric.name: [(o.task.group, row) for o in outcomes if (row := metric.row(o, scoring)) is not None]
        for metric in METRICS.values()
    }
    found: dict[tuple[str, str], Measure] = {}
    for group in ("", *groups):  # groups outside: metrics on as many tasks share their drawings
        for metric in METRICS.values():
            chosen = [row for of, row in rows[metric.name] if group in ("", of)]
            if chosen and any(row[0] for row in chosen):
                found[group, metric.name] = _measure(metric, group, chosen, scoring, drawing)
    return found


def _measure(metric: Metric, group: str, rows: Sequence[Row], scoring: Scoring, drawing: Drawing) -> Measure:
    values = estimates(rows, metric.statistic(scoring), drawing)
    if metric.pair is not None:
        return Measure(group=group, metric=metric.name, samples=len(rows), candidate=values[0])
    champion, candidate, difference, relative = values
    return Measure(
        group=group,
        metric=metric.name,
        samples=len(rows),
        champion=champion,
        candidate=candidate,
        difference=difference,
        relative=relative,
    )


def judge(measures: Mapping[tuple[str, str], Measure], rules: Rules, groups: Sequence[str]) -> list[Finding]:
    """Each limit's verdict. Of the defaults, those that nothing measures are passed over."""
    limits = for_groups(rules, groups)
    return [
        _judge(limit, measures.get((limit.group, limit.metric)), rules.least_samples)
        for limit in limits
        if rules.given or (limit.group, limit.metric) in measures
    ]


def _judge(limit: Limit, found: Measure | None, least_samples: int) -> Finding:
    if found is None:
        return _open(limit, None, 0, f"nothing measures {limit.metric} here")
    measured = found.of(limit)
    if found.samples < least_samples:
        return _open(limit, measured, found.samples, f"{found.samples} tasks are too few, the least is {least_samples}")
    low, high = limit.holds(measured.low), limit.holds(measured.high)
    if low and high:
        return Finding(limit=limit, verdict=Verdict.PASS, samples=found.samples, measured=measured, reason="it holds")
    if not low and not high:
        reason = "it is broken by more than chance explains"
        return Finding(limit=limit, verdict=Verdict.FAIL, samples=found.samples, measured=measured, reason=reason)
    needed = _needed(limit, measured, found.samples)
    hint = f"; about {needed} tasks would decide" if needed else ""
    return _open(limit, measured, found.samples, f"the interval reaches over the limit{hint}", needed)


def _open(limit: Limit, measured: Estimate | None, samples: int, reason: str, needed: int | None = None) -> Finding:
    return Finding(
        limit=limit,
        verdict=Verdict.INCONCLUSIVE,
        samples=samples,
        measured=measured,
        reason=reason,
        needed=needed,
    )


def _needed(limit: Limit, measured: Estimate, samples: int) -> int | None:
    """Tasks for an interval that ends at the limit: its width falls with the square root of their number."""
    distance = abs(measured.value - limit.number)
    width = measured.value - measured.low if measured.value > limit.number else measured.high - measured.value
    if distance <= 0 or not math.isfinite(width):
        return None
    needed = math.ceil(samples * (width / distance) ** 2)
    return needed if samples < needed <= _WORTH_SAYING else None


def overall(findings: Sequence[Finding]) -> Verdict:
    """Fail when any limit is broken; pass when all hold, and there is one."""
    verdicts = {finding.verdict for finding in findings}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.PASS if verdicts == {Verdict.PASS} else Verdict.INCONCLUSIVE
