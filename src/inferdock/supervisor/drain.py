"""How replicas go while others serve: no new requests, time for those that are open, then the end of the process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from inferdock.supervisor.fleet import Fleet
from inferdock.supervisor.gateway import Gateway
from inferdock.supervisor.replica import Replica

STOP_S = 8.0
"""Seconds between SIGTERM and SIGKILL for a replica that holds no request."""
LOOK_S = 0.25
"""Between two looks whether requests are left. It is over once two looks in a row say so: a request that moves to
another replica is nowhere for a moment."""


class Drain:
    """Waits for open requests, each time ``drain_timeout_s`` at most."""

    def __init__(self, gateway: Gateway, requests_in: Callable[[str], Awaitable[int | None]]) -> None:
        """``requests_in`` asks a replica's address how many requests its engine has; None when it does not say."""
        self._gateway = gateway
        self._requests_in = requests_in

    async def unused(self, fleet: Fleet) -> None:
        """Wait until the gateway holds no request on a revision.

        Its endpoints are still there, so that a stream which loses its replica may go on at another one of its
        revision: no other revision can give the rest of an answer.
        """
        names = {replica.name for replica in fleet.replicas}
        await self._quiet(lambda: self._gateway.held(names))

    async def end(self, replica: Replica) -> None:
        """Let a replica finish what it has, and end it.

        Its endpoint is taken from the gateway, which moves streams to another one of its revision after
        ``gateway.replica_drain_timeout_s``. What the gateway no longer lists it does not count either, so the engine
        says when nothing is left.
        """
        if replica.alive:
            replica.drain()
            if await self._gateway.told(self._limit_s):
                await self._quiet(lambda: self._left_in(replica))
        await replica.stop(STOP_S)

    @property
    def _limit_s(self) -> float:
        return self._gateway.settings.drain_timeout_s

    async def _left_in(self, replica: Replica) -> int | None:
        return await self._requests_in(replica.url) if replica.alive else 0

    async def _quiet(self, count: Callable[[], Awaitable[int | None]]) -> None:
        """Wait until two counts in a row are 0."""
        deadline = time.monotonic() + self._limit_s
        idle = 0
        while time.monotonic() < deadline:
            idle = idle + 1 if await count() == 0 else 0
            if idle == 2:
                return
            await asyncio.sleep(LOOK_S)
