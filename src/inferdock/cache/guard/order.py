"""Whether the same words stand in an order of the same meaning."""

from __future__ import annotations

import itertools

from inferdock.cache.guard import words
from inferdock.cache.guard.reading import Reading
from inferdock.cache.guard.rules import Kind, difference, heavy_tokens

LONGEST = 7
"""Tokens of a part within which the order may differ."""

_JOINTS = frozenset({"and", "or", "vs"})
_OF = ("of", "in", "for", "at", "to")
_SEQUENCE = frozenset({"then", "first", "before", "after", "from", "next", "followed"})


def same_order(asked: Reading, stored: Reading, kind: Kind) -> bool:
    """Whether rows of the same heavy tokens are in an order of one meaning.

    Equal, or "A and B" against "B and A", or "A of B" against "B A".
    """
    found = difference(asked.tokens, stored.tokens)
    left, right = heavy_tokens(asked, found, kind), heavy_tokens(stored, found, kind)
    if left == right:
        return True
    if len(left) != len(right):
        return False
    start, end = 0, len(left)
    while left[start] == right[start]:
        start += 1
    while left[end - 1] == right[end - 1]:
        end -= 1
    if end - start > LONGEST:
        return False
    return (
        _moved(asked.tokens, stored.tokens)
        or _joined(left, right, start, end)
        or _compound(asked.tokens, stored.tokens, left[start:end], right[start:end])
    )


def _joined(left: tuple[str, ...], right: tuple[str, ...], start: int, end: int) -> bool:
    """Whether what differs are two short parts that changed their places around "and", "or" or "vs".

    They may begin or end alike: "black tea and green tea".
    """
    if not _SEQUENCE.isdisjoint(left):
        return False
    return any(
        _turned(left[first:last], right[first:last])
        for first in range(start, max(start - 3, -1), -1)
        for last in range(end, min(end + 3, len(left)) + 1)
    )


def _turned(part: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return any(
        token in _JOINTS and (*part[place + 1 :], token, *part[:place]) == other for place, token in enumerate(part)
    )


def _moved(asked: tuple[str, ...], stored: tuple[str, ...]) -> bool:
    """Whether the same parts follow, each with its preposition, in another order."""
    left, right = _parts(asked), _parts(stored)
    return left[0] == right[0] and sorted(left) == sorted(right)


def _parts(tokens: tuple[str, ...]) -> list[tuple[str, ...]]:
    starts = [0, *(place for place, token in enumerate(tokens) if place and token in words.PREPOSITIONS), len(tokens)]
    return [tokens[start:end] for start, end in itertools.pairwise(starts)]


def _compound(asked: tuple[str, ...], stored: tuple[str, ...], part: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether what differs are two parts with a preposition between them here, and none, in turned order, there."""
    for place in range(1, len(part)):
        first, second = part[:place], part[place:]
        if second + first == other:
            return any(
                (_has(asked, (*first, small, *second)) and _has(stored, other))
                or (_has(stored, (*second, small, *first)) and _has(asked, part))
                for small in _OF
            )
    return False


def _has(tokens: tuple[str, ...], part: tuple[str, ...]) -> bool:
    return any(tokens[place : place + len(part)] == part for place in range(len(tokens) - len(part) + 1))
