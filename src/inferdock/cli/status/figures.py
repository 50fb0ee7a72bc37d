"""Numbers as ``inferdock status`` writes them, like the console's page does; what is not known is a dash. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, TypeGuard

NONE: Final = "–"
_BARS: Final = "▁▂▃▄▅▆▇█"


def count(value: object) -> str:
    """A number of things."""
    return f"{value:,.0f}" if is_number(value) else NONE


def rate(value: object) -> str:
    """Things per second."""
    return NONE if not is_number(value) else f"{value:.1f}" if value < 10 else count(value)


def share(value: object) -> str:
    """A ratio as a percentage."""
    return NONE if not is_number(value) else f"{100 * value:.{1 if 0 < value < 0.1 else 0}f} %"


def span(value: object) -> str:
    """Seconds, in the unit that reads best."""
    if not is_number(value):
        return NONE
    if value == 0:
        return "0 s"
    if value < 1:
        return f"{1000 * value:.{1 if value < 0.01 else 0}f} ms"
    if value < 120:
        return f"{value:.{2 if value < 10 else 0}f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def age(value: object) -> str:
    """For how long; whole seconds at first."""
    return f"{value:.0f} s" if is_number(value) and value < 120 else span(value)


def dollars(value: object) -> str:
    """Money; small amounts keep two digits."""
    if not is_number(value):
        return NONE
    if value == 0:
        return "$0"
    if value >= 100:
        return f"${value:,.0f}"
    return f"${value:.{3 if value < 1 else 2}f}" if value >= 0.01 else f"${_plain(value)}"


def _plain(value: float) -> str:
    """Two digits, without an exponent."""
    return f"{value:.8f}".rstrip("0") if value < 1e-6 else f"{value:.{1 - _exponent(value)}f}"


def _exponent(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])


def sparkline(values: Sequence[object], width: int) -> str:
    """The last values as bars, the highest of them full; "" before there are two."""
    known = [float(one) if is_number(one) else 0.0 for one in values[-width:]]
    if len(known) < 2 or width < 2:
        return ""
    top = max(known)
    return "".join(_BARS[round((len(_BARS) - 1) * one / top) if top > 0 else 0] for one in known)


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is one that can be shown: JSON has numbers, null and, from elsewhere, anything."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
