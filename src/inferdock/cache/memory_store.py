"""Entries in this process: bounded in bytes and number, least recently used out first. One thread; nothing waits.

The life of an entry ends at its moment and is never renewed by hits. Expired and flushed entries are invisible at
once; their memory is given back little by little, so that no call takes long.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Final, Literal

from inferdock.cache.entry import Entry
from inferdock.cache.epochs import Epochs

Reason = Literal["size", "expired", "flushed", "evicted"]

_OVERHEAD: Final = 920
"""Bytes of an entry besides its texts: its structs, keys, numbers, names and places in dictionaries (measured)."""
_SWEEP_WITH_PUT: Final = 4


def _forget(entry: Entry) -> None:
    """Nobody wants to know."""


class MemoryStore:
    """Entries by key.

    Args:
        max_bytes: for all entries, by :func:`size_of`.
        max_entries: how many at most.
        clock: seconds since 1970.
        epochs: which entries are valid.
        on_drop: told of each entry that is gone, unless another one of the same key took its place.

    Attributes:
        evictions: entries that went, or (``size``) never came in for being larger than ``max_bytes``, by reason.
        nbytes: memory of the entries, an estimate.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        max_entries: int,
        clock: Callable[[], float],
        epochs: Epochs,
        on_drop: Callable[[Entry], None] = _forget,
    ) -> None:
        self.evictions: dict[Reason, int] = {"size": 0, "expired": 0, "flushed": 0, "evicted": 0}
        self.nbytes = 0
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._clock = clock
        self._epochs = epochs
        self._on_drop = on_drop
        self._entries: OrderedDict[bytes, tuple[Entry, int]] = OrderedDict()
        self._ends: dict[int, set[bytes]] = {}  # keys by the whole second in which they expire
        self._swept_to = int(clock())
        self._suspects: deque[bytes] = deque()

    def __len__(self) -> int:
        """Entries in memory, a few invisible ones perhaps among them."""
        return len(self._entries)

    def get(self, key: bytes, partition: bytes | None = None) -> Entry | None:
        """The entry, if it is valid, and of that partition (None: of any)."""
        held = self._entries.get(key)
        if held is None:
            return None
        entry = held[0]
        reason = self._why_not(entry)
        if reason is not None:
            self._drop(key, reason)
            return None
        if partition is not None and entry.partition != partition:
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, entry: Entry) -> bool:
        """Keep an entry in place of any other of its key; False if it is void already, or too large."""
        reason: Reason | None = self._why_not(entry)
        size = size_of(entry)
        if reason is None and size > self._max_bytes:
            reason = "size"
        if reason is not None:
            self.evictions[reason] += 1
            return False
        self.sweep(_SWEEP_WITH_PUT)
        self._take_out(entry.key)
        self._entries[entry.key] = entry, size
        self.nbytes += size
        second = int(entry.expires_at)
        self._ends.setdefault(second, set()).add(entry.key)
        self._swept_to = min(self._swept_to, second)
        while self.nbytes > self._max_bytes or len(self._entries) > self._max_entries:
            self._drop(next(iter(self._entries)), "evicted")
        return True

    def remove(self, key: bytes) -> Entry | None:
        """Take an entry out; returns it, valid or not."""
        entry = self._take_out(key)
        if entry is not None:
            self._on_drop(entry)
        return entry

    def entries(self) -> Iterator[Entry]:
        """All valid entries, the least recently used first; not to be changed meanwhile."""
        return (entry for entry, _ in self._entries.values() if self._why_not(entry) is None)

    def flush(self, limit: int = 1000) -> int:
        """Give back the memory of entries whose epoch has passed; call it after the epochs have changed.

        At most ``limit`` entries are looked at now, the rest by later sweeps.

        Returns:
            How many went now.
        """
        before = self.evictions["flushed"]
        self._suspects = deque(self._entries)
        self._sweep_suspects(limit)
        return self.evictions["flushed"] - before

    def clear(self) -> None:
        """Drop everything, without counting it."""
        for key in list(self._entries):
            self.remove(key)

    def sweep(self, limit: int = 256) -> int:
        """Give back the memory of at most ``limit`` void entries; returns how many went.

        Takes some microseconds an entry. ``put`` calls it too; who stores nothing for long calls it now and then.
        """
        before = len(self._entries)
        self._sweep_suspects(limit)
        self._sweep_expired(limit - (before - len(self._entries)))
        return before - len(self._entries)

    def _sweep_suspects(self, limit: int) -> None:
        for _ in range(min(limit, len(self._suspects))):
            key = self._suspects.popleft()
            held = self._entries.get(key)
            if held is not None and (reason := self._why_not(held[0])) is not None:
                self._drop(key, reason)

    def _sweep_expired(self, limit: int) -> None:
        now = int(self._clock())
        # Seconds without entries cost a look each; after a long sleep they too are taken in portions.
        for _ in range(limit + 1000):
            if self._swept_to >= now or limit <= 0:
                return
            keys = self._ends.get(self._swept_to)
            if not keys:
                self._swept_to += 1
                continue
            self._drop(next(iter(keys)), "expired")
            limit -= 1

    def _why_not(self, entry: Entry) -> Literal["expired", "flushed"] | None:
        if entry.expires_at <= self._clock():
            return "expired"
        return None if self._epochs.holds(entry) else "flushed"

    def _drop(self, key: bytes, reason: Reason) -> None:
        self.evictions[reason] += 1
        self.remove(key)

    def _take_out(self, key: bytes) -> Entry | None:
        held = self._entries.pop(key, None)
        if held is None:
            return None
        entry, size = held
        self.nbytes -= size
        second = int(entry.expires_at)
        keys = self._ends[second]
        keys.discard(key)
        if not keys:
            del self._ends[second]
        return entry


def size_of(entry: Entry) -> int:
    """Memory that an entry takes with its places in the store, in bytes."""
    answer = entry.answer
    return _OVERHEAD + sum(
        sys.getsizeof(text) for text in (entry.text, answer.text, answer.reasoning, answer.stop_reason) if text
    )
