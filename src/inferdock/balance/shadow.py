"""Picks the requests that are also sent to another revision."""

from __future__ import annotations

from inferdock.domain.shadow import Shadow


class Sampling:
    """Picks requests evenly: after any number of them, its share to within one request."""

    __slots__ = ("_owed", "shadow")

    def __init__(self, shadow: Shadow) -> None:
        self.shadow = shadow
        self._owed = 0.5

    def take(self) -> bool:
        """Whether the next request is copied."""
        self._owed += self.shadow.share
        if self._owed < 1 - 1e-9:  # ten times 0.1 is not quite 1
            return False
        self._owed -= 1
        return True
