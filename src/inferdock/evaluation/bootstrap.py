"""Confidence intervals by the paired bootstrap: tasks are drawn again, with both sides' results on each. Pure.

Method: bias-corrected and accelerated (BCa; Efron and Tibshirani 1993, chapter 14), because shares near 0 or 1 are
skewed and the plain percentile interval is then too short on the side that matters. Every statistic here is a function
of sums over the tasks, which makes the resamples and the jackknife cheap without a library.

What it cannot do: see what never happened in the sample. With n tasks and no loss at all the interval has no width,
although a true rate of up to 3/n is not excluded (rule of three). That is why limits have a least number of samples.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from statistics import NormalDist
from typing import Final

UNITS: Final = 500
"""Units that are drawn. More tasks are first dealt at random into so many blocks, which are drawn whole: the spread of
the sums stays the same, and the time is bounded."""
METHOD: Final = "paired bootstrap, BCa"

Row = tuple[float, ...]
Statistic = Callable[[Sequence[float]], Sequence[float]]
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How intervals are drawn.

    Attributes:
        resamples: how many times.
        level: two-sided confidence, 0-1.
        seed: equal seeds give equal intervals.
    """

    resamples: int = 2_000
    level: float = 0.95
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its interval; infinite where a relative change has no champion's value to relate to."""

    value: float
    low: float
    high: float


def estimates(rows: Sequence[Row], statistic: Statistic, drawing: Drawing) -> list[Estimate]:
    """Each value of the statistic of the sums over the rows, with its interval, all from the same drawings.

    Args:
        rows: one a task, at least one, all of one length.
        statistic: function of the sums; its values may be infinite, never NaN.
    """
    units = _units(rows, random.Random(drawing.seed))
    columns = list(zip(*units, strict=True))
    choices = _choices(len(units), drawing.resamples, drawing.seed)
    drawn = [statistic([sum(chosen(column)) for column in columns]) for chosen in choices]
    total = [sum(column) for column in columns]
    left = [statistic([t - x for t, x in zip(total, unit, strict=True)]) for unit in units] if len(units) > 1 else []
    return [
        _interval(value, sorted(values[i] for values in drawn), [values[i] for values in left], drawing.level)
        for i, value in enumerate(statistic(total))
    ]


@lru_cache(maxsize=2)
def _choices(count: int, resamples: int, seed: int) -> tuple[Callable[[Row], Row], ...]:
    """What to take from a column in each drawing; made once for all metrics on as many units."""
    if count == 1:  # drawn again, it is itself; and `itemgetter` of one place makes no tuple
        return (lambda column: column,)
    rng = random.Random(seed)
    return tuple(itemgetter(*rng.choices(range(count), k=count)) for _ in range(resamples))


def _units(rows: Sequence[Row], rng: random.Random) -> list[Row]:
    if len(rows) <= UNITS:
        return list(rows)
    order = rng.sample(rows, len(rows))
    return [tuple(map(sum, zip(*order[start::UNITS], strict=True))) for start in range(UNITS)]


def _interval(value: float, ordered: Sequence[float], jackknife: Sequence[float], level: float) -> Estimate:
    """The interval, widened to the value itself where the correction would leave it out."""
    count = len(ordered)
    below = sum(x < value for x in ordered) + 0.5 * sum(x == value for x in ordered)
    bias = _NORMAL.inv_cdf(min(max(below / count, 0.5 / count), 1 - 0.5 / count))
    skew = _acceleration(jackknife)
    tail = (1 - level) / 2
    low, high = (_rank(ordered, _corrected(share, bias, skew)) for share in (tail, 1 - tail))
    return Estimate(value, min(low, value), max(high, value))


def _corrected(share: float, bias: float, skew: float) -> float:
    """The share of resamples below the end of the interval (Efron and Tibshirani 1993, equation 14.10)."""
    z = bias + _NORMAL.inv_cdf(share)
    room = 1 - skew * z
    return share if room <= 0 else _NORMAL.cdf(bias + z / room)


def _acceleration(jackknife: Sequence[float]) -> float:
    """From the values with one unit left out (equation 14.15); 0 where they say nothing."""
    if not jackknife or not all(map(math.isfinite, jackknife)):
        return 0.0
    mean = math.fsum(jackknife) / len(jackknife)
    squares = math.fsum((mean - x) ** 2 for x in jackknife)
    cubes = math.fsum((mean - x) ** 3 for x in jackknife)
    return cubes / (6 * squares**1.5) if squares > 1e-300 else 0.0


def _rank(ordered: Sequence[float], share: float) -> float:
    """A value that was drawn, never one between two: infinities have no middle."""
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]
