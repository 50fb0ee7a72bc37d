"""The arithmetic of the measurement: percentiles of a round, ratios within rounds, and what hits are worth."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

PERCENTILES = (50, 95, 99)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least so many percent of the values do not exceed.

    Raises:
        ValueError: there are no values, or no such percent.
    """
    if not values or not 0 < percent <= 100:
        raise ValueError("a percentile needs values, and a percent above 0 and up to 100")
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """``p50``, ``p95`` and ``p99``."""
    return {f"p{percent}": percentile(values, percent) for percent in PERCENTILES}


@dataclass(frozen=True)
class Round:
    """What one subject took for each look-up of one round.

    Attributes:
        wall_ms: by the clock.
        cpu_ms: of the processor, all threads of the process together.
        answered: how many got an answer.
    """

    wall_ms: Sequence[float]
    cpu_ms: Sequence[float]
    answered: int


def summary(rounds: Sequence[Round]) -> dict[str, object]:
    """Medians over the rounds of each round's percentiles, and all of these."""
    by_round = [{"wall_ms": percentiles(one.wall_ms), "cpu_ms": percentiles(one.cpu_ms)} for one in rounds]
    medians = {
        kind: {name: statistics.median(one[kind][name] for one in by_round) for name in by_round[0][kind]}
        for kind in ("wall_ms", "cpu_ms")
    }
    look_ups, answered = sum(len(one.wall_ms) for one in rounds), sum(one.answered for one in rounds)
    return {**medians, "look_ups": look_ups, "answered_ratio": answered / look_ups, "rounds": by_round}


def ratio(ours: Sequence[Round], theirs: Sequence[Round], kind: str, percent: float) -> dict[str, float]:
    """Median, least and greatest of the ratios within rounds: ours divided by theirs."""
    ratios = [
        percentile(getattr(one, kind), percent) / percentile(getattr(other, kind), percent)
        for one, other in zip(ours, theirs, strict=True)
    ]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


@dataclass
class Score:
    """Which look-ups were answered, and how many of these answers were meant for something else."""

    asked: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)

    def count(self, kind: str, expected: int | None, served: int | None) -> None:
        """One look-up; both numbers are those of stored prompts."""
        self.asked[kind] += 1
        if served is not None:
            self.hits[kind] += 1
            self.wrong[kind] += served != expected

    def as_dict(self) -> dict[str, object]:
        """Shares of all look-ups; wrong ones also of the hits."""
        asked, hits, wrong = self.asked.total(), self.hits.total(), self.wrong.total()
        return {
            "look_ups": asked,
            "hits": hits,
            "wrong": wrong,
            "hit_ratio": hits / asked if asked else 0.0,
            "wrong_per_1000": 1000 * wrong / asked if asked else 0.0,
            "false_share": wrong / hits if hits else 0.0,
            "kinds": {
                kind: {"look_ups": count, "hits": self.hits[kind], "wrong": self.wrong[kind]}
                for kind, count in sorted(self.asked.items())
            },
        }


def score(kinds: Iterable[tuple[str, int | None]], served: Iterable[int | None]) -> Score:
    """The score of look-ups, given as kind and expected number, and what was served to each."""
    counted = Score()
    for (kind, expected), number in zip(kinds, served, strict=True):
        counted.count(kind, expected, number)
    return counted


def all_hit(found: Mapping[str, object], kinds: Iterable[str]) -> bool:
    """Whether each look-up of these kinds was answered, and rightly; of :meth:`Score.as_dict`."""
    by_kind = found["kinds"]
    assert isinstance(by_kind, dict)
    return all(
        kind not in by_kind or by_kind[kind]["hits"] - by_kind[kind]["wrong"] == by_kind[kind]["look_ups"]
        for kind in kinds
    )
