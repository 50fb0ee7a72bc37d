"""All short commands of this process to Redis: each has a budget, and none is ever an error to its caller.

A command that outlasts its budget is left to end by itself, so that no reply is ever taken for another command's and a
connection that is just being made is there for the next one. What it still brings is not waited for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from redis.exceptions import AuthenticationError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from inferdock.cache.breaker import Breaker
from inferdock.cache.redis_address import RedisAddress
from inferdock.cache.redis_client import RedisClient
from inferdock.telemetry.logs import EventLog

CONNECTIONS: Final = 8
COMMAND_TIMEOUT_S: Final = 1.0
"""After so long without a reply a connection is given up."""
COMPLAINT_INTERVAL_S: Final = 30.0
MAX_PENDING: Final = 256
"""Commands under way at once, those among them that nobody waits for any more."""

Outcome = str
"""``ok``, ``slow``, ``down``, ``error``, ``open`` (the breaker) or ``busy``: why a command came to nothing."""

_T = TypeVar("_T")


class RedisLink:
    """Runs commands with a budget and a circuit breaker.

    Args:
        address: where Redis is.
        budget_s: longest wait of a caller.
        log: told when Redis is lost and when it is back, now and then, not once per command.
        monotonic: seconds for the breaker.

    Attributes:
        outcomes: commands by how they ended.
    """

    def __init__(
        self,
        address: RedisAddress,
        *,
        log: EventLog,
        budget_s: float = 0.02,
        breaker: Breaker | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = address
        self.outcomes: dict[Outcome, int] = dict.fromkeys(("ok", "slow", "down", "error", "open", "busy"), 0)
        self.breaker = breaker or Breaker()
        self._budget_s = budget_s
        self._log = log
        self._monotonic = monotonic
        self._client = address.client(connections=CONNECTIONS, timeout_s=COMMAND_TIMEOUT_S)
        self._pending: set[asyncio.Task[Any]] = set()
        self._late: set[asyncio.Task[Any]] = set()
        self._silent_until: dict[str, float] = {}
        self._lost = False

    @property
    def up(self) -> bool:
        """A command would be sent."""
        return self.breaker.ready(self._monotonic())

    async def run(self, command: Callable[[RedisClient], Awaitable[_T]], *, budget_s: float | None = None) -> _T | None:
        """What the command brings; None where that is not known in time, whatever the reason.

        A command whose caller leaves goes on.
        """
        if len(self._pending) >= MAX_PENDING:
            self.outcomes["busy"] += 1
            return None
        if not self.breaker.allows(self._monotonic()):
            self.outcomes["open"] += 1
            return None
        task = asyncio.ensure_future(command(self._client))
        self._pending.add(task)
        task.add_done_callback(self._ended)
        await asyncio.wait((task,), timeout=self._budget_s if budget_s is None else budget_s)
        if not task.done():
            self._late.add(task)
            self._failed("slow", "slow")
            return None
        return None if task.cancelled() or task.exception() is not None else task.result()

    async def close(self) -> None:
        """End all commands and connections."""
        for task in self._pending:
            task.cancel()
        if self._pending:
            await asyncio.wait(self._pending)
        await self._client.close()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._pending.discard(task)
        exc = None if task.cancelled() else task.exception()
        if task in self._late:  # counted when its time was up
            self._late.discard(task)
        elif task.cancelled():
            pass
        elif exc is None:
            self._answered("ok")
        elif isinstance(exc, ResponseError):
            # It answers, though not as it should: memory used up, a replica, no permission.
            self._answered("error")
            self._complain(failure_reason(exc))
        else:
            self._failed("down", failure_reason(exc))

    def _answered(self, outcome: Outcome) -> None:
        self.outcomes[outcome] += 1
        self.breaker.succeeded()
        if self._lost and self.breaker.state == "closed":
            self._lost = False
            self._log.event("info", "redis is back", redis=self.address.shown)

    def _failed(self, outcome: Outcome, reason: str) -> None:
        self.outcomes[outcome] += 1
        self.breaker.failed(self._monotonic())
        if self.breaker.state == "open" and not self._lost:
            self._lost = self._complain(reason)

    def _complain(self, reason: str) -> bool:
        """Now and then, per reason. Never the error's text: it may hold keys."""
        now = self._monotonic()
        if now < self._silent_until.get(reason, now):
            return False
        self._silent_until[reason] = now + COMPLAINT_INTERVAL_S
        self._log.event("warning", "redis does not serve", redis=self.address.shown, reason=reason)
        return True


def failure_reason(exc: BaseException) -> str:
    """A word for the log; the error's own text may hold keys."""
    if isinstance(exc, AuthenticationError):
        return "password"
    if isinstance(exc, TimeoutError):
        return "slow"
    if isinstance(exc, (RedisConnectionError, OSError)):
        return "connection"
    return type(exc).__name__
