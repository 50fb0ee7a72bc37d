"""What was counted of one revision's requests: totals that only grow, and the difference of two readings. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=0, le=2**62)]
MAX_BUCKETS = 200
MAX_KINDS = 50


class Histogram(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Observations by bucket.

    Attributes:
        bounds: upper bounds in seconds, growing.
        counts: per bucket, not cumulative; one more than ``bounds``, the last is of what lies above them all.
    """

    bounds: Annotated[tuple[float, ...], Meta(max_length=MAX_BUCKETS)] = ()
    counts: Annotated[tuple[Count, ...], Meta(max_length=MAX_BUCKETS + 1)] = (0,)

    def __post_init__(self) -> None:
        """Refuse what is no histogram."""
        if len(self.counts) != len(self.bounds) + 1 or any(not a < b for a, b in pairwise((0.0, *self.bounds))):
            raise ValueError("a histogram needs growing bounds above 0, and one count more than bounds")

    @property
    def total(self) -> int:
        """Observations."""
        return sum(self.counts)

    def at(self, share: float) -> float:
        """The value below which that share of the observations lies, 0-1, as PromQL's ``histogram_quantile``.

        Linear within a bucket; infinite in the last. 0 without observations.
        """
        rank, below, lower = share * self.total, 0, 0.0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            if count and below + count >= rank:
                return lower + (bound - lower) * max(0.0, rank - below) / count
            below += count
            lower = bound
        return lower if self.total else 0.0


def histogram(bounds: tuple[float, ...], values: list[float]) -> Histogram:
    """Count values into buckets."""
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[bisect_left(bounds, value)] += 1
    return Histogram(bounds, tuple(counts))


class Shadows(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Copies of clients' requests that one revision got, and that no client knows of.

    Attributes:
        answered: to the end, whatever was answered (a status below 500).
        failed: the replica did not answer them, or with a status of 500 and above.
        dropped: never sent, or given up by the gateway: nobody's fault.
        equal: answers that say the same as the client's, of those that can be compared (greedy ones, or with a seed).
        different: such answers that do not, by kind: ``status``, ``tool_call``, ``refusal``, ``length``, ``text``.
        ttft, tpot: of streams, seconds, from when the copy was sent.
    """

    answered: Count = 0
    failed: Count = 0
    dropped: Count = 0
    equal: Count = 0
    different: Annotated[dict[str, Count], Meta(max_length=MAX_KINDS)] = {}
    ttft: Histogram = Histogram()
    tpot: Histogram = Histogram()

    @property
    def sent(self) -> int:
        """Copies that say something of the revision."""
        return self.answered + self.failed

    @property
    def differing(self) -> int:
        """Answers that say something else than the client's."""
        return sum(self.different.values())

    @property
    def compared(self) -> int:
        """Answers that could be compared."""
        return self.equal + self.differing


class Counts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One revision's requests.

    Attributes:
        requests: answered, failed ones included.
        errors: failed ones, also those that failed after a good status.
        ttft: of streams, seconds.
        tpot: of streams of two tokens and more, seconds.
        attempts: tries on its replicas that ended, whether or not the request ended there.
        failures: tries that failed, also those of which no client noticed anything.
        shadow: copies; in none of the other figures.
    """

    requests: Count = 0
    errors: Count = 0
    ttft: Histogram = Histogram()
    tpot: Histogram = Histogram()
    attempts: Count = 0
    failures: Count = 0
    shadow: Shadows = Shadows()

    def __post_init__(self) -> None:
        """Refuse more failures than requests."""
        if self.errors > self.requests or self.failures > self.attempts:
            raise ValueError("there are more errors than requests")

    @property
    def seen(self) -> int:
        """How often the revision was tried: a request that failed here may have been answered elsewhere."""
        return max(self.requests, self.attempts)


NOTHING = Counts()


class Meter(Protocol):
    """Where live figures come from."""

    async def read(self) -> Mapping[str, Counts]:
        """Totals since the gateway began, by revision.

        Raises:
            UnreachableError: nobody answers.
        """
        ...


def since(before: Counts, now: Counts) -> Counts:
    """What was counted between two readings.

    A total that fell means that the counting began anew meanwhile (the gateway was restarted): then all that was
    counted since is what there is, as Prometheus' ``increase`` has it.
    """
    errors, requests = now.errors - before.errors, now.requests - before.requests
    failures, attempts = now.failures - before.failures, now.attempts - before.attempts
    ttft, tpot = _between(before.ttft, now.ttft), _between(before.tpot, now.tpot)
    shadow = _shadows_between(before.shadow, now.shadow)
    if ttft is None or tpot is None or shadow is None or not 0 <= errors <= requests or not 0 <= failures <= attempts:
        return now
    return Counts(
        requests=requests, errors=errors, ttft=ttft, tpot=tpot, attempts=attempts, failures=failures, shadow=shadow
    )


def _shadows_between(before: Shadows, now: Shadows) -> Shadows | None:
    ttft, tpot = _between(before.ttft, now.ttft), _between(before.tpot, now.tpot)
    answered, failed = now.answered - before.answered, now.failed - before.failed
    dropped, equal = now.dropped - before.dropped, now.equal - before.equal
    kinds = {*before.different, *now.different}
    different = {kind: now.different.get(kind, 0) - before.different.get(kind, 0) for kind in sorted(kinds)}
    if ttft is None or tpot is None or min(answered, failed, dropped, equal, *different.values()) < 0:
        return None
    return Shadows(
        answered=answered, failed=failed, dropped=dropped, equal=equal, different=different, ttft=ttft, tpot=tpot
    )


def _between(before: Histogram, now: Histogram) -> Histogram | None:
    if not before.total:
        return now
    if before.bounds != now.bounds:
        return None
    counts = tuple(late - early for early, late in zip(before.counts, now.counts, strict=True))
    return Histogram(now.bounds, counts) if min(counts) >= 0 else None
