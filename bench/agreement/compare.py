"""The rules by which a shown number agrees with a counted one. Pure.

Counts are exact. A percentile of a histogram agrees when the counted one lies in the same bucket or in a neighbour of
it: the client's clock stands outside the gateway's, so a value near an edge may fall on its other side. Money may
differ by a share.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One number.

    Attributes:
        number: what it is.
        where: who shows it.
        shown, counted: None is "no data", which agrees with "no data" alone.
        allowed: how far they may be apart, in words.
        agrees: whether they are no further apart.
    """

    number: str
    where: str
    shown: float | None
    counted: float | None
    allowed: str
    agrees: bool


def exact(number: str, where: str, shown: float | None, counted: float | None) -> Row:
    """A count."""
    return Row(number=number, where=where, shown=shown, counted=counted, allowed="0", agrees=shown == counted)


def within(number: str, where: str, shown: float | None, counted: float | None, share: float) -> Row:
    """An amount that may differ by a share (0.02: two percent) of what was counted."""
    agrees = shown is counted is None
    if shown is not None and counted is not None:
        agrees = abs(shown - counted) <= share * abs(counted)
    return Row(number=number, where=where, shown=shown, counted=counted, allowed=f"{share:.1%}", agrees=agrees)


def same_bucket(number: str, where: str, shown: float | None, counted: float | None, bounds: Sequence[float]) -> Row:
    """A percentile in seconds, made from a histogram with these upper bounds (ascending, without infinity)."""
    agrees = shown is counted is None
    if shown is not None and counted is not None:
        agrees = abs(bisect_left(bounds, shown) - bisect_left(bounds, counted)) <= 1
    return Row(number=number, where=where, shown=shown, counted=counted, allowed="one bucket", agrees=agrees)


def between(number: str, where: str, shown: float | None, least: float, most: float) -> Row:
    """A count of which the client only knows bounds; it is exact where they are equal."""
    agrees = shown is not None and least <= shown <= most
    allowed = "0" if least == most else f"up to {most:g}"
    return Row(number=number, where=where, shown=shown, counted=least, allowed=allowed, agrees=agrees)


def within_bounds(number: str, where: str, shown: float | None, least: float, most: float, share: float) -> Row:
    """An amount that may lie by a share outside of bounds which the hand calculation gives."""
    agrees = shown is not None and least * (1 - share) <= shown <= most * (1 + share)
    return Row(
        number=number, where=where, shown=shown, counted=(least + most) / 2, allowed=f"{share:.1%}", agrees=agrees
    )  # fmt: skip


def about(number: str, where: str, shown: float | None, counted: float | None, margin: float) -> Row:
    """An amount that may differ by ``margin``, in its own unit."""
    agrees = shown is counted is None
    if shown is not None and counted is not None:
        agrees = abs(shown - counted) <= margin
    return Row(number=number, where=where, shown=shown, counted=counted, allowed=f"{margin:.3g}", agrees=agrees)
