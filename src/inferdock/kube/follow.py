"""Keeps up with one collection of objects: list, watch, resume, list again. The sources in this room are built on it.

::

    list --> watch --(the server ends it, or it is cut)--> pause --> watch from the last resource version
      ^                                                      |
      '------------------- 410 Gone, or nothing known yet ---'

While the API cannot be reached, what was last heard of holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from inferdock.kube.errors import ApiGone, ApiNonsense, ApiRefused, EndpointsRefused, KubeError

BACKOFF_S = 0.5
BACKOFF_MAX_S = 30.0
RETRY_AFTER_MAX_S = 120.0
LIST_AFTER_FAILURES = 3
"""Failures in a row after which our resource version is suspect (a restored etcd counts from an older one)."""
STEADY_AFTER_S = 5.0
"""A watch that ends sooner, without an event, counts as a failure: a server that ends each at once is not pressed."""

LASTING = (401, 403, 404)
"""Refusals that somebody must do something about."""

AnyEvent = TypeVar("AnyEvent")


class Log(Protocol):
    """Where events go (``telemetry.logs.EventLog``)."""

    def event(self, level: str, event: str, **fields: str | int | float | bool | None) -> None:
        """Write one event."""


class Followed(Protocol[AnyEvent]):
    """What is followed, and who takes what is heard of it; all may raise ``KubeError``."""

    async def read_all(self) -> str:
        """Read everything, take it, and return the resource version to watch from."""

    def watch(self, version: str) -> AsyncGenerator[list[AnyEvent], None]:
        """Changes after a version; first an empty list once the server has taken the watch."""

    def take(self, events: list[AnyEvent]) -> str:
        """Take some changes, at least one; returns the resource version of the last, or "" when it has none."""

    def kept(self) -> int:
        """How many things hold now, for the log."""


class Follower(Generic[AnyEvent]):
    """Follows one collection; what it is and what becomes of it is the business of ``followed``.

    Args:
        followed: see there.
        what: its name in the log, for instance ``endpoint slices``.
        log: told once when the API fails and once when it is back.
        steady_after_s: a watch that lives so long, or brings an event, ends a run of failures.
        sleep, uniform: for tests.

    Attributes:
        synced: whether a list has been read at least once.
        tried: set once the first list was read, or refused for a reason that will not pass.
    """

    def __init__(
        self,
        followed: Followed[AnyEvent],
        *,
        what: str,
        log: Log,
        steady_after_s: float = STEADY_AFTER_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._followed = followed
        self._what = what
        self._log = log
        self._steady_after_s = steady_after_s
        self._sleep = sleep
        self._uniform = uniform
        self._version: str | None = None
        self._failures = 0
        self._steady = False
        self._told: set[str] = set()
        self.synced = False
        self.tried = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            self._steady = False
            failure: KubeError | None
            try:
                if self._version is None:
                    self._version = await self._followed.read_all()
                    self.synced = True
                    self.tried.set()
                await self._watch(self._version)
                failure = None if self._steady else ApiNonsense("The Kubernetes API ends each watch at once.")
            except KubeError as exc:
                failure = exc
            if failure is not None:
                self._failed(failure)
            await self._sleep(self._pause_s(failure))

    async def _watch(self, version: str) -> None:
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None
        try:
            async with contextlib.aclosing(self._followed.watch(version)) as batches:
                async for events in batches:
                    if events:
                        self._is_steady()
                        self._version = self._followed.take(events) or self._version
                    else:  # the server took the watch
                        timer = loop.call_later(self._steady_after_s, self._is_steady)
        finally:
            if timer is not None:
                timer.cancel()

    def _is_steady(self) -> None:
        self._steady = True
        self._failures = 0
        if self._told:
            self._told.clear()
            self._log.event("info", f"{self._what} followed again", kept=self._followed.kept())

    def _failed(self, failure: KubeError) -> None:
        """Say it once per kind and outage; that a watch is cut and resumed is everyday life and not worth a line."""
        self._failures += 1
        if isinstance(failure, ApiRefused) and failure.status in LASTING:
            self.tried.set()
        if isinstance(failure, ApiGone | ApiNonsense | EndpointsRefused) or self._failures >= LIST_AFTER_FAILURES:
            self._version = None
        if isinstance(failure, ApiGone):
            self._log.event("debug", f"{self._what} listed anew", reason=str(failure))
            return
        kind = f"{type(failure).__name__} {failure.status if isinstance(failure, ApiRefused) else ''}"
        if kind not in self._told and (self._failures > 1 or not self.synced):
            self._told.add(kind)
            kept = self._followed.kept()
            self._log.event("warning", f"{self._what} not followed", kept=kept, reason=str(failure))

    def _pause_s(self, failure: KubeError | None) -> float:
        longest = min(BACKOFF_S * 2.0 ** min(self._failures, 10), BACKOFF_MAX_S)
        pause = self._uniform(longest / 2, longest)
        if isinstance(failure, ApiRefused) and failure.retry_after_s is not None:
            return max(pause, min(failure.retry_after_s, RETRY_AFTER_MAX_S))
        return pause
