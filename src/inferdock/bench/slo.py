"""Service level objectives on the command line, and the verdict on a run."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from inferdock.bench.client import Outcome
from inferdock.bench.stats import Summary, tpot_s, ttft_s
from inferdock.domain.errors import ConfigError

_SPELLING = re.compile(r"(ttft|tpot|itl|e2e)_(p50|p95|p99|mean)=(\d+(?:\.\d+)?)(ms|s)")
_ERRORS = re.compile(r"error_rate=(\d+(?:\.\d+)?)%")
_RATE = re.compile(r"requests_per_s=(\d+(?:\.\d+)?)")
MIN_SAMPLES = {"p50": 10, "mean": 10, "p95": 40, "p99": 200}
"""Fewer samples than this say nothing about that percentile: the verdict is inconclusive."""

# A failed request took for ever: with more failures than a percentile leaves out, no answered request can meet it.
_TOLERATED = {"p50": 0.5, "p95": 0.05, "p99": 0.01, "mean": 0.0}


class Verdict(StrEnum):
    """Outcome of one objective."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Objective:
    """One objective.

    Attributes:
        quantity: ``ttft``, ``tpot``, ``itl``, ``e2e``, ``error_rate`` or ``requests_per_s``.
        statistic: ``p50``, ``p95``, ``p99`` or ``mean``; "" for rates.
        limit: seconds, a ratio, or requests per second.
    """

    text: str
    quantity: str
    statistic: str
    limit: float


def parse_objective(text: str) -> Objective:
    """Read ``ttft_p95=500ms``, ``tpot_p50=50ms``, ``error_rate=1%``, ``requests_per_s=60``.

    Raises:
        ConfigError: another spelling.
    """
    if found := _SPELLING.fullmatch(text):
        quantity, statistic, number, unit = found.groups()
        return Objective(text, quantity, statistic, float(number) / (1000 if unit == "ms" else 1))
    if found := _ERRORS.fullmatch(text):
        return Objective(text, "error_rate", "", float(found[1]) / 100)
    if found := _RATE.fullmatch(text):
        return Objective(text, "requests_per_s", "", float(found[1]))
    raise ConfigError(
        f"`{text}` is not an objective.",
        cure="Write for instance ttft_p95=500ms, tpot_p50=50ms, error_rate=1% or requests_per_s=10.",
    )


def judge(objective: Objective, summary: Summary) -> tuple[Verdict, float]:
    """(verdict, measured value)."""
    if objective.quantity == "error_rate":
        rate = 1 - summary.succeeded / summary.requests if summary.requests else math.nan
        return _below(rate, objective.limit), rate
    if objective.quantity == "requests_per_s":
        value = summary.requests_per_s
        return (Verdict.PASS if value >= objective.limit else Verdict.FAIL), value
    figures = {"ttft": summary.ttft, "tpot": summary.tpot, "itl": summary.itl, "e2e": summary.e2e}[objective.quantity]
    value = {"p50": figures.p50, "p95": figures.p95, "p99": figures.p99, "mean": figures.mean}[objective.statistic]
    if summary.requests - summary.succeeded > _TOLERATED[objective.statistic] * summary.requests:
        return Verdict.FAIL, value
    if figures.count < MIN_SAMPLES[objective.statistic]:
        return Verdict.INCONCLUSIVE, value
    return _below(value, objective.limit), value


def _below(value: float, limit: float) -> Verdict:
    if math.isnan(value):
        return Verdict.INCONCLUSIVE
    return Verdict.PASS if value <= limit else Verdict.FAIL


def good_request(objectives: Sequence[Objective]) -> Callable[[Outcome], bool] | None:
    """Whether a single request met the limits on TTFT, TPOT and e2e (for goodput); None without such limits."""
    limits = [o for o in objectives if o.quantity in ("ttft", "tpot", "e2e")]
    if not limits:
        return None
    read: dict[str, Callable[[Outcome], float | None]] = {
        "ttft": ttft_s,
        "tpot": tpot_s,
        "e2e": lambda outcome: outcome.ended_at - outcome.due_at,
    }

    def good(outcome: Outcome) -> bool:
        values = [(read[o.quantity](outcome), o.limit) for o in limits]
        return all(value is None or value <= limit for value, limit in values)

    return good
