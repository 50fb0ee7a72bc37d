"""Ratios within rounds, and what is said of them: median and range."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Cell = Mapping[str, float]
Round = Mapping[str, Mapping[str, Cell]]
"""Figures of one round: variant, then gateway."""


@dataclass(frozen=True)
class Spread:
    """Median and range of a few values."""

    median: float
    least: float
    most: float
    count: int

    def as_dict(self) -> dict[str, float]:
        """For the JSON document."""
        return {"median": self.median, "min": self.least, "max": self.most, "rounds": self.count}


def spread(values: Sequence[float]) -> Spread | None:
    """Median and range; None of nothing."""
    if not values:
        return None
    return Spread(statistics.median(values), min(values), max(values), len(values))


def values(rounds: Sequence[Round], variant: str, peer: str, figure: str) -> list[float]:
    """One figure of one gateway, in all rounds that have it."""
    return [found for r in rounds if (found := value(r, variant, peer, figure)) is not None]


def value(found: Round, variant: str, peer: str, figure: str) -> float | None:
    """One figure of one gateway in one round."""
    return found.get(variant, {}).get(peer, {}).get(figure)


def ratios(rounds: Sequence[Round], figure: str, top: tuple[str, str], bottom: tuple[str, str]) -> list[float]:
    """Within each round: the figure of ``top`` (variant, gateway) divided by that of ``bottom``."""
    found = []
    for one in rounds:
        above, below = value(one, *top, figure), value(one, *bottom, figure)
        if above is not None and below:
            found.append(above / below)
    return found


def turn_order(names: Sequence[str], round_number: int) -> list[str]:
    """Who comes when in a round: another one first each time, every second round backwards."""
    shift = round_number % len(names) if names else 0
    turned = [*names[shift:], *names[:shift]]
    return turned[::-1] if round_number % 2 else turned
