"""What the stores share: values that pass between them and the cache, and the seams between both.

``MemoryStore`` and ``RedisStore`` keep entries; :class:`Listener` is what a gateway process does with the news that
others put into Redis. Design and reasons: docs/decisions/0017-cache-stores.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import msgspec

from inferdock.cache.entry import Entry

VECTOR_BYTES: Final = 384
"""Length of one embedding: 384 signed bytes."""

_MARKS: Final = {"all": "g", "model": "m:", "tenant": "t:"}


@dataclass(frozen=True, slots=True)
class Scope:
    """Which entries a flush is for.

    Attributes:
        kind: all entries, or those of one model or tenant.
        name: of the model or tenant; "" for all.
    """

    kind: Literal["all", "model", "tenant"]
    name: str = ""

    def __post_init__(self) -> None:
        if (self.kind == "all") is not (self.name == ""):
            raise ValueError("a scope is all, or the name of a model or tenant")

    @property
    def tag(self) -> str:
        """The scope without its name, which Redis need not know: ``g``, or ``m:``, ``t:`` and 32 hex digits."""
        if self.kind == "all":
            return "g"
        digest = hashlib.sha256(self.name.encode("utf-8", "surrogatepass")).hexdigest()
        return _MARKS[self.kind] + digest[:32]


EVERYTHING: Final = Scope("all")


class Insert(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that somebody stored, as far as it is needed to find it by meaning.

    Attributes:
        key, partition, text, tenant, model, epoch: as in :class:`inferdock.cache.entry.Entry`.
        vector: :data:`VECTOR_BYTES` signed bytes.
        expires_at: seconds since 1970.
    """

    key: bytes
    partition: bytes
    text: str | None
    vector: bytes
    tenant: str
    model: str
    epoch: str
    expires_at: float


class Listener(Protocol):
    """Takes the news of the other gateway processes, in order, on the event loop. Each call takes microseconds."""

    def inserted(self, insert: Insert) -> None:
        """An entry can be found; the same one may be told more than once."""
        ...

    def removed(self, key: bytes) -> None:
        """This entry must not be served any more, wherever it came from; it may be unknown here."""
        ...

    def flushed(self, tag: str) -> None:
        """The epoch of :attr:`Scope.tag` has risen; entries of older ones are void, and may be dropped."""
        ...

    def reset(self) -> None:
        """News were missed for good, removals perhaps among them: forget all vectors and all entries in memory.

        ``inserted`` follows for all that Redis still knows, this process's own entries too.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedStats:
    """What Redis says about itself, and how this process got on with it.

    Attributes:
        used_memory_bytes: of the whole Redis.
        keys: in its database, ours and others'.
        log_entries: inserts and invalidations that are kept for gateways that start.
        breaker: ``closed``, ``open`` or ``half-open``.
        counts: events since the start, by name.
    """

    used_memory_bytes: int
    keys: int
    log_entries: int
    breaker: str
    counts: Mapping[str, int]


class SharedStore(Protocol):
    """A store that several gateway processes use. No method ever raises for trouble with the store."""

    async def get(self, key: bytes, partition: bytes | None = None) -> Entry | None:
        """The entry, if it is there, valid, and of that partition (None: of any)."""
        ...

    async def put(self, entry: Entry, vector: bytes | None = None) -> bool:
        """Keep an entry until it expires; False where it is not known to be kept."""
        ...

    async def remove(self, key: bytes) -> bool:
        """Drop an entry everywhere; False where others may not have heard of it."""
        ...

    async def flush(self, scope: Scope) -> bool:
        """Make all entries of a scope void, here at once; False where others will hear of it later."""
        ...

    async def stats(self) -> SharedStats | None:
        """Figures; None where the store does not answer."""
        ...
