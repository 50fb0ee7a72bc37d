"""Exact sums: dollars and seconds are fractions here, so that parts add up to the whole whatever their order.

Rounding happens once, where an amount is shown. The inputs are floats, and each is taken for exactly what it is.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final

ZERO: Final = Fraction(0)
HOUR_S: Final = 3600
MILLION: Final = 1_000_000
MAX_TOKENS: Final = 2**62
MAX_AMOUNT: Final = 1e15
"""Above, a price, a time or a weight is taken for a broken figure."""


def exact(value: float | Fraction, what: str) -> Fraction:
    """A figure of 0 or more, taken exactly.

    Args:
        value: dollars, seconds, shares or weights.
        what: how an error calls it.

    Raises:
        ValueError: it is negative, no number, or absurdly large.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{what} is {value}, which is no number")
    if not 0 <= value <= MAX_AMOUNT:
        raise ValueError(f"{what} is {float(value):g}, which is not between 0 and {MAX_AMOUNT:g}")
    return Fraction(value)


def count(value: int, what: str) -> int:
    """A number of tokens.

    Raises:
        ValueError: it is negative or absurdly large.
    """
    if not 0 <= value <= MAX_TOKENS:
        raise ValueError(f"{what} is {value}, which is not between 0 and 2^62")
    return value


def per_million(dollars: Fraction, tokens: int) -> Fraction | None:
    """Dollars for a million tokens; None without tokens, for nothing is known then (it is not free)."""
    return dollars * MILLION / tokens if tokens else None


def divided(total: int, shares: list[int]) -> list[int]:
    """Divide a whole number in proportion to shares, so that the parts add up to it (largest remainders first).

    Args:
        total: to be divided, 0 or more.
        shares: 0 or more each; all 0: the first gets everything.
    """
    whole = sum(shares)
    if not shares:
        return []
    if not whole:
        return [total, *([0] * (len(shares) - 1))]
    parts = [total * share // whole for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: (-(total * shares[i] % whole), i))
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts
