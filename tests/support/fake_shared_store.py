"""A shared store without Redis: entries in a dictionary, and trouble when the test wants it."""

from __future__ import annotations

from collections.abc import Callable

from inferdock.cache.entry import Entry
from inferdock.cache.epochs import Epochs
from inferdock.cache.store import Scope, SharedStats


class FakeSharedStore:
    """Behaves as ``RedisStore`` does (the contract suite runs on both).

    Attributes:
        up: whether it can be reached; else every call does what it does when Redis is down.
        vectors: those that were put, by key.
    """

    def __init__(self, *, epochs: Epochs, clock: Callable[[], float]) -> None:
        self.up = True
        self.vectors: dict[bytes, bytes] = {}
        self._entries: dict[bytes, Entry] = {}
        self._epochs = epochs
        self._clock = clock

    async def get(self, key: bytes, partition: bytes | None = None) -> Entry | None:
        entry = self._entries.get(key) if self.up else None
        if entry is None or entry.expires_at <= self._clock() or not self._epochs.holds(entry):
            return None
        return entry if partition is None or entry.partition == partition else None

    async def put(self, entry: Entry, vector: bytes | None = None) -> bool:
        if not self.up or entry.expires_at <= self._clock() or not self._epochs.holds(entry):
            return False
        self._entries[entry.key] = entry
        if vector is not None:
            self.vectors[entry.key] = vector
        return True

    async def remove(self, key: bytes) -> bool:
        if self.up:
            self._entries.pop(key, None)
        return self.up

    async def flush(self, scope: Scope) -> bool:
        self._epochs.bump(scope)
        return self.up

    async def stats(self) -> SharedStats | None:
        if not self.up:
            return None
        return SharedStats(used_memory_bytes=0, keys=len(self._entries), log_entries=0, breaker="closed", counts={})

    async def close(self) -> None:
        """Nothing to let go."""
