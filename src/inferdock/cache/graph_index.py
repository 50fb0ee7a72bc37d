"""Approximate search among many vectors: a graph whose neighbours are followed (HNSW, usearch).

The part of ``index`` that holds a partition's vectors above some 20,000. A vector takes about 0.3 ms to be put in.

ONNX Runtime must be in the process before usearch is: the other way round it crashes while it is loaded, because
usearch brings a C++ library of its own along (seen with 1.32 and 2.26.6). Hence the import of ``embedder``, and its
place.
"""

from __future__ import annotations

import sys
from typing import Final

import numpy as np

import inferdock.cache.embedder  # noqa: F401  # see above
from inferdock.cache.flat_index import Match
from inferdock.cache.packing import DIMENSIONS, Floats, Row

from usearch.index import Index  # isort: skip

CONNECTIVITY: Final = 16
EXPANSION: Final = 64
_SPARE: Final = 12
_BYTES_PER_SLOT: Final = 1130
"""Of the graph, with the vector; measured. Asking usearch takes 0.1 ms."""


class GraphIndex:
    """Slots that are numbered, since the graph's keys are numbers; one that becomes free is used again.

    Attributes:
        slots: places in the graph, used or free; their memory returns with the whole graph only.
    """

    __slots__ = ("_free", "_graph", "_keys", "_slots")

    def __init__(self) -> None:
        self._graph = Index(
            ndim=DIMENSIONS,
            metric="cos",
            dtype="i8",
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION,
            expansion_search=EXPANSION,
        )
        self._slots: dict[bytes, int] = {}
        self._keys: list[bytes | None] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, key: bytes) -> bool:
        return key in self._slots

    @property
    def slots(self) -> int:
        return len(self._keys)

    @property
    def nbytes(self) -> int:
        """Bytes held, without the keys themselves."""
        tables = sys.getsizeof(self._slots) + sys.getsizeof(self._keys) + sys.getsizeof(self._free)
        return tables + len(self._keys) * _BYTES_PER_SLOT

    def add(self, key: bytes, row: Row) -> None:
        """Take in a vector under a key that is not there yet."""
        if self._free:
            slot = self._free.pop()
            self._keys[slot] = key
        else:
            slot = len(self._keys)
            self._keys.append(key)
        self._slots[key] = slot
        self._graph.add(slot, row, threads=1)

    def pop(self, key: bytes) -> Row | None:
        """Give a vector back; None where the key is not there."""
        slot = self._slots.pop(key, None)
        if slot is None:
            return None
        row = self._row(slot)
        self._graph.remove(slot)
        self._keys[slot] = None
        self._free.append(slot)
        return row

    def pop_any(self) -> tuple[bytes, Row]:
        """Give some vector back, the one that costs least."""
        key = next(reversed(self._slots))
        row = self.pop(key)
        assert row is not None
        return key, row

    def search(self, query: Floats, rounded: Row, count: int) -> list[Match]:
        """About the ``count`` nearest and some more, with their cosines, in no order; arguments as in ``FlatIndex``."""
        if not self._slots:
            return []
        slots = self._graph.search(rounded, count + _SPARE, threads=1).keys
        rows = np.array(self._graph.get(slots)).reshape(-1, DIMENSIONS).astype(np.float32)
        scores = (rows @ query) / np.sqrt(np.einsum("ij,ij->i", rows, rows))
        named = [(self._keys[slot], score) for slot, score in zip(slots.tolist(), scores.tolist(), strict=True)]
        return [(key, score) for key, score in named if key is not None]

    def _row(self, slot: int) -> Row:
        return np.asarray(self._graph.get(slot), dtype=np.int8).reshape(DIMENSIONS)
