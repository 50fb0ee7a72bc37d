"""Which requests of a model are also sent to another revision, whose answers nobody gets."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite


@dataclass(frozen=True, slots=True)
class Shadow:
    """What is copied, and where to.

    Attributes:
        revision: gets the copies; it may have no weight.
        share: of the requests, above 0 up to 1.
    """

    revision: str
    share: float

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            ValueError: there is no revision, or the share is no share.
        """
        if not self.revision:
            raise ValueError("a shadow needs a revision")
        if not isfinite(self.share) or not 0 < self.share <= 1:
            raise ValueError(f"a shadow's share is above 0 and at most 1, not {self.share}")
