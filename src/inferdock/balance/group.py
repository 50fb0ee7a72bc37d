"""The endpoints among which one choice is made, with their loads side by side.

``loads[i]`` belongs to ``endpoints[i]`` and is kept up to date by the endpoint itself, so that the least of 64 is
found by ``min`` and ``index`` in about a microsecond. The lists are made anew only when membership, readiness,
slow start or ejection changes, and every few milliseconds where other workers' counts must be read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import inf

from inferdock.balance import slow_start
from inferdock.balance.ejection import Rules, readmitted
from inferdock.balance.endpoint import Endpoint, State
from inferdock.balance.ring import Ring

NEVER = inf


class Group:
    """Some endpoints of one model: all of them, or those of a revision.

    Attributes:
        members: every endpoint, ready or not.
        endpoints: those that may be chosen: ready and not ejected.
        loads: outstanding requests of each, scaled during its slow start.
        scaled: whether some endpoint is in its slow start.
        turn: where the search among equals begins.
        due: when :meth:`refresh` has something to do again, in seconds of its caller's clock.
    """

    __slots__ = ("_ring", "due", "endpoints", "loads", "members", "scaled", "turn")

    def __init__(self, members: Sequence[Endpoint], *, turn: int = 0) -> None:
        self.members = list(members)
        self.endpoints: list[Endpoint] = []
        self.loads: list[float] = []
        self.scaled = False
        self.turn = turn
        self.due = NEVER
        self._ring: Ring | None = None

    @property
    def ring(self) -> Ring:
        """The members on a hash ring, made when first asked for: members of a group do not change."""
        if self._ring is None:
            self._ring = Ring(self.members)
        return self._ring

    def load(self) -> int:
        """Outstanding requests of all endpoints that may be chosen, unscaled."""
        return sum([endpoint.load for endpoint in self.endpoints]) if self.scaled else int(sum(self.loads))

    def clear(self) -> None:
        """Let nobody be chosen until the next :meth:`refresh`."""
        for endpoint in self.endpoints:
            endpoint.loads = None
        self.endpoints, self.loads = [], []

    def refresh(self, now: float, *, rules: Rules, slow_start_s: float) -> None:
        """Find anew who may be chosen and how loaded each is; sets ``due``.

        Never leaves ``endpoints`` empty while some member is ready: surplus ejections end early.
        """
        self.clear()
        self.due = NEVER
        self.endpoints = self._not_ejected([e for e in self.members if e.state is State.READY], now, rules)
        scales = self._scales(now, slow_start_s)
        self.scaled = any(scale != 1 for scale in scales)
        for index, endpoint in enumerate(self.endpoints):
            endpoint.scale = scales[index] if scales else 1
            endpoint.loads, endpoint.index = self.loads, index
        self.look()

    def look(self) -> None:
        """Add up all loads anew, with what other workers hold by now."""
        self.loads[:] = [endpoint.look() for endpoint in self.endpoints]

    def _not_ejected(self, ready: list[Endpoint], now: float, rules: Rules) -> list[Endpoint]:
        out = sorted((e for e in ready if now < e.record.until), key=lambda endpoint: endpoint.record.until)
        if not out:
            return ready
        while len(out) > rules.allowed(len(ready)):  # others have become unready since these were ejected
            endpoint = out.pop(0)
            endpoint.record = readmitted(endpoint.record, now)
        self.due = out[0].record.until if out else NEVER
        return [endpoint for endpoint in ready if now >= endpoint.record.until]

    def _scales(self, now: float, slow_start_s: float) -> list[float]:
        """Factors of slow start; empty when nobody is in it."""
        ages = [now - endpoint.ready_at for endpoint in self.endpoints]
        if len(ages) < 2 or min(ages) >= slow_start_s:
            return []
        self.due = min(self.due, now + slow_start_s / slow_start.STEPS)
        return slow_start.scales(ages, slow_start_s)

    def ejected(self, now: float) -> int:
        """Ready members that are out at ``now``."""
        return sum(e.state is State.READY and now < e.record.until for e in self.members)

    def ready(self) -> int:
        """Members that are ready, ejected ones too."""
        return sum(e.state is State.READY for e in self.members)

    def least_among(
        self, *, limit: int | None, avoid: Collection[Endpoint], revision: str | None = None
    ) -> Endpoint | None:
        """The least loaded endpoint below ``limit``, not in ``avoid`` and of ``revision``: the long way, O(n)."""
        if limit is not None and self.all_hold(limit):
            return None
        best: Endpoint | None = None
        least = inf
        self.turn = turn = (self.turn + 1) % max(1, len(self.endpoints))
        for endpoint in (*self.endpoints[turn:], *self.endpoints[:turn]):
            if self.loads[endpoint.index] >= least or endpoint in avoid:
                continue
            if revision is not None and endpoint.spec.revision != revision:
                continue
            if limit is None or endpoint.held < limit:
                best, least = endpoint, self.loads[endpoint.index]
        return best

    def all_hold(self, limit: int) -> bool:
        """Whether no endpoint is below the limit.

        Under overload this is asked at each release, so it is quick; other workers' counts are as last looked.
        """
        return not self.endpoints or min([e.in_flight + e.others for e in self.endpoints]) >= limit
