"""Keeps this process's vectors and flushes as the log in Redis has them: all of it at the start, then as it grows.

One task, one connection of its own. Where it stands in the log is remembered over lost connections. Where Redis has
lost its data, or is another one, the log is read again from its beginning, and nothing is forgotten. Where the log was
cut before we had read it, removals may have been missed, so the listener forgets everything first.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

from redis.exceptions import ResponseError

from inferdock.cache.codec import Damaged, Plain, Seal, decode_insert
from inferdock.cache.epochs import Epochs
from inferdock.cache.redis_address import RedisAddress
from inferdock.cache.redis_client import RedisClient
from inferdock.cache.redis_epochs import RedisEpochs, number_of
from inferdock.cache.redis_link import failure_reason
from inferdock.cache.redis_names import (
    BODY,
    FLUSHED,
    INSERT_CONTEXT,
    INSERTED,
    KEY,
    NUMBER,
    ORIGIN,
    REMOVED,
    TAG,
    TYPE,
    Names,
    fields_of,
)
from inferdock.cache.redis_store import MAX_LOG, NAMESPACE
from inferdock.cache.store import Listener
from inferdock.telemetry.logs import EventLog

BATCH: Final = 128
"""Events between two turns of the event loop: a millisecond or so."""
BLOCK_S: Final = 1.0
"""Longest wait for news in one command; between two of them flushes that Redis missed are given to it."""
REPLY_TIMEOUT_S: Final = BLOCK_S + 2.0
WAITS_S: Final = (0.1, 5.0)
"""First and longest wait before connecting again."""

Id = tuple[int, int]
START: Final[Id] = (0, 0)
_PLAIN: Final = Plain()


class RedisSync:
    """Reads the log into a listener until cancelled.

    Args:
        address: where Redis is.
        epochs: of this process; merged with those in Redis.
        listener: told everything, on the event loop.
        clock: seconds since 1970.
        origin: whose events are known already: those of the ``RedisStore`` with the same one.
        namespace, seal, max_log: as in ``RedisStore``.
        breathe: awaited between two batches of news: other work of the event loop, and the listener's pace.

    Attributes:
        synced: everything that was in the log when it was first read has been told.
        connected: the log can be read at present.
        progress: events told, and how many there were, of the present reading from the beginning.
        counts: events by what became of them: ``inserted``, ``removed``, ``flushed``, ``own``, ``expired``,
            ``poisoned``; and ``reconnects``, ``rereads``, ``resets``.
    """

    def __init__(
        self,
        address: RedisAddress,
        *,
        epochs: Epochs,
        listener: Listener,
        clock: Callable[[], float],
        log: EventLog,
        origin: str,
        namespace: str = NAMESPACE,
        seal: Seal = _PLAIN,
        max_log: int = MAX_LOG,
        breathe: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0),
    ) -> None:
        self.synced = False
        self.connected = False
        self.progress = (0, 0)
        self.counts: Counter[str] = Counter()
        self._address = address
        self._epochs = epochs
        self._listener = listener
        self._clock = clock
        self._log = log
        self._origin = origin.encode()
        self._names = Names(namespace)
        self._seal = seal
        self._exchange = RedisEpochs(self._names, epochs, origin=origin, max_log=max_log)
        self._breathe = breathe
        self._last = START
        self._target = START
        self._own_until = START
        self._server = b""
        self._problem = ""

    async def run(self) -> None:
        """Read until cancelled; trouble with Redis is logged once, and ends by itself."""
        wait_s = WAITS_S[0]
        while True:
            client = self._address.client(connections=1, timeout_s=REPLY_TIMEOUT_S)
            try:
                await self._begin(client)
                wait_s = WAITS_S[0]
                await self._follow(client)
            except asyncio.CancelledError:
                raise
            except Exception as exc:  # also what a broken reply leads to: this task must outlive it
                self._lost(exc)
            finally:
                await client.close()
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, WAITS_S[1])

    async def _begin(self, client: RedisClient) -> None:
        """Exchange flushes, and find the place in the log to go on from."""
        self._told(await self._exchange.exchange(client, self._clock(), everything=True))
        server = _field(await client.execute("INFO", "server"), b"run_id")
        first, newest, length = await self._ends(client)
        if self._last != START and (server != self._server or newest < self._last):
            self._start_over("rereads", newest)
        elif self._last != START and newest != self._last and first > self._last:
            self._start_over("resets", newest)
            self._listener.reset()
        self._server = server
        if self._last == START:
            self._target, self.progress = newest, (0, length)
        self.synced = self.synced or self._last >= self._target
        if not self.connected and self._problem:
            self._log.event("info", "cache log is read again", redis=self._address.shown)
        self.connected, self._problem = True, ""

    def _start_over(self, name: str, newest: Id) -> None:
        """Read from the beginning; own events too, because what precedes them is told again."""
        self.counts[name] += 1
        self._last, self._own_until = START, newest

    async def _follow(self, client: RedisClient) -> None:
        """Tell what the log says, first what is there, then what comes."""
        while True:
            loading = self._last < self._target
            events = await self._read(client)
            for event_id, fields in events:
                self._last = event_id
                self._take(event_id, fields)
            if loading:
                self.progress = (self.progress[0] + len(events), max(self.progress[1], self.progress[0] + len(events)))
            if not self.synced and (not events or self._last >= self._target):
                self._arrived()
            if self._epochs.unspread():
                self._told(await self._exchange.exchange(client, self._clock()))
            if not events and (newest := (await self._ends(client))[1]) < self._last:
                self._start_over("rereads", newest)  # the log was deleted, and time stands behind its old end
            await self._breathe()

    def _arrived(self) -> None:
        self.synced = True
        self._log.event("info", "cache log is read", events=self.progress[0])

    async def _read(self, client: RedisClient) -> list[tuple[Id, list[bytes]]]:
        place = f"{self._last[0]}-{self._last[1]}"
        block_ms = int(BLOCK_S * 1000)
        reply = await client.execute("XREAD", "COUNT", BATCH, "BLOCK", block_ms, "STREAMS", self._names.log, place)
        return [] if not reply else [(_id(event_id), fields) for event_id, fields in reply[0][1]]

    async def _ends(self, client: RedisClient) -> tuple[Id, Id, int]:
        """Ids of the first and of the newest event there has been, and how many there are now."""
        try:
            reply = await client.execute("XINFO", "STREAM", self._names.log)
        except ResponseError as exc:
            if "no such key" not in str(exc):
                raise
            return START, START, 0
        facts: dict[bytes, Any] = fields_of(reply)
        first = facts.get(b"first-entry")
        newest = _id(facts[b"last-generated-id"])
        return (_id(first[0]) if first else newest), newest, int(facts[b"length"])

    def _take(self, event_id: Id, flat: list[bytes]) -> None:
        fields = fields_of(flat)
        own = fields.get(ORIGIN) == self._origin and fields.get(TYPE) != FLUSHED  # Redis may have raised its number
        if own and event_id > self._own_until:
            self.counts["own"] += 1
            return
        try:
            name = self._tell(fields)
        except (Damaged, KeyError):
            name = "poisoned"
        self.counts[name] += 1

    def _tell(self, fields: dict[bytes, bytes]) -> str:
        kind = fields[TYPE]
        if kind == FLUSHED:
            number = number_of(fields[NUMBER])
            if number is None:
                raise Damaged("no number")
            self._told(self._epochs.merge({fields[TAG].decode("ascii", "replace"): number}))
            return "flushed"
        key = fields[KEY]
        if len(key) != 32:
            raise Damaged("no key")
        if kind == REMOVED:
            self._listener.removed(key)
            return "removed"
        if kind != INSERTED:
            raise Damaged("an unknown event")
        insert = decode_insert(self._seal.open(fields[BODY], INSERT_CONTEXT + key))
        if insert.key != key:
            raise Damaged("of another key")
        if insert.expires_at <= self._clock():
            return "expired"
        self._listener.inserted(insert)
        return "inserted"

    def _told(self, tags: list[str]) -> None:
        for tag in tags:
            self._listener.flushed(tag)

    def _lost(self, exc: Exception) -> None:
        self.connected = False
        self.counts["reconnects"] += 1
        reason = failure_reason(exc)
        if reason != self._problem:
            self._problem = reason
            self._log.event("warning", "cache log cannot be read", redis=self._address.shown, reason=reason)


def _id(text: bytes) -> Id:
    time_ms, _, number = text.partition(b"-")
    return int(time_ms), int(number)


def _field(info: bytes, name: bytes) -> bytes:
    for line in info.splitlines():
        if line.startswith(name + b":"):
            return line[len(name) + 1 :]
    return b""
