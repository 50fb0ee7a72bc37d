"""Percentiles of type 7 (linear between closest ranks; numpy's default), see Hyndman and Fan 1996."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(ordered: Sequence[float], q: float) -> float:
    """Percentile of sorted values, ``q`` in 0-1; NaN of none."""
    if not ordered:
        return math.nan
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
