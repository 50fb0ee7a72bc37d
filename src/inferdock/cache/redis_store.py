"""Entries in a Redis that gateways share (version 7, no modules). Slow, down or full of rubbish, it is just empty.

Look-ups of one moment go out as one command. Each call has the link's budget; none raises for trouble with Redis.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

from inferdock.cache.codec import Damaged, Plain, Seal, Unstorable, decode_entry, encode_entry, encode_insert
from inferdock.cache.entry import Entry
from inferdock.cache.epochs import Epochs
from inferdock.cache.redis_client import Command
from inferdock.cache.redis_epochs import RedisEpochs
from inferdock.cache.redis_link import RedisLink
from inferdock.cache.redis_names import (
    BODY,
    ENTRY_CONTEXT,
    INSERT_CONTEXT,
    INSERTED,
    KEY,
    ORIGIN,
    REMOVED,
    TYPE,
    Names,
)
from inferdock.cache.store import Scope, SharedStats

NAMESPACE: Final = "inferdock:cache:1"
MAX_LOG: Final = 1_000_000
MAX_BATCH: Final = 64
"""Look-ups in one command."""
_TRIM_EVERY: Final = 256
_PLAIN: Final = Plain()


class RedisStore:
    """A :class:`inferdock.cache.store.SharedStore`.

    Args:
        link: to Redis; shared with :class:`RedisFlights`.
        epochs: of this process.
        clock: seconds since 1970; Redis and all gateways should agree on it to a second.
        origin: of this process, on its events in the log; the same as :class:`RedisSync` has.
        namespace: beginning of all keys.
        seal: how values are encrypted.
        max_log: events in the log, about.
        log_age_s: age from which events may leave the log; the longest life of an entry. None: none leaves for its age.

    Attributes:
        counts: what happened, by name: ``hits``, ``misses``, ``expired``, ``flushed``, ``foreign`` (another key or
            partition), ``damaged``, ``puts``, ``unstorable``.
    """

    def __init__(
        self,
        link: RedisLink,
        *,
        epochs: Epochs,
        clock: Callable[[], float],
        origin: str,
        namespace: str = NAMESPACE,
        seal: Seal = _PLAIN,
        max_log: int = MAX_LOG,
        log_age_s: float | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._link = link
        self._epochs = epochs
        self._clock = clock
        self._origin = origin
        self._names = Names(namespace)
        self._seal = seal
        self._max_log = max_log
        self._log_age_s = log_age_s
        self._exchange = RedisEpochs(self._names, epochs, origin=origin, max_log=max_log)
        self._asked: dict[bytes, list[asyncio.Future[bytes | None]]] = {}
        self._batches: set[asyncio.Task[None]] = set()

    @property
    def up(self) -> bool:
        """It is worth asking."""
        return self._link.up

    async def close(self) -> None:
        """Let the link's connections go."""
        await self._link.close()

    async def get(self, key: bytes, partition: bytes | None = None) -> Entry | None:
        """The entry, if it is there, valid, and of that partition (None: of any)."""
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_soon(self._ask)
        answer: asyncio.Future[bytes | None] = loop.create_future()
        self._asked.setdefault(key, []).append(answer)
        data = await answer
        if data is None:
            self.counts["misses"] += 1
            return None
        return self._checked(data, key, partition)

    async def put(self, entry: Entry, vector: bytes | None = None) -> bool:
        """Keep an entry until it expires; with a vector, tell others how to find it by meaning.

        Returns:
            False where it is not known to be kept: void already, too large, or Redis did not answer in time.
        """
        if entry.expires_at <= self._clock() or not self._epochs.holds(entry):
            return False
        try:
            commands = self.commands(entry, vector)
        except Unstorable:
            self.counts["unstorable"] += 1
            return False
        self.counts["puts"] += 1
        if self._log_age_s is not None and self.counts["puts"] % _TRIM_EVERY == 0:
            oldest = int((self._clock() - self._log_age_s) * 1000)
            commands.append(("XTRIM", self._names.log, "MINID", "~", max(oldest, 0)))
        return await self._link.run(lambda client: client.execute_all(commands)) is not None

    async def remove(self, key: bytes) -> bool:
        """Drop an entry here and tell others; False where they may not have heard of it."""
        fields = (TYPE, REMOVED, ORIGIN, self._origin, KEY, key)
        commands: list[Command] = [("DEL", self._names.entry(key)), self._event(fields)]
        return await self._link.run(lambda client: client.execute_all(commands)) is not None

    async def flush(self, scope: Scope) -> bool:
        """Make all entries of a scope void: here at once, elsewhere as soon as Redis can tell.

        Returns:
            False where Redis did not take it in time; :class:`RedisSync` then tells it later.
        """
        self._epochs.bump(scope)
        now = self._clock()
        return await self._link.run(lambda client: self._exchange.exchange(client, now)) is not None

    async def stats(self) -> SharedStats | None:
        """Figures; None where Redis does not answer in time."""
        commands: list[Command] = [("INFO", "memory"), ("DBSIZE",), ("XLEN", self._names.log)]
        reply = await self._link.run(lambda client: client.execute_all(commands))
        if reply is None:
            return None
        info, keys, log_entries = reply
        lines = dict(line.split(b":", 1) for line in info.splitlines() if b":" in line)
        return SharedStats(
            used_memory_bytes=int(lines.get(b"used_memory", b"0")),
            keys=keys,
            log_entries=log_entries,
            breaker=self._link.breaker.state,
            counts={**self.counts, **self._link.outcomes},
        )

    def commands(self, entry: Entry, vector: bytes | None) -> list[Command]:
        """The commands that keep an entry.

        Raises:
            Unstorable: it has no encoded form.
        """
        value = self._seal.seal(encode_entry(entry), ENTRY_CONTEXT + entry.key)
        commands: list[Command] = [("SET", self._names.entry(entry.key), value, "PXAT", int(entry.expires_at * 1000))]
        if vector is not None:
            body = self._seal.seal(encode_insert(entry, vector), INSERT_CONTEXT + entry.key)
            commands.append(self._event((TYPE, INSERTED, ORIGIN, self._origin, KEY, entry.key, BODY, body)))
        return commands

    def _event(self, fields: tuple[bytes | str, ...]) -> Command:
        return ("XADD", self._names.log, "MAXLEN", "~", self._max_log, "*", *fields)

    def _ask(self) -> None:
        """Send the look-ups of this turn of the event loop."""
        asked, self._asked = list(self._asked.items()), {}
        for start in range(0, len(asked), MAX_BATCH):
            task = asyncio.ensure_future(self._fetch(asked[start : start + MAX_BATCH]))
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)

    async def _fetch(self, asked: list[tuple[bytes, list[asyncio.Future[bytes | None]]]]) -> None:
        names = [self._names.entry(key) for key, _ in asked]
        found: list[bytes | None] | None = None
        try:
            found = await self._link.run(lambda client: client.execute("MGET", *names))
        finally:
            values = found if found is not None and len(found) == len(asked) else [None] * len(asked)
            for (_, answers), value in zip(asked, values, strict=True):
                for answer in answers:
                    if not answer.done():
                        answer.set_result(value)

    def _checked(self, data: bytes, key: bytes, partition: bytes | None) -> Entry | None:
        try:
            entry = decode_entry(self._seal.open(data, ENTRY_CONTEXT + key))
        except Damaged:
            self.counts["damaged"] += 1
            return None
        if entry.key != key or (partition is not None and entry.partition != partition):
            self.counts["foreign"] += 1
        elif entry.expires_at <= self._clock():
            self.counts["expired"] += 1
        elif not self._epochs.holds(entry):
            self.counts["flushed"] += 1
        else:
            self.counts["hits"] += 1
            return entry
        return None
