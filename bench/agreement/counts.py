"""What the client's records come to, in the terms of the platform's own numbers. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bench.agreement.traffic import Record
from inferdock.domain.percentile import percentile

Labels = tuple[str, ...]


def tally(records: Iterable[Record], labels: Callable[[Record], Labels]) -> Counter[Labels]:
    """How many there are of each."""
    return Counter(labels(one) for one in records)


def span(records: Iterable[Record], what: str) -> tuple[int, int]:
    """Least and most tokens of a kind, ``prompt`` or ``output``."""
    ranges = [one.prompt_range if what == "prompt" else one.output_range for one in records]
    return sum(low for low, _ in ranges), sum(high for _, high in ranges)


def groups(records: Iterable[Record], by: Callable[[Record], Any]) -> dict[Any, list[Record]]:
    """Records that have something in common, in order."""
    found: dict[Any, list[Record]] = {}
    for one in records:
        found.setdefault(by(one), []).append(one)
    return dict(sorted(found.items()))


def ttfts(records: Iterable[Record]) -> list[float]:
    """Seconds from sending to the answer's first byte, of streams that began well and were not left."""
    return sorted(one.first - one.sent for one in records if one.stream and one.status == 200)


def tpots(records: Iterable[Record]) -> list[float]:
    """Seconds per further token of whole streams."""
    return sorted(value for one in records if (value := one.tpot) is not None)


def share(values: Sequence[float], q: float) -> float | None:
    """A percentile of sorted values; None of none."""
    return percentile(values, q) if values else None
