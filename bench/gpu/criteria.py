"""How an open-loop sweep is judged: its knee, the plan's criteria, and the price of a million tokens. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from inferdock.bench.slo import Objective, Verdict, judge, parse_objective
from inferdock.bench.stats import Summary

PLAN: Final = tuple(parse_objective(text) for text in ("ttft_p95=500ms", "tpot_p50=50ms", "requests_per_s=10"))
"""The plan's limits on speed; that on the price is `PLAN_PRICE`."""
PLAN_PRICE: Final = 0.60
"""US dollars per million tokens."""
_WORTH: Final = 0.5
"""Good requests that one more request offered must bring."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One rate of the sweep: requests offered per second, and what came of them."""

    rate: float
    summary: Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A criterion's verdict, the value, and the highest rate offered at which it was met (None: at none)."""

    criterion: str
    verdict: Verdict
    value: float | None
    rate: float | None


def knee(steps: Sequence[Step]) -> Step | None:
    """The last step that still paid: goodput rose by at least `_WORTH` of what the rate rose by.

    Waiting for goodput to fall would be too late in short runs, where a queue that grows without end has not yet grown
    past the limits. None when already the first did not.
    """
    found: Step | None = None
    rate = best = 0.0
    for step in sorted(steps, key=lambda step: step.rate):
        goodput = step.summary.goodput_per_s or 0.0
        if goodput - best < _WORTH * (step.rate - rate):
            break
        found, rate, best = step, step.rate, goodput
    return found


def dollars_per_million(summary: Summary, dollars_per_hour: float) -> float | None:
    """US dollars for a million tokens, prompt and answer together; None when there were none."""
    hourly = summary.total_tokens_per_s * 3600
    return dollars_per_hour / hourly * 1e6 if hourly > 0 else None


def find(objective: Objective, steps: Sequence[Step]) -> Finding:
    """The highest rate up to which an objective was met: like a knee, the search ends at the first that misses it.

    Requests per second rise with what is offered until nobody is served well, so they are judged at the knee.
    Inconclusive only if no step passed and one had too few samples.
    """
    if objective.quantity == "requests_per_s":
        return _find_throughput(objective, steps)
    met: Finding | None = None
    first: Finding | None = None
    for step in sorted(steps, key=lambda step: step.rate):
        verdict, value = judge(objective, step.summary)
        found = Finding(criterion=objective.text, verdict=verdict, value=_finite(value), rate=None)
        if verdict is Verdict.PASS:
            met = replace(found, rate=step.rate)
        elif first is None or verdict is Verdict.INCONCLUSIVE:
            first = found
        if verdict is Verdict.FAIL:
            break
    return met or first or Finding(criterion=objective.text, verdict=Verdict.INCONCLUSIVE, value=None, rate=None)


def _find_throughput(objective: Objective, steps: Sequence[Step]) -> Finding:
    criterion = f"{objective.text} at the knee"
    found = knee(steps)
    if found is None:
        return Finding(
            criterion=criterion, verdict=Verdict.FAIL if steps else Verdict.INCONCLUSIVE, value=None, rate=None
        )
    verdict, value = judge(objective, found.summary)
    return Finding(
        criterion=criterion, verdict=verdict, value=value, rate=found.rate if verdict is Verdict.PASS else None
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def find_price(steps: Sequence[Step], dollars_per_hour: float) -> Finding:
    """The price at the knee against the plan's: beyond it tokens are cheap because nobody is served well."""
    found = knee(steps)
    price = dollars_per_million(found.summary, dollars_per_hour) if found else None
    criterion = f"below ${PLAN_PRICE:.2f} per 1M tokens at the knee"
    if found is None or price is None:
        return Finding(criterion=criterion, verdict=Verdict.INCONCLUSIVE, value=None, rate=None)
    if price < PLAN_PRICE:
        return Finding(criterion=criterion, verdict=Verdict.PASS, value=price, rate=found.rate)
    return Finding(criterion=criterion, verdict=Verdict.FAIL, value=price, rate=None)
