"""Exact search among some thousand vectors: all of them are looked at, 20 us a thousand.

The part of ``index`` that holds a partition while it is small, which nearly all are; hence the care for bytes.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import numkong
import numpy as np
from numpy.typing import NDArray

from inferdock.cache.packing import DIMENSIONS, Floats, Row

Match = tuple[bytes, float]

_SPARE: Final = 8
"""Candidates beyond those asked for that are scored again: rounding the query may have swapped close ones."""
_BLOCK: Final = 64


class FlatIndex:
    """Rows without holes: the last one fills the place of one that goes."""

    __slots__ = ("_inverse", "_keys", "_places", "_rows")

    def __init__(self) -> None:
        self._rows: NDArray[np.int8] = np.empty((1, DIMENSIONS), dtype=np.int8)
        self._inverse: NDArray[np.float32] = np.empty(1, dtype=np.float32)
        self._keys: list[bytes] = []
        self._places: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places

    @property
    def nbytes(self) -> int:
        """Bytes held, without the keys themselves."""
        arrays = self._rows.nbytes + self._inverse.nbytes
        return arrays + sys.getsizeof(self._keys) + sys.getsizeof(self._places)

    def add(self, key: bytes, row: Row) -> None:
        """Take in a vector under a key that is not there yet."""
        place = len(self._keys)
        if place == len(self._rows):
            self._resize(place + max(1, place // 2))
        self._rows[place] = row
        self._inverse[place] = inverse_length(row)
        self._keys.append(key)
        self._places[key] = place

    def pop(self, key: bytes) -> Row | None:
        """Give a vector back; None where the key is not there."""
        place = self._places.pop(key, None)
        if place is None:
            return None
        row: Row = self._rows[place].copy()
        last = self._keys.pop()
        if last != key:
            end = len(self._keys)
            self._rows[place], self._inverse[place] = self._rows[end], self._inverse[end]
            self._keys[place], self._places[last] = last, place
        if len(self._keys) * 4 < len(self._rows):
            self._resize(max(1, len(self._rows) // 2))
        return row

    def pop_any(self) -> tuple[bytes, Row]:
        """Give some vector back, the one that costs least."""
        key = self._keys[-1]
        row = self.pop(key)
        assert row is not None
        return key, row

    def search(self, query: Floats, rounded: Row, count: int) -> list[Match]:
        """The ``count`` nearest with their cosines, in no order; a few more where some are alike.

        Args:
            query: of length 1.
            rounded: the query as a row.
            count: at least 1.
        """
        held = len(self._keys)
        if not held:
            return []
        inverse = self._inverse[:held]
        dots = np.asarray(numkong.cdist(self._rows[:held], rounded[None], "dot"))[:, 0]
        places = _best(dots * inverse, count + _SPARE)
        scores = (self._rows[places].astype(np.float32) @ query) * inverse[places]
        return [(self._keys[place], score) for place, score in zip(places.tolist(), scores.tolist(), strict=True)]

    def _resize(self, capacity: int) -> None:
        held = min(len(self._rows), capacity)
        rows, inverse = np.empty((capacity, DIMENSIONS), dtype=np.int8), np.empty(capacity, dtype=np.float32)
        rows[:held], inverse[:held] = self._rows[:held], self._inverse[:held]
        self._rows, self._inverse = rows, inverse
        if len(self._places) * 4 < capacity:
            self._places = dict(self._places)  # a dictionary does not shrink by itself


def inverse_length(row: Row) -> np.float32:
    """1 over a row's length."""
    numbers = row.astype(np.float32)
    return np.float32(1.0 / np.sqrt(numbers @ numbers))


def _best(scores: NDArray[Any], count: int) -> NDArray[np.intp]:
    """Places of the ``count`` highest scores.

    The ``count``-th highest of the blocks' maxima is a bound that few scores reach: five times faster than
    partitioning all of them.
    """
    if len(scores) <= count:
        return np.arange(len(scores))
    whole = len(scores) // _BLOCK
    if whole > count:
        maxima = scores[: whole * _BLOCK].reshape(-1, _BLOCK).max(axis=1)
        bound = np.partition(maxima, whole - count)[whole - count]
        places = np.flatnonzero(scores >= bound)
    else:
        places = np.arange(len(scores))
    order = np.argsort(-scores[places], kind="stable")
    return places[order[:count]]
