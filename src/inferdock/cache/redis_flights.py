"""One generation for all gateways that are asked the same at the same time: one leads, the others follow.

The leader holds a lease, which one task per process renews for all of its flights. Followers of a leader that dies
notice within three seconds and may lead themselves. Whenever Redis fails, nobody shares, and every request goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, Final

from inferdock.cache.codec import Plain, Seal
from inferdock.cache.redis_client import Command, RedisClient
from inferdock.cache.redis_lead import END, FAILED, LEASE_S, PIECES, PLACE, RELEASE, Lead, unpack_pieces
from inferdock.cache.redis_link import RedisLink
from inferdock.cache.redis_names import Names, fields_of
from inferdock.cache.redis_store import NAMESPACE

BEAT_S: Final = 0.25
"""Between two renewals; also the longest time until a leader knows that somebody follows."""
BEAT_TIMEOUT_S: Final = 0.5
READ_TIMEOUT_S: Final = 1.0
BLOCK_S: Final = 0.3
"""Longest wait for pieces until the lease is looked at."""
MAX_FOLLOWED: Final = 64
"""Flights that one process follows at once, a connection each; further ones are not shared."""
_LEASE_MS: Final = int(LEASE_S * 1000)
_START: Final = b"0-0"
_PLAIN: Final = Plain()

# Renews the lease if it is ours: 0 lost, 1 kept, 2 kept and somebody follows.
_RENEW: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1 + redis.call('EXISTS', KEYS[2])
"""

# The leader's token, which is told in the same moment that somebody follows.
_JOIN: Final = """
local token = redis.call('GET', KEYS[1])
if not token then return '' end
redis.call('SET', ARGV[1] .. token, 1, 'PX', ARGV[2])
return token
"""


class LeaderLost(Exception):
    """There is no leader to follow (any more), or it failed: look whether the answer is stored, else try to lead."""


class RedisFlights:
    """Leads and follows.

    Args:
        link: to Redis, shared with the store.
        namespace, seal: as in ``RedisStore``.

    Attributes:
        counts: ``led``, ``followed``, ``refused`` (another leads), ``unshared`` (Redis failed), ``lost`` leaders.
    """

    def __init__(self, link: RedisLink, *, namespace: str = NAMESPACE, seal: Seal = _PLAIN) -> None:
        self.counts: Counter[str] = Counter()
        self._link = link
        self._names = Names(namespace)
        self._seal = seal
        self._leads: set[Lead] = set()
        self._beating: asyncio.Task[None] | None = None
        self._followed = 0

    async def try_lead(self, key: bytes) -> Lead | None:
        """Become the leader; None where another one is.

        A leader looks into the store again before it begins: the last one may have just ended. Where Redis does not
        answer in time, the caller leads and is not shared (:attr:`Lead.shared`).
        """
        token = secrets.token_hex(16)
        attempt = _Attempt(self._names.lease(key), token)
        try:
            won = await self._link.run(attempt.take)
        finally:
            attempt.waiting = False
        if won is False:
            self.counts["refused"] += 1
            return None
        lead = Lead(key, token, link=self._link, names=self._names, seal=self._seal, left=self._leads.discard)
        if won is None:
            self.counts["unshared"] += 1
            lead.lost()
            return lead
        self.counts["led"] += 1
        self._leads.add(lead)
        if self._beating is None:
            self._beating = asyncio.ensure_future(self._beat())
        return lead

    async def follow(self, key: bytes) -> AsyncGenerator[bytes, None]:
        """The pieces of the leader's answer, from the first one on, as they come; ends when the answer is complete.

        Raises:
            LeaderLost: see there.
        """
        if self._followed >= MAX_FOLLOWED:
            raise LeaderLost("too many")
        self._followed += 1
        client = self._link.address.client(connections=1, timeout_s=BLOCK_S + READ_TIMEOUT_S)
        try:
            token = await self._join(key)
            self.counts["followed"] += 1
            async with contextlib.aclosing(self._pieces(client, key, token)) as pieces:
                async for piece in pieces:
                    yield piece
        except LeaderLost:
            self.counts["lost"] += 1
            raise
        except Exception as exc:  # whatever Redis and its client may come up with
            self.counts["lost"] += 1
            raise LeaderLost(type(exc).__name__) from exc
        finally:
            self._followed -= 1
            await client.close()

    async def close(self) -> None:
        """End everything; followers of our flights notice when their leases end."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait((self._beating,))
        for lead in tuple(self._leads):
            lead.lost()

    async def _beat(self) -> None:
        """Renew the leases of all flights until there are none."""
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while self._leads:
            await asyncio.sleep(BEAT_S)
            leads = tuple(self._leads)
            began = loop.time()
            if not leads:
                break
            states = await self._link.run(partial(self._renew, leads), budget_s=BEAT_TIMEOUT_S)
            if states is not None:
                renewed = began
                for lead, state in zip(leads, states, strict=True):
                    _tell(lead, state)
            elif loop.time() - renewed > LEASE_S:
                for lead in leads:
                    lead.lost()
        self._beating = None

    async def _renew(self, leads: tuple[Lead, ...], client: RedisClient) -> list[Any]:
        commands: list[Command] = []
        for lead in leads:
            keys = (self._names.lease(lead.key), self._names.wanted(lead.key, lead.token))
            commands.append(("EVAL", _RENEW, 2, *keys, lead.token, _LEASE_MS))
        return await client.execute_all(commands)

    async def _join(self, key: bytes) -> str:
        wanted = self._names.wanted(key, "")
        reply: bytes | None = await self._link.run(
            lambda client: client.execute("EVAL", _JOIN, 1, self._names.lease(key), wanted, 10 * _LEASE_MS)
        )
        if not reply:
            raise LeaderLost("nobody leads")
        return reply.decode("ascii", "replace")

    async def _pieces(self, client: RedisClient, key: bytes, token: str) -> AsyncGenerator[bytes, None]:
        last, place = _START, 0
        while True:
            events = await self._read(client, key, token, last, block=True)
            if not events and not await self._is_led(client, key, token):
                # Its last words may have come between the two looks.
                events = await self._read(client, key, token, last, block=False)
                if not events:
                    raise LeaderLost("it is gone")
            for event_id, flat in events:
                fields = fields_of(flat)
                if fields.get(PLACE) != b"%d" % place:
                    raise LeaderLost("a gap")
                for piece in unpack_pieces(fields.get(PIECES, b""), place, key, token, self._seal):
                    yield piece
                if fields.get(END):
                    if fields[END] == FAILED:
                        raise LeaderLost("it failed")
                    return
                last, place = event_id, place + 1

    async def _read(
        self, client: RedisClient, key: bytes, token: str, last: bytes, *, block: bool
    ) -> list[tuple[bytes, list[bytes]]]:
        wait = ("BLOCK", int(BLOCK_S * 1000)) if block else ()
        name = self._names.flight(key, token)
        reply = await client.execute("XREAD", "COUNT", 64, *wait, "STREAMS", name, last)
        return reply[0][1] if reply else []

    async def _is_led(self, client: RedisClient, key: bytes, token: str) -> bool:
        return bool(await client.execute("GET", self._names.lease(key)) == token.encode())


class _Attempt:
    """Taking a lease; one that comes when nobody waits for it any more is given back."""

    def __init__(self, name: str, token: str) -> None:
        self.waiting = True
        self._name = name
        self._token = token

    async def take(self, client: RedisClient) -> bool:
        won = await client.execute("SET", self._name, self._token, "NX", "PX", _LEASE_MS)
        if won and not self.waiting:
            await client.execute("EVAL", RELEASE, 2, self._name, self._name, self._token, 1)
        return bool(won)


def _tell(lead: Lead, state: Any) -> None:
    if state == 0:
        lead.lost()
    elif state == 2:
        lead.wanted()
