"""Counters over time: by how much each grew, whatever restarts, gaps and clocks did to it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from inferdock.cost.amounts import MAX_AMOUNT, ZERO

Point = tuple[float, float]
"""When (seconds), and what the counter said."""


@dataclass(frozen=True, slots=True)
class Series:
    """One counter in a window.

    Attributes:
        name: of the sample, ``_total`` included.
        labels: its own, and those of whoever read it.
        points: in the order in which they were read.
        from_zero: it began within the window, so its first value counts too.
    """

    name: str
    labels: Mapping[str, str]
    points: Sequence[Point]
    from_zero: bool = False


@dataclass(frozen=True, slots=True)
class Growth:
    """By how much a counter grew.

    Attributes:
        resets: how often it fell, since whoever counts had begun anew; what came after counts from 0.
        ignored: points that were no counts (negative, no number, absurdly large), or not later than the one before.
    """

    amount: Fraction
    resets: int = 0
    ignored: int = 0


def growth(series: Series) -> Growth:
    """By how much it grew from its first point to its last; less than two points: not at all, or from 0."""
    amount, resets, ignored = ZERO, 0, 0
    before: Point | None = None
    for at, value in series.points:
        if not _is_count(value) or (before is not None and not at > before[0]):
            ignored += 1
            continue
        if before is None:
            amount += Fraction(value) if series.from_zero else ZERO
        elif value < before[1]:
            resets += 1
            amount += Fraction(value)
        else:
            amount += Fraction(value) - Fraction(before[1])
        before = (at, value)
    return Growth(amount, resets, ignored)


def _is_count(value: float) -> bool:
    return math.isfinite(value) and 0 <= value <= MAX_AMOUNT


def pair_up(before: Iterable[Series], after: Iterable[Series]) -> list[Series]:
    """Two readings of the same counters as one window: one that is only in the second began within it."""
    first = {_key(one): one for one in before}
    found = []
    for one in after:
        earlier = first.get(_key(one))
        points = [*(earlier.points if earlier else ()), *one.points]
        found.append(Series(one.name, one.labels, points, from_zero=earlier is None))
    return found


def _key(series: Series) -> tuple[str, frozenset[tuple[str, str]]]:
    return series.name, frozenset(series.labels.items())
