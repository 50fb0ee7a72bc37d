"""Figures that somebody else knows and a gateway shows in its ``/metrics``: those of the platform's releases, replicas
and bills (``table.PLATFORM``).

The supervisor of ``inferdock up`` tells them all at once, again and again, so a gateway that was started anew has them
soon, and what is not told any more is gone. Where nobody tells for ``KEPT_S``, all of them are gone: an absent figure
is honest, a stale one is not. With several workers only their parent is told: nothing counts twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Annotated, Final

import msgspec

from inferdock.telemetry.instruments import Counter, Gauge, Sample
from inferdock.telemetry.table import PLATFORM, Metric

MOST_FIGURES: Final = 2000
"""Of one telling: label values are names of revisions and gates, of which there are few."""
KEPT_S: Final = 20.0
"""That figures are shown which are not told again: four tellings (``app.platform_figures.EVERY_S``) may be missed."""
Value = Annotated[str, msgspec.Meta(max_length=500)]


class Figure(msgspec.Struct, frozen=True):
    """One number.

    Attributes:
        name: of a metric in ``table.PLATFORM``.
        labels: their values, in the order of the table.
        value: in the table's unit.
    """

    name: str
    labels: tuple[Value, ...]
    value: float


class Published:
    """The instruments for them.

    Attributes:
        instruments: in the order of the table; nothing is shown before it was told.
    """

    def __init__(self) -> None:
        self._rows: dict[str, Metric] = {row.name: row for row in PLATFORM}
        self._told: dict[str, list[tuple[tuple[str, ...], float]]] = {}
        self._told_at = 0.0
        self.instruments: list[Counter | Gauge] = [self._instrument(row) for row in PLATFORM]

    def tell(self, figures: Iterable[Figure], now: float) -> None:
        """Show exactly these from now on.

        Args:
            figures: all of them.
            now: seconds of the clock that :meth:`tick` is given too.

        Raises:
            ValueError: there are too many, or one does not fit the table; nothing has changed.
        """
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for number, one in enumerate(figures):
            if number == MOST_FIGURES:
                raise ValueError(f"there are more than {MOST_FIGURES}")
            self._check(one)
            found.setdefault(one.name, {})[one.labels] = one.value
        self._told_at = now
        self._show({name: list(rows.items()) for name, rows in found.items()})

    def tick(self, now: float) -> None:
        """Forget what was not told again in time; called about once a second, and before figures are shown."""
        if self._told and now - self._told_at > KEPT_S:
            self._show({})

    def _show(self, told: dict[str, list[tuple[tuple[str, ...], float]]]) -> None:
        self._told = told
        for instrument in self.instruments:
            if isinstance(instrument, Counter):
                instrument.clear()
                instrument.put(self._samples(instrument.name))

    def _check(self, one: Figure) -> None:
        row = self._rows.get(one.name)
        if row is None:
            raise ValueError(f"`{one.name[:100]}` is no metric of the platform")
        if len(one.labels) != len(row.labels):
            raise ValueError(f"{one.name} has the labels {', '.join(row.labels)}")
        if not isfinite(one.value) or (row.kind == "counter" and one.value < 0):
            raise ValueError(f"{one.name} cannot be {one.value}")

    def _instrument(self, row: Metric) -> Counter | Gauge:
        if row.kind == "counter":
            return Counter(row.name, row.meaning, row.labels, merged=False)
        return Gauge(row.name, row.meaning, row.labels, lambda: self._told.get(row.name, ()), merged=False)

    def _samples(self, name: str) -> list[Sample]:
        return [(labels, [value]) for labels, value in self._told.get(name, ())]
