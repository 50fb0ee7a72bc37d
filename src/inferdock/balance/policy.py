"""How an endpoint is chosen among those that may take a request: the protocol; one file per policy beside it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from inferdock.balance.endpoint import Endpoint
from inferdock.balance.group import Group
from inferdock.balance.wanted import Wanted


class Policy(Protocol):
    """Scores and picks.

    Attributes:
        prefix_bytes: how much of a prompt's beginning it looks at (``Wanted.prefix``); 0: nothing.
    """

    @property
    def prefix_bytes(self) -> int:
        """See above."""

    def pick(self, group: Group, wanted: Wanted, avoid: Collection[Endpoint]) -> Endpoint | None:
        """Return an endpoint of ``group.endpoints`` that is not in ``avoid`` and below ``wanted.limit``, or None.

        Revision and session of ``wanted`` are not a policy's business.
        """
