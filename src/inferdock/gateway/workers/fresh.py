"""Asks all workers for their figures at once, one round at a time, however many want to know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

FRESH_S = 0.5
"""Longest wait for the snapshots of all workers; then the last known ones count."""

Ready = Callable[[], None]


class FreshRounds:
    """Calls back when every worker has reported after the question was asked."""

    def __init__(self, ask: Callable[[int], set[int]], loop: asyncio.AbstractEventLoop) -> None:
        """``ask`` sends a round's number to all workers and returns the ids of those that will answer."""
        self._ask = ask
        self._loop = loop
        self._round = 0
        self._missing: set[int] = set()
        self._waiting: list[Ready] = []
        self._next: list[Ready] = []

    def ask(self, ready: Ready) -> None:
        """Call ``ready`` after a round that begins now, or, where one is under way, after the next."""
        self._next.append(ready)
        if not self._waiting:
            self._begin()

    def came(self, worker: int, round_: int) -> None:
        """A worker has reported."""
        if round_ == self._round:
            self.gone(worker)

    def gone(self, worker: int) -> None:
        """Nothing more is expected of a worker."""
        if worker in self._missing:
            self._missing.discard(worker)
            if not self._missing:
                self._end(self._round)

    def _begin(self) -> None:
        self._waiting, self._next = self._next, []
        self._round += 1
        self._missing = self._ask(self._round)
        if self._missing:
            self._loop.call_later(FRESH_S, self._end, self._round)
        else:
            self._end(self._round)

    def _end(self, round_: int) -> None:
        if round_ != self._round or not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        self._missing.clear()
        for ready in waiting:
            ready()
        if self._next and not self._waiting:
            self._begin()
