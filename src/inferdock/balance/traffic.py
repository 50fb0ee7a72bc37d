"""How requests are divided among the revisions of a model (stable and canary).

Without a session the division is deterministic: after any number of requests, each revision has had its share to
within one request (Tijdeman, *The chairman assignment problem*, 1980), so a canary of 1 % gets every hundredth
request, not three in a row by chance. With a session, its hash decides, and a change of weights moves only the
sessions that it must (weighted rendezvous hashing).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import inf, isfinite, log
from zlib import crc32

from inferdock.balance.hashing import mix


class Traffic:
    """Weights of revisions, and what each is owed.

    Attributes:
        weights: as given.
        able: revisions that have weight and a ready endpoint, most weight first.
    """

    __slots__ = ("_salts", "_sum", "_threshold", "able", "owed", "weights")

    def __init__(self, weights: Mapping[str, float]) -> None:
        """``weights``: any numbers >= 0, in proportion to each other.

        Raises:
            ValueError: a weight is negative or not finite, or all are 0.
        """
        for revision, weight in weights.items():
            if not isfinite(weight) or weight < 0:
                raise ValueError(f"the weight of revision `{revision}` is {weight}, not a number >= 0")
        if not any(weights.values()):
            raise ValueError("some revision must have a weight above 0")
        self.weights = dict(weights)
        self._salts = {revision: crc32(revision.encode()) << 32 for revision in weights}
        self.able: list[str] = []
        self.owed: dict[str, float] = {}
        self._sum: float = 0
        self._threshold: float = 0

    def offer(self, ready: Collection[str]) -> None:
        """Divide among the revisions of ``ready`` from now on; the rest of the weights is shared out in proportion."""
        able = sorted(
            (revision for revision, weight in self.weights.items() if weight > 0 and revision in ready),
            key=lambda revision: -self.weights[revision],
        )
        if able == self.able:
            return
        self.able = able
        self.owed = dict.fromkeys(able, 0)
        self._sum = sum(self.weights[revision] for revision in able)
        self._threshold = self._sum / (2 * len(able) - 2) if len(able) > 1 else 0

    def next(self) -> str | None:
        """The revision of the next request; None when no weighted revision is ready. O(revisions)."""
        if len(self.able) < 2:
            return self.able[0] if self.able else None
        weights, owed, threshold = self.weights, self.owed, self._threshold
        late = self._sum - threshold
        chosen, soonest = self.able[0], inf
        for revision in self.able:
            weight = weights[revision]
            owed[revision] = due = owed[revision] + weight
            # Of those that have earned enough of a request, the one that would be the first to be owed too much.
            if due >= threshold and (late - due) / weight < soonest:
                chosen, soonest = revision, (late - due) / weight
        owed[chosen] -= self._sum
        return chosen

    def drawn(self, chance: float) -> str | None:
        """A revision by its weight, without taking its turn; ``chance`` is from 0 to 1."""
        left = chance * self._sum
        for revision in self.able:
            left -= self.weights[revision]
            if left < 0:
                return revision
        return self.able[-1] if self.able else None

    def undo(self, revision: str) -> None:
        """The request for which :meth:`next` said ``revision`` could not be sent anywhere."""
        if len(self.able) > 1:
            for able in self.able:
                self.owed[able] -= self.weights[able]
            self.owed[revision] += self._sum

    def of_session(self, key: int) -> str | None:
        """The revision of a session by its key; the same until weights or readiness change. O(revisions)."""
        best, least = None, inf
        for revision in self.able:
            chance = (mix(key ^ self._salts[revision]) + 1) / 2.0**64
            score = -log(min(chance, 1.0)) / self.weights[revision]
            if score < least or best is None:
                best, least = revision, score
        return best
