"""Least outstanding: the endpoint with the fewest requests before a new one; equals take turns."""

from __future__ import annotations

from collections.abc import Collection

from inferdock.balance.endpoint import Endpoint
from inferdock.balance.group import Group
from inferdock.balance.wanted import Wanted


class LeastOutstanding:
    """Exact for what this process holds; other workers' counts are some milliseconds old (``Fleet``)."""

    prefix_bytes = 0

    def pick(self, group: Group, wanted: Wanted, avoid: Collection[Endpoint] = ()) -> Endpoint | None:
        """See :class:`~inferdock.balance.policy.Policy`."""
        loads = group.loads
        count = len(loads)
        if count > 1:
            least = min(loads)
            turn = group.turn
            try:
                index = loads.index(least, turn if turn < count else 0)
            except ValueError:  # none from here to the end
                index = loads.index(least)
            group.turn = index + 1
        elif count:
            index = 0
        else:
            return None
        endpoint = group.endpoints[index]
        if (wanted.limit is None or endpoint.held < wanted.limit) and (not avoid or endpoint not in avoid):
            return endpoint
        return group.least_among(limit=wanted.limit, avoid=avoid)
