"""A hash ring: each endpoint owns the keys before its points, so one that goes takes only its own keys away."""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import lru_cache

from inferdock.balance.endpoint import Endpoint

POINTS = 100
"""Points of each endpoint: shares of the keys differ by about a tenth (1 / sqrt(100))."""
_INDEX_BITS = 10  # see MAX_ENDPOINTS
_INDEX_MASK = (1 << _INDEX_BITS) - 1
_UNPACK = struct.Struct(f"<{POINTS}I").unpack


class Ring:
    """Endpoints on a circle of 32 bits. Depends on their names only, so all workers have the same.

    64 endpoints take about 2 ms to place.
    """

    __slots__ = ("_members", "_points")

    def __init__(self, members: Sequence[Endpoint]) -> None:
        """``members``: up to 1,024."""
        self._members = sorted(members, key=lambda endpoint: endpoint.spec.name)
        # The owner's index sits below each point in one integer: one list to sort and to search.
        self._points = sorted(
            [
                point << _INDEX_BITS | index
                for index, endpoint in enumerate(self._members)
                for point in _points(endpoint.spec.name)
            ]
        )

    def walk(self, key: int, steps: int) -> Iterator[Endpoint]:
        """Owners of the next points from ``key`` (32 bits) on; one may come more than once."""
        points, members = self._points, self._members
        size = len(points)
        if not size:
            return
        start = bisect_left(points, key << _INDEX_BITS)
        for position in range(start, start + steps):
            yield members[points[position % size] & _INDEX_MASK]


@lru_cache(maxsize=4096)
def _points(name: str) -> tuple[int, ...]:
    """Where an endpoint's points lie, sorted: one long digest is cheaper than a hash per point."""
    return tuple(sorted(_UNPACK(hashlib.shake_128(name.encode()).digest(POINTS * 4))))
