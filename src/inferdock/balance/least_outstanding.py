"""Least outstanding: the endpoint with the fewest requests before a new one; ties go round."""

from __future__ import annotations

from collections.abc import Sequence

from inferdock.balance.policy import C


class LeastOutstanding:
    """Picks the least loaded candidate; among equals, the next after the one picked last."""

    def __init__(self) -> None:
        self._turn = 0

    def pick(self, candidates: Sequence[C]) -> C:
        """Return the candidate with the smallest ``outstanding``."""
        if len(candidates) == 1:
            return candidates[0]
        self._turn += 1
        start = self._turn % len(candidates)
        best = candidates[start]
        least = best.outstanding
        for index in range(start + 1 - len(candidates), start):
            candidate = candidates[index]
            if candidate.outstanding < least:
                best, least = candidate, candidate.outstanding
        return best
