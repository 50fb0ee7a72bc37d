"""Numbers for endpoints: the column that each has on the shared board, in all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from inferdock.domain.endpoint import EndpointSpec


class SlotsExhaustedError(ValueError):
    """More endpoints than the board has columns."""


class Slots:
    """Gives every endpoint a number of its own for as long as somebody may count requests under it.

    The number of an endpoint that has left the set is used again only when every worker knows that it has left and
    no request is counted under it any more.
    """

    def __init__(self, count: int, *, in_use: Callable[[int], bool]) -> None:
        """``in_use``: whether requests are counted under a number."""
        self._count = count
        self._in_use = in_use
        self._by_spec: dict[EndpointSpec, int] = {}
        self._retired: dict[int, int] = {}

    def assign(self, specs: Iterable[EndpointSpec], *, version: int, known_version: int) -> dict[str, int]:
        """Numbers for a new set.

        Args:
            specs: the whole set.
            version: of this set.
            known_version: the lowest one that a worker may still use.

        Returns:
            Name to number.

        Raises:
            SlotsExhaustedError: there are not enough; nothing has changed.
        """
        wanted = list(specs)
        keep = {spec: self._by_spec[spec] for spec in wanted if spec in self._by_spec}
        retired = {slot: since for slot, since in self._retired.items() if since > known_version or self._in_use(slot)}
        retired |= {slot: version for spec, slot in self._by_spec.items() if spec not in keep}
        taken = {*keep.values(), *retired}
        free = (slot for slot in range(self._count) if slot not in taken)
        try:
            for spec in wanted:
                if spec not in keep:
                    keep[spec] = next(free)
        except StopIteration:
            raise SlotsExhaustedError(f"there can be {self._count} endpoints at a time") from None
        self._by_spec, self._retired = keep, retired
        return {spec.name: slot for spec, slot in keep.items()}
