"""How a ready endpoint is chosen: the protocol, one file per policy beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Loaded(Protocol):
    """What a policy may know of a candidate."""

    @property
    def outstanding(self) -> int:
        """Requests that stand before a new one."""


C = TypeVar("C", bound=Loaded)


class Policy(Protocol):
    """Picks one of the candidates."""

    def pick(self, candidates: Sequence[C]) -> C:
        """Return one of ``candidates``, which is never empty."""
