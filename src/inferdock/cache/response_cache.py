"""The cache of one gateway process: memory first, then Redis, then what means the same.

Put together by ``app``; asked by ``gateway.caching``. Nothing in here fails a request: a store that is slow, broken or
poisoned is a miss, and says so in the log and in the figures.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from inferdock.cache.audit import Audit, Rules, size_class
from inferdock.cache.entry import Entry
from inferdock.cache.epochs import Epochs
from inferdock.cache.match import Found, Limits, Match, Question
from inferdock.cache.memory_store import MemoryStore
from inferdock.cache.store import EVERYTHING, Insert, Listener, Scope, SharedStore
from inferdock.domain.errors import ConfigError
from inferdock.telemetry.logs import EventLog

_VOID_TRIES = 4
"""Void entries that one look-up passes by."""


class Tier(Protocol):
    """Finds what means the same (``semantic_tier.SemanticTier``)."""

    state: str
    problem: str

    @property
    def ready(self) -> bool: ...
    @property
    def fast_tokens(self) -> int: ...
    def __len__(self) -> int: ...
    async def start(self) -> None: ...
    def close(self) -> None: ...
    def has(self, partition: bytes) -> bool: ...
    async def look(self, partition: bytes, text: str, limits: Limits) -> Match: ...
    async def vector_of(self, text: str) -> bytes | None: ...
    def insert(self, partition: bytes, key: bytes, text: str, vector: bytes | None, expires_at: float) -> None: ...
    def remove(self, key: bytes) -> None: ...
    def clear(self) -> None: ...
    async def room(self) -> None: ...
    async def similarity(self, one: str, other: str) -> float | None: ...


class Remote(SharedStore, Protocol):
    """Entries that all gateways share (``redis_store.RedisStore``)."""

    @property
    def up(self) -> bool:
        """It is worth asking."""

    async def close(self) -> None:
        """Let its connections go."""


class News(Protocol):
    """Tells a ``store.Listener`` what others put into the shared store (``redis_sync.RedisSync``)."""

    connected: bool
    synced: bool

    async def run(self) -> None:
        """Until cancelled."""


class Closing(Protocol):
    """What is to be closed before the store."""

    async def close(self) -> None: ...


class Hearer(Listener, Protocol):
    """Who is told the news, and says how fast."""

    async def breathe(self) -> None:
        """Awaited between two batches."""


@dataclass(frozen=True, slots=True)
class Shared:
    """All that a gateway shares with others through Redis.

    Attributes:
        store: entries.
        news: keeps this process's vectors and flushes current.
        flights: one generation for all (``gateway.caching.sharing.Flights``).
        leader_lost: what ``flights`` raise when a leader is gone.
        outcomes: commands by how they ended.
    """

    store: Remote
    news: News
    flights: Any
    leader_lost: type[Exception]
    outcomes: Callable[[], Mapping[str, int]]


class ResponseCache:
    """See the module's first lines.

    Attributes:
        epochs: of flushes.
        memory: this process's entries.
        tier: None where only equal requests hit.
        shared: None without Redis.
        looked: told how long a look-up took, by tier.
    """

    def __init__(
        self,
        *,
        memory: MemoryStore,
        epochs: Epochs,
        tier: Tier | None,
        shared: Callable[[Hearer], Shared] | None,
        fingerprint: str,
        log: EventLog,
        wall_clock: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``fingerprint``: of the embedding model, known before it is loaded; "" without one.

        ``shared``: connects with Redis; its argument hears of what others put there.
        """
        self.memory = memory
        self.epochs = epochs
        self.tier = tier
        self.shared = shared(_Hearer(self)) if shared is not None else None
        self.fingerprint = fingerprint
        self._log = log
        self._wall = wall_clock
        self._clock = clock
        self._audits: dict[float, Audit] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.looked: Callable[[str, float], None] = lambda tier, seconds: None

    # -- Life ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Load the embedding model in the background."""
        if self.tier is not None:
            self._go_on(self._load(self.tier))
        if self.shared is not None:
            self._go_on(self.shared.news.run())

    async def _load(self, tier: Tier) -> None:
        try:
            await tier.start()
        except ConfigError as exc:
            self._log.event("error", "semantic cache is off, only equal requests hit", reason=str(exc))
        except Exception as exc:
            self._log.event("error", "semantic cache is off, only equal requests hit", reason=repr(exc)[:500])
        else:
            self._log.event("info", "semantic cache ready", max_tokens=tier.fast_tokens)

    async def close(self) -> None:
        """End everything that goes on."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.tier is not None:
            self.tier.close()
        if self.shared is not None:
            await self.shared.flights.close()
            await self.shared.store.close()

    def _go_on(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # -- Look-ups --------------------------------------------------------------------------------------------

    def epoch(self, tenant: str, model: str) -> str:
        """Of the flushes that count for entries of this tenant and model."""
        return self.epochs.of(tenant, model)

    def get(self, key: bytes) -> Entry | None:
        """An answer to this very request, from memory."""
        return self.memory.get(key)

    def must_look(self, question: Question) -> bool:
        """:meth:`find` may find something that :meth:`get` has not."""
        if self.shared is not None and self.shared.store.up:
            return True
        tier = self.tier
        return question.text is not None and tier is not None and tier.ready and tier.has(question.partition)

    async def find(self, question: Question) -> Found:
        """What Redis has, then what means the same."""
        if self.shared is not None:
            began = self._clock()
            entry = await self.fetch(question.key)
            self.looked("redis", self._clock() - began)
            if entry is not None:
                return Found(entry, "exact", 1.0)
        if question.text is None or self.tier is None or not self.tier.ready:
            return Found()
        return await self._similar(question, question.text, self.tier)

    async def _similar(self, question: Question, text: str, tier: Tier) -> Found:
        """What means the same; an entry that is void by now is forgotten, and the next nearest is asked for."""
        began = self._clock()
        for _ in range(_VOID_TRIES):
            match = await tier.look(question.partition, text, self.limits(question))
            if match.key is None:
                break
            entry = self.memory.get(match.key, question.partition) or await self.fetch(match.key, question.partition)
            if entry is not None:
                self.looked("semantic", self._clock() - began)
                return Found(entry, "semantic", match.score, match)
            tier.remove(match.key)
        self.looked("semantic", self._clock() - began)
        return Found(match=match)

    async def fetch(self, key: bytes, partition: bytes | None = None) -> Entry | None:
        """A valid entry from Redis, which memory has from now on."""
        entry = await self.shared.store.get(key, partition) if self.shared is not None else None
        if entry is not None:
            self.memory.put(entry)
        return entry

    def limits(self, question: Question) -> Limits:
        """What similarity must reach, with what the audit has to say about it."""
        audit, now = self.audit(question.wrong_bound), self._clock()

        def tightened(entries: int, threshold: float) -> float | None:
            action = audit.action(question.model, size_class(entries), question.partition, now)
            return None if action.kind == "exact" else action.threshold(threshold)

        return Limits(question.threshold, tightened)

    def audit(self, bound: float) -> Audit:
        """The counts of wrong hits under this bound."""
        audit = self._audits.get(bound)
        if audit is None:
            audit = self._audits[bound] = Audit(Rules(bound=bound))
        return audit

    @property
    def audits(self) -> list[Audit]:
        """All that there are."""
        return list(self._audits.values())

    def size(self) -> tuple[int, int, int]:
        """Entries in memory, their bytes, and messages to compare with."""
        return len(self.memory), self.memory.nbytes, len(self.tier) if self.tier is not None else 0

    # -- Entries ---------------------------------------------------------------------------------------------

    def put(self, entry: Entry, vector: bytes | None) -> asyncio.Task[None] | None:
        """Keep an answer; ``vector`` of its text, None where none was made.

        Returns:
            what gives it to Redis; None without one.
        """
        self.memory.put(entry)
        tier = self.tier if entry.text is not None and self.tier is not None and self.tier.ready else None
        if self.shared is not None:
            return self._go_on(self._share(entry, vector, tier, self.shared.store))
        if tier is not None and entry.text is not None:
            tier.insert(entry.partition, entry.key, entry.text, vector, entry.expires_at)
        return None

    async def _share(self, entry: Entry, vector: bytes | None, tier: Tier | None, store: Remote) -> None:
        if tier is not None and entry.text is not None:
            vector = vector or await tier.vector_of(entry.text)
            if vector is not None:
                tier.insert(entry.partition, entry.key, entry.text, vector, entry.expires_at)
        await store.put(entry, vector)

    def dropped(self, entry: Entry) -> None:
        """Memory has dropped an entry; without Redis it is nowhere else."""
        if self.shared is None and self.tier is not None and entry.text is not None:
            self.tier.remove(entry.key)

    async def evict(self, key: bytes) -> bool:
        """Drop one entry everywhere; False when it was nowhere."""
        entry = self.memory.remove(key)
        if self.tier is not None:
            self.tier.remove(key)
        there = await self.shared.store.remove(key) if self.shared is not None else False
        return entry is not None or there

    async def flush(self, scope: Scope) -> None:
        """Make all entries of a scope void, here at once, and at all who share the store."""
        if self.shared is not None:
            await self.shared.store.flush(scope)
        else:
            self.epochs.bump(scope)
        self.flushed(scope.tag)

    def flushed(self, tag: str) -> None:
        """Give back the memory of what is void since the epoch of a scope has risen."""
        self.memory.flush()
        if self.tier is not None and tag == EVERYTHING.tag:
            self.tier.clear()

    @property
    def flights(self) -> Any:
        """Of all processes; None while there is nobody to share with."""
        return self.shared.flights if self.shared is not None and self.shared.store.up else None

    @property
    def leader_lost(self) -> type[Exception]:
        """What :attr:`flights` raise when a leader is gone."""
        return self.shared.leader_lost if self.shared is not None else LookupError

    def store_failures(self) -> int:
        """Commands to Redis that failed or came too late."""
        if self.shared is None:
            return 0
        outcomes = self.shared.outcomes()
        return sum(count for outcome, count in outcomes.items() if outcome != "ok")

    async def shared_stats(self) -> dict[str, object] | None:
        """What Redis says about itself; None without one."""
        if self.shared is None:
            return None
        stats = await self.shared.store.stats()
        news: dict[str, object] = {"connected": self.shared.news.connected, "synced": self.shared.news.synced}
        return news if stats is None else {**news, **asdict(stats), "counts": dict(stats.counts)}


class _Hearer:
    """What this process does with the news of others; a ``store.Listener``."""

    def __init__(self, cache: ResponseCache) -> None:
        self._cache = cache

    def inserted(self, insert: Insert) -> None:
        tier = self._cache.tier
        valid = insert.epoch == self._cache.epoch(insert.tenant, insert.model)
        if tier is not None and insert.text is not None and valid:
            tier.insert(insert.partition, insert.key, insert.text, insert.vector, insert.expires_at)

    async def breathe(self) -> None:
        """Between batches of news: let others work, and let the tier's thread come along."""
        await asyncio.sleep(0)
        if self._cache.tier is not None:
            await self._cache.tier.room()

    def removed(self, key: bytes) -> None:
        self._cache.memory.remove(key)
        if self._cache.tier is not None:
            self._cache.tier.remove(key)

    def flushed(self, tag: str) -> None:
        self._cache.flushed(tag)

    def reset(self) -> None:
        self._cache.memory.clear()
        if self._cache.tier is not None:
            self._cache.tier.clear()
