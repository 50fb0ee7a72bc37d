"""What the gateway adds: differences within pairs of runs that had the same arrivals and prompts. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Gateway less direct, in the unit of what was given.

    Attributes:
        median: of the differences.
        low, high: the least and the greatest difference.
        pairs: that had both values.
        confidence: with which the true median lies between `low` and `high` whatever the distribution, 0-1: it lies
            outside only if all differences fell on one side of it, which has a probability of 2 (1/2)^pairs.
    """

    median: float
    low: float
    high: float
    pairs: int
    confidence: float


def share(direct: Sequence[float], gateway: Sequence[float]) -> Share | None:
    """The gateway's share; None without a pair that has both values.

    Raises:
        ValueError: the two do not have equally many runs.
    """
    pairs = [(one, other) for one, other in zip(direct, gateway, strict=True) if math.isfinite(one + other)]
    if not pairs:
        return None
    differences = [other - one for one, other in pairs]
    return Share(
        median=statistics.median(differences),
        low=min(differences),
        high=max(differences),
        pairs=len(pairs),
        confidence=1 - 2.0 ** (1 - len(pairs)),
    )
