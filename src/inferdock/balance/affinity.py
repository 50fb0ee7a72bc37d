"""Affinity: equal keys go to the same endpoint as long as it is not much busier than the others.

Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2016). Used for sessions under every policy,
and by the ``prefix`` policy.
"""

from __future__ import annotations

from collections.abc import Collection
from math import ceil

from inferdock.balance.endpoint import Endpoint
from inferdock.balance.group import Group

STEPS = 64
"""Points of the ring that are looked at before the least loaded endpoint is taken instead."""


class Affinity:
    """Looks keys up on a group's ring.

    Attributes:
        load_factor: an endpoint takes keyed requests up to this many times the mean of outstanding requests.
        floor: requests that an endpoint takes in any case. Without it, two requests of one session on idle
            replicas would part, though an engine runs a few at once for the price of one.
    """

    __slots__ = ("floor", "load_factor")

    def __init__(self, *, load_factor: float = 1.25, floor: int = 4) -> None:
        self.load_factor = load_factor
        self.floor = floor

    def bound(self, group: Group) -> int:
        """Outstanding requests at which an endpoint of the group takes no more."""
        return max(self.floor, ceil(self.load_factor * (group.load() + 1) / len(group.endpoints)))

    def pick(self, group: Group, key: int, *, limit: int | None, avoid: Collection[Endpoint]) -> Endpoint | None:
        """The first endpoint from the key on that is below the bound and fits, else the least loaded that fits.

        Args:
            group: where to choose.
            key: 32 bits, see ``hashing``.
            limit: endpoints that hold as many requests do not fit.
            avoid: endpoints that do not fit.
        """
        loads = group.loads
        if not loads:
            return None
        bound, some_have_room = 0, limit is None
        for endpoint in group.ring.walk(key, STEPS):
            if endpoint.loads is not loads:
                continue  # unready or ejected
            load = loads[endpoint.index]
            if load >= self.floor and load >= (bound := bound or self.bound(group)):
                continue
            if avoid and endpoint in avoid:
                continue
            if limit is None or endpoint.held < limit:
                return endpoint
            if not some_have_room:  # asked once, and before the whole walk is made in vain
                if group.all_hold(limit):
                    return None
                some_have_room = True
        return group.least_among(limit=limit, avoid=avoid)
