"""The leader's side of a generation that several gateways share: it publishes pieces, and never waits for it.

Until somebody follows, pieces are only kept; then all go out, in order, by one task at a time. The first piece that
does not get through ends the sharing: what followers have is then the beginning of the answer, without a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from inferdock.cache.codec import Damaged, Seal
from inferdock.cache.redis_client import RedisClient
from inferdock.cache.redis_link import RedisLink
from inferdock.cache.redis_names import FLIGHT_CONTEXT, Names

LEASE_S: Final = 2.0
"""A leader that was not heard of for so long is dead."""
SEND_TIMEOUT_S: Final = 1.0
"""Longest wait for one batch of pieces; nobody's request waits for it."""
GATHER_S: Final = 0.01
"""Pieces of so long go out together."""
MAX_FLIGHT_BYTES: Final = 2 * 1024 * 1024
"""Largest answer that is shared."""
MAX_BATCH_BYTES: Final = 128 * 1024
FLIGHT_LIFE_S: Final = 60
"""So long a stream of pieces outlives its last piece, should its leader die."""
AFTERLIFE_S: Final = 10
"""And so long its end, for followers to read."""

PIECES: Final = b"p"
PLACE: Final = b"n"
END: Final = b"e"
DONE: Final = b"done"
FAILED: Final = b"failed"

# Ends the lease if it is ours; but while somebody follows who has not been served yet, says 2 and leaves it.
RELEASE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' and redis.call('EXISTS', KEYS[2]) == 1 then return 2 end
redis.call('DEL', KEYS[1], KEYS[2])
return 1
"""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[bytes]).decode


def pack_pieces(pieces: Sequence[bytes], place: int, key: bytes, token: str, seal: Seal) -> bytes:
    """Pieces as they lie in Redis, bound to their place in this flight."""
    return seal.seal(_encode(pieces), _context(place, key, token))


def unpack_pieces(data: bytes, place: int, key: bytes, token: str, seal: Seal) -> list[bytes]:
    """The pieces again.

    Raises:
        Damaged: they are not those of this place.
    """
    try:
        return _decode(seal.open(data, _context(place, key, token)))
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise Damaged("no pieces") from exc


def _context(place: int, key: bytes, token: str) -> bytes:
    return b"%s%s:%s:%d" % (FLIGHT_CONTEXT, key, token.encode(), place)


class Lead:
    """One generation that this process leads. Its methods return at once and raise nothing.

    Args:
        left: told when the flight is over for this process, and its lease need not be renewed.

    Attributes:
        shared: others can follow, as far as is known.
    """

    def __init__(
        self, key: bytes, token: str, *, link: RedisLink, names: Names, seal: Seal, left: Callable[[Lead], None]
    ) -> None:
        self.key = key
        self.token = token
        self.shared = True
        self._link = link
        self._names = names
        self._seal = seal
        self._left = left
        self._pieces: list[bytes] = []
        self._sent = 0
        self._place = 0
        self._bytes = 0
        self._wanted = False
        self._end = b""
        self._task: asyncio.Task[None] | None = None

    def publish(self, piece: bytes) -> None:
        """Share the next piece of the answer; opaque, in order, not empty."""
        if not self.shared or self._end:
            return
        self._bytes += len(piece)
        if self._bytes > MAX_FLIGHT_BYTES:
            self._finish(FAILED)
            return
        self._pieces.append(piece)
        self._go_on()

    def done(self, ok: bool) -> None:
        """The answer is complete (and stored, if it is to be: whoever comes now finds no leader), or it failed."""
        self._finish(DONE if ok else FAILED)

    def wanted(self) -> None:
        """Somebody follows."""
        self._wanted = True
        self._go_on()

    def lost(self) -> None:
        """The lease is not ours any more, or nobody knows."""
        self._give_up()

    async def settled(self) -> None:
        """Wait until all that was published is out, or given up."""
        while self._task is not None:
            await asyncio.wait((self._task,))

    def _finish(self, end: bytes) -> None:
        if self.shared and not self._end:
            self._end = end
            self._go_on()

    def _go_on(self) -> None:
        if self._task is None and (self._end or (self._wanted and self._sent < len(self._pieces))):
            self._task = asyncio.ensure_future(self._send())

    async def _send(self) -> None:
        try:
            await self._send_all()
        finally:
            self._task = None
        if self.shared:
            self._go_on()  # what was published in the last moment

    async def _send_all(self) -> None:
        while self.shared and self._wanted and (self._sent < len(self._pieces) or self._end):
            if not self._end:
                await asyncio.sleep(GATHER_S)
            pieces = self._batch()
            last = self._end if self._sent + len(pieces) == len(self._pieces) else b""
            if await self._link.run(self._append(pieces, last), budget_s=SEND_TIMEOUT_S) is None:
                self._give_up()
                return
            self._sent += len(pieces)
            self._place += 1
            if last:
                break
        if self.shared and self._end:
            await self._release()

    def _batch(self) -> list[bytes]:
        size, batch = 0, []
        for piece in self._pieces[self._sent :]:
            batch.append(piece)
            size += len(piece)
            if size >= MAX_BATCH_BYTES:
                break
        return batch

    def _append(self, pieces: list[bytes], end: bytes) -> Callable[[RedisClient], Awaitable[list[Any]]]:
        name = self._names.flight(self.key, self.token)
        data = pack_pieces(pieces, self._place, self.key, self.token, self._seal)
        add = ("XADD", name, "*", PLACE, self._place, PIECES, data, END, end)
        expire = ("EXPIRE", name, AFTERLIFE_S if end else FLIGHT_LIFE_S)
        return lambda client: client.execute_all((add, expire))

    async def _release(self) -> None:
        """End the lease, unless somebody has come to follow in the meantime: then serve them first."""
        keys = (self._names.lease(self.key), self._names.wanted(self.key, self.token))
        served = int(self._wanted)
        reply = await self._link.run(
            lambda client: client.execute("EVAL", RELEASE, 2, *keys, self.token, served), budget_s=SEND_TIMEOUT_S
        )
        if reply == 2:
            self._wanted = True  # the task goes on
        else:
            self._give_up()

    def _give_up(self) -> None:
        if self.shared:
            self.shared = False
            self._pieces.clear()
            self._left(self)
