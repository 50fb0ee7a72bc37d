"""A real Redis for each test, and gateway processes' parts that use it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

from inferdock.cache.entry import Entry
from inferdock.cache.epochs import Epochs
from inferdock.cache.redis_address import redis_address
from inferdock.cache.redis_flights import RedisFlights
from inferdock.cache.redis_link import RedisLink
from inferdock.cache.redis_store import RedisStore
from inferdock.cache.redis_sync import RedisSync
from inferdock.cache.store import Insert
from inferdock.telemetry.logs import EventLog
from tests.support.cache_values import entry

_NUMBERS = itertools.count()


class Heard:
    """A listener that remembers what it was told."""

    def __init__(self) -> None:
        self.inserts: dict[bytes, Insert] = {}
        self.told: list[tuple[str, bytes | str]] = []

    def inserted(self, insert: Insert) -> None:
        self.inserts[insert.key] = insert
        self.told.append(("inserted", insert.key))

    def removed(self, key: bytes) -> None:
        self.inserts.pop(key, None)
        self.told.append(("removed", key))

    def flushed(self, tag: str) -> None:
        self.told.append(("flushed", tag))

    def reset(self) -> None:
        self.inserts.clear()
        self.told.append(("reset", ""))


class Gateway:
    """The parts of one gateway process that have to do with Redis."""

    def __init__(self, url: str, *, budget_s: float = 0.02, password: str | None = None, **options: Any) -> None:
        self.lines = bytearray()
        log = EventLog(self.lines.extend)
        address = redis_address(url, password)
        origin = f"gateway-{next(_NUMBERS)}"
        self.epochs = Epochs(time.time)
        self.heard = Heard()
        self.log = log
        self.link = RedisLink(address, log=log, budget_s=budget_s)
        self.flights = RedisFlights(self.link, **{name: options[name] for name in ("seal",) if name in options})
        self.store = RedisStore(self.link, epochs=self.epochs, clock=time.time, origin=origin, **options)
        options.pop("log_age_s", None)
        self.sync = RedisSync(
            address, epochs=self.epochs, listener=self.heard, clock=time.time, log=log, origin=origin, **options
        )
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the log until it is known."""
        self._task = asyncio.ensure_future(self.sync.run())
        await until(lambda: self.sync.synced)

    def entry(self, word: str = "zinc", *, ttl_s: float = 60.0, **changes: Any) -> Entry:
        """An entry of the present epoch."""
        epoch = self.epochs.of(changes.get("tenant", "tenant-one"), "m")
        return entry(word, **({"now": time.time(), "ttl_s": ttl_s, "epoch": epoch} | changes))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        await self.flights.close()
        await self.link.close()


async def until(condition: Callable[[], bool], within_s: float = 15.0) -> None:
    """Wait for something that happens elsewhere."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.01)
