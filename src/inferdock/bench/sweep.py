"""What a sweep over concurrencies says: where the knee is, what an autoscaler should aim at, how fast a replica is.

One rung is one closed loop. The knee is the last rung before an objective is missed: above it a replica only makes
everybody wait. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from inferdock.bench.slo import Verdict
from inferdock.bench.stats import Summary

HEADROOM: Final = 0.75
"""Share of the knee that an autoscaler should aim at: load goes on growing while another replica starts."""
LONGER: Final = 4
"""How much longer the prompts are whose reading is timed."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One concurrency.

    Attributes:
        users: requests under way at once.
        summary: figures.
        verdicts: on each objective.
    """

    users: int
    summary: Summary
    verdicts: tuple[Verdict, ...]

    @property
    def met(self) -> bool:
        """Whether no objective was missed, and nothing failed."""
        return Verdict.FAIL not in self.verdicts and not self.summary.errors


def knee(rungs: Sequence[Rung]) -> Rung | None:
    """The last rung before the first that misses; None when already the first does."""
    found = None
    for rung in sorted(rungs, key=lambda rung: rung.users):
        if not rung.met:
            break
        found = rung
    return found


def aim(found: Rung, replicas: int) -> int:
    """Running plus waiting requests that an autoscaler should want for each replica.

    Args:
        found: the knee.
        replicas: that shared the load.
    """
    return max(1, int(found.users / replicas * HEADROOM))


def running(rung: Rung, alone: Rung, replicas: int) -> int:
    """Sequences that one replica had in work at once, on average, by Little's law.

    Above what an engine takes at once, more users only wait: they count in the time to the first token, and not here.

    Args:
        rung: the one that is asked about.
        alone: that with the fewest users, where nobody waits.
        replicas: that shared the load.
    """
    summary = rung.summary
    tokens = summary.output_tokens / summary.succeeded
    busy_s = alone.summary.ttft.p50 + summary.tpot.mean * (tokens - 1)
    return max(1, min(rung.users // replicas, round(summary.requests_per_s * busy_s / replicas)))


def steps(rungs: Sequence[Rung], replicas: int) -> list[tuple[int, float]]:
    """(sequences in work on one replica, seconds per token) of every rung that shows it."""
    alone = min(rungs, key=lambda rung: rung.users)
    return [
        (running(rung, alone, replicas), rung.summary.tpot.mean)
        for rung in rungs
        if rung.summary.tpot.count and rung.summary.tpot.mean > 0
    ]


def reading(short: Summary, long: Summary) -> tuple[float, float]:
    """How long prompts take on an idle replica: (seconds per token, seconds that no length explains).

    Args:
        short, long: one user with prompts of two lengths.
    """
    shorter, longer = _prompt(short), _prompt(long)
    more = longer - shorter
    slope = max(0.0, (long.ttft.p50 - short.ttft.p50) / more) if more > 0 else 0.0
    step = short.tpot.mean if short.tpot.count else 0.0
    return slope, max(0.0, short.ttft.p50 - slope * shorter - step)


def _prompt(summary: Summary) -> float:
    return summary.prompt_tokens / summary.succeeded if summary.succeeded else 0.0
