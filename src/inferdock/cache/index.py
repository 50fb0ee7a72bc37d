"""The vectors of the semantic tier, searched in process: a ``VectorIndex`` per partition, all of them in ``IndexSet``.

A small partition is searched exactly. From some size on its vectors move into a graph, a few with each change, so that
no change and no search ever waits for one to be built; what the graph lacks is still searched exactly. On the way
down they move back the same way, and the graph's memory returns. All calls come from one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from inferdock.cache.flat_index import FlatIndex, Match
from inferdock.cache.graph_index import GraphIndex
from inferdock.cache.packing import Floats, pack, to_row, unit, unpack

__all__ = ["BORDER", "IndexSet", "Match", "VectorIndex", "pack", "unpack"]

BORDER: Final = 20_000
"""Vectors that are searched exactly in 0.5 ms, about what the graph takes for a hundred thousand."""

_MOVES: Final = 4
"""Vectors that move with one change: at most a millisecond."""
_OVERHEAD: Final = 400
"""Bytes of the objects around a partition's vectors, its place in the set included; measured."""


class VectorIndex:
    """One partition.

    Args:
        border: vectors from which on a graph is begun; it is given up again at half as many.
    """

    __slots__ = ("_border", "_flat", "_graph", "_leaving")

    def __init__(self, *, border: int = BORDER) -> None:
        self._border = border
        self._flat = FlatIndex()
        self._graph: GraphIndex | None = None
        self._leaving: GraphIndex | None = None

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts())

    def __contains__(self, key: bytes) -> bool:
        return any(key in part for part in self._parts())

    @property
    def nbytes(self) -> int:
        """Bytes held, without the keys themselves; the graph's share is an estimate."""
        return _OVERHEAD + sum(part.nbytes for part in self._parts())

    def add(self, key: bytes, vector: Floats | bytes) -> None:
        """Take a vector in; one that the key has already is replaced.

        Args:
            key: the entry's.
            vector: 384 numbers of which only the direction counts, or what ``pack`` made of them.

        Raises:
            ValueError: the vector is neither.
        """
        row = to_row(vector)
        self._pop(key)
        self._flat.add(key, row)
        self._move()

    def remove(self, key: bytes) -> bool:
        """Forget a vector; False where the key is not there."""
        found = self._pop(key)
        if found:
            self._move()
        return found

    def search(self, vector: Floats | bytes, count: int = 4) -> list[Match]:
        """The nearest keys with their cosines, best first; of equals the lower key first.

        The cosine is that of the query with the stored vector, which has been rounded to 8 bits.

        Raises:
            ValueError: see ``add``.
        """
        rounded = to_row(vector)
        query = unit(rounded) if isinstance(vector, bytes) else unit(np.asarray(vector, dtype=np.float32))
        matches = [match for part in self._parts() for match in part.search(query, rounded, count)]
        matches.sort(key=lambda match: (-match[1], match[0]))
        return [(key, max(-1.0, min(1.0, score))) for key, score in matches[:count]]

    def _parts(self) -> Iterator[FlatIndex | GraphIndex]:
        yield self._flat
        if self._graph is not None:
            yield self._graph
        if self._leaving is not None:
            yield self._leaving

    def _pop(self, key: bytes) -> bool:
        return any(part.pop(key) is not None for part in self._parts())

    def _move(self) -> None:
        """A few vectors go where they should be: from a graph that is too large, into one that is needed."""
        if self._graph is None and self._leaving is None and len(self._flat) <= self._border:
            return  # nearly always
        self._give_up_graph()
        if self._leaving is not None:
            for _ in range(min(_MOVES, len(self._leaving))):
                self._flat.add(*self._leaving.pop_any())
            if not self._leaving:
                self._leaving = None
        if self._graph is None and len(self._flat) > self._border:
            self._graph = GraphIndex()
        if self._graph is not None:
            for _ in range(min(_MOVES, len(self._flat))):
                self._graph.add(*self._flat.pop_any())

    def _give_up_graph(self) -> None:
        """Empty a graph where too few vectors are left for one, or where it has far more slots than vectors."""
        graph = self._graph
        if graph is None or self._leaving is not None:
            return
        small = len(graph) + len(self._flat) < self._border // 2
        if small or graph.slots > max(self._border, 4 * len(graph)):
            self._graph, self._leaving = None, graph


class IndexSet:
    """All partitions; one without vectors takes no memory.

    Args:
        border: see ``VectorIndex``.

    Attributes:
        nbytes: bytes held, without the keys themselves.
    """

    def __init__(self, *, border: int = BORDER) -> None:
        self._border = border
        self._partitions: dict[bytes, VectorIndex] = {}
        self._count = 0
        self.nbytes = 0

    def __len__(self) -> int:
        """Vectors in all partitions."""
        return self._count

    @property
    def partitions(self) -> int:
        """Partitions that hold anything."""
        return len(self._partitions)

    def size(self, partition: bytes) -> int:
        """Vectors in a partition."""
        index = self._partitions.get(partition)
        return len(index) if index is not None else 0

    def add(self, partition: bytes, key: bytes, vector: Floats | bytes) -> None:
        """Take a vector in; one that the key has in this partition already is replaced.

        Raises:
            ValueError: see ``VectorIndex.add``; nothing has changed then.
        """
        row = pack(vector) if not isinstance(vector, bytes) else vector
        to_row(row)
        index = self._partitions.get(partition)
        if index is None:
            index = self._partitions[partition] = VectorIndex(border=self._border)
            self.nbytes += index.nbytes
        size, held = len(index), index.nbytes
        index.add(key, row)
        self._count += len(index) - size
        self.nbytes += index.nbytes - held

    def remove(self, partition: bytes, key: bytes) -> bool:
        """Forget a vector; False where it is not there."""
        index = self._partitions.get(partition)
        if index is None:
            return False
        held = index.nbytes
        if not index.remove(key):
            return False
        self._count -= 1
        self.nbytes += index.nbytes - held
        if not len(index):
            self.drop(partition)
        return True

    def drop(self, partition: bytes) -> int:
        """Forget a whole partition; returns how many vectors it had."""
        index = self._partitions.pop(partition, None)
        if index is None:
            return 0
        self._count -= len(index)
        self.nbytes -= index.nbytes
        return len(index)

    def search(self, partition: bytes, vector: Floats | bytes, count: int = 4) -> list[Match]:
        """The nearest of one partition, see ``VectorIndex.search``; nothing where it is not known."""
        index = self._partitions.get(partition)
        return index.search(vector, count) if index is not None else []
