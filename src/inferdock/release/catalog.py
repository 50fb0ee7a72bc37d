"""What a release needs of the registry: which version is champion, and to move that by compare-and-set."""

from __future__ import annotations

from typing import Final, Protocol

NO_CHAMPION: Final = ""
"""As ``expect``: no version is champion."""


class Catalog(Protocol):
    """The champion of one model. Versions are spelt as references, ``name@version``."""

    async def champion(self) -> str:
        """The champion's reference, :data:`NO_CHAMPION` when there is none."""
        ...

    async def move(self, reference: str, *, expect: str, reason: str) -> None:
        """Make another version champion; :data:`NO_CHAMPION` takes the alias away.

        Raises:
            ConflictError: the champion is not ``expect`` any more.
        """
        ...
