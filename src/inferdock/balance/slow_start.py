"""Slow start: an endpoint that has just become ready counts as busier than it is, less so from moment to moment.

A replica that is new compiles, fills caches and opens connections with its first requests. Its outstanding requests
are compared as if they were ``1 / progress`` times as many, so that it holds about that share of what the others do.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

MIN_SHARE = 0.1
"""Share of the first moment (as in Envoy): at least that, or a new endpoint would learn nothing."""
STEPS = 20
"""How often the share grows within the window; endpoints within one step are equals."""


def scales(ages_s: Sequence[float], window_s: float) -> list[float]:
    """Factor for each endpoint's outstanding requests.

    Args:
        ages_s: seconds since each endpoint became ready; none is before its time, but may be slightly negative.
        window_s: time until an endpoint counts in full.

    Returns:
        1 (an integer) for the endpoint that is furthest on and its equals, more for the others: where all are new,
        none is held back.
    """
    shares = [max(MIN_SHARE, min(1.0, ceil(STEPS * age / window_s) / STEPS)) for age in ages_s]
    most = max(shares, default=1.0)
    return [1 if share == most else most / share for share in shares]
