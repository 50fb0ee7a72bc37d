"""When requests are sent in an open loop: offsets in seconds from the start, independent of any answer."""

from __future__ import annotations

import random
from collections.abc import Iterator


def constant(rate: float) -> Iterator[float]:
    """Evenly spaced, ``rate`` per second."""
    index = 0
    while True:
        yield index / rate
        index += 1


def poisson(rate: float, rng: random.Random) -> Iterator[float]:
    """A Poisson process of ``rate`` per second: exponential gaps, the traffic of many independent users."""
    at = 0.0
    while True:
        at += rng.expovariate(rate)
        yield at
