"""How sure one may be of a share that was counted on a sample: Wilson's score interval (1927). Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

CONFIDENT_Z: Final = 1.959963984540054
"""For an interval that holds the true share in 95 of 100 cases."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A share with its bounds, each 0-1.

    Attributes:
        low, point, high: lower bound, counted share, upper bound.
        samples: how many were counted; not whole where older ones weigh less. 0: nothing is known, ``point`` is
            then the middle and no measurement.
    """

    low: float
    point: float
    high: float
    samples: float


def wilson(wrong: float, right: float, z: float = CONFIDENT_Z) -> Interval:
    """The share of ``wrong`` among both, and how far off it may be.

    Args:
        wrong, right: counts, 0 or more; they need not be whole.
        z: width in standard deviations.

    Raises:
        ValueError: a count is negative or no number.
    """
    if not (wrong >= 0 and right >= 0 and math.isfinite(wrong + right)):
        raise ValueError(f"counts must be 0 or more, not {wrong} and {right}")
    total = wrong + right
    if total == 0:
        return Interval(0.0, 0.5, 1.0, 0.0)
    share = wrong / total
    square = z * z / total
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / total + square / (4 * total))
    low = 0.0 if wrong == 0 else max(0.0, min(share, middle - half))  # exact at the ends, in spite of rounding
    high = 1.0 if right == 0 else min(1.0, max(share, middle + half))
    return Interval(low, share, high, total)
