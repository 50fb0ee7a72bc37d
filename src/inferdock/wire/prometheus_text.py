"""Reads chosen gauges from the Prometheus text format without building objects for the thousand other lines."""

from __future__ import annotations

import math
from collections.abc import Iterable


def read_sums(text: str, names: Iterable[str]) -> dict[str, float]:
    """Sum the samples of each named metric over all its labels.

    Args:
        text: an exposition in the Prometheus text format; lines that make no sense are skipped.
        names: sample names, exactly as exposed.

    Returns:
        name to sum; names without a finite sample are absent.
    """
    wanted = frozenset(names)
    sums: dict[str, float] = {}
    for line in text.splitlines():
        if not line or line[0] == "#":
            continue
        name = line.partition("{")[0].partition(" ")[0]
        if name in wanted:
            value = _value(line)
            if value is not None:
                sums[name] = sums.get(name, 0.0) + value
    return sums


def _value(line: str) -> float | None:
    rest = line.rpartition("}")[2].split() if "{" in line else line.split()[1:]
    try:
        value = float(rest[0])
    except (IndexError, ValueError):
        return None
    return value if math.isfinite(value) else None
