"""Runs the load: an open loop that never waits for answers, or a closed loop of a fixed number of users."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from inferdock.bench.client import Client, Outcome
from inferdock.bench.workload import Task


class Progress:
    """What has happened so far, for display."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.sent = 0

    @property
    def done(self) -> int:
        """Answers that have ended."""
        return len(self.outcomes)

    @property
    def failed(self) -> int:
        """Answers that ended badly."""
        return sum(bool(outcome.error) for outcome in self.outcomes)


class Runner:
    """Sends tasks until enough were sent or the time is over."""

    def __init__(
        self,
        client: Client,
        tasks: Iterator[Task],
        *,
        requests: int | None,
        duration_s: float | None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """At least one of ``requests`` and ``duration_s`` must be given."""
        self._client = client
        self._tasks = tasks
        self._left = requests
        self._duration_s = duration_s
        self._clock = clock
        self.progress = Progress()

    def _may_send(self, at: float, start: float) -> bool:
        if self._duration_s is not None and at - start >= self._duration_s:
            return False
        return self._left is None or self.progress.sent < self._left

    async def _send(self, due_at: float) -> None:
        self.progress.outcomes.append(await self._client.send(next(self._tasks), due_at))

    async def closed(self, users: int) -> None:
        """``users`` send one request after the other; load adapts to the server's speed."""
        start = self._clock()

        async def user() -> None:
            while self._may_send(now := self._clock(), start):
                self.progress.sent += 1
                await self._send(now)

        await asyncio.gather(*(user() for _ in range(users)))

    async def open(self, offsets: Iterator[float]) -> None:
        """Send at the given offsets whatever the server does; ends when every answer has ended."""
        start = self._clock()
        running: set[asyncio.Task[None]] = set()
        try:
            for offset in offsets:
                due_at = start + offset
                if not self._may_send(due_at, start):
                    break
                await asyncio.sleep(max(0.0, due_at - self._clock()))
                self.progress.sent += 1
                task = asyncio.create_task(self._send(due_at))
                running.add(task)
                task.add_done_callback(running.discard)
            await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()
