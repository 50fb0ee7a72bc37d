"""The threshold of a partition: it follows how much the partition holds, so that wrong answers do not grow with it.

Among more stored prompts the nearest one to a new prompt is nearer, whether it means the same or not.
"""

from __future__ import annotations

import math

FREE_ENTRIES = 1000
"""Up to here the base applies: it was measured on partitions of this size."""

PER_DECADE = 0.01
"""Cosine that is added for ten times as many entries."""

HIGHEST = 0.999
"""At 1 only equal vectors would be left, which rounding keeps apart."""


def threshold(base: float, entries: int, *, tightened: float = 0.0) -> float:
    """Cosine that a pair must reach in a partition.

    Args:
        base: the operator's, for partitions of up to a thousand entries.
        entries: how many the partition holds.
        tightened: cosine added because of measured wrong hits.

    Returns:
        Never less than ``base``, never more than the larger of ``base`` and ``HIGHEST``.
    """
    decades = math.log10(max(entries, FREE_ENTRIES) / FREE_ENTRIES)
    return max(base, min(base + PER_DECADE * decades + max(tightened, 0.0), HIGHEST))
