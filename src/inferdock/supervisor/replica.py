"""One replica's life: start, become ready, serve, die, wait, start again.

::

    starting --answers, and the gateway uses it--> ready --death--> waiting --pause over--> starting
        `-------------death or time-out---------------------------------^
    any --taken away--> draining --no request left--> stopped
    any --stop--> stopped
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path

from inferdock.config.settings import EngineSettings
from inferdock.supervisor.child import Child
from inferdock.supervisor.engine import Launch
from inferdock.supervisor.probe import Probe

POLL_S = 0.1
GIVE_UP_AFTER = 3
"""Failed starts in a row after which waiting is of no use. When that is so of all there are, the platform ends."""
STABLE_AFTER_S = 60.0
"""A replica that served this long starts over with the shortest pause when it dies."""


class ReplicaState(StrEnum):
    """Where a replica is in its life."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    DRAINING = "draining"
    STOPPED = "stopped"


def backoff(deaths: int, *, first_s: float, longest_s: float, jitter: float) -> float:
    """Pause before the restart after ``deaths`` deaths in a row (1 or more), in seconds.

    Doubles each time up to ``longest_s``; ``jitter`` in 0-1 spreads it over the upper half, so that replicas that
    died together do not start together.
    """
    whole = min(longest_s, first_s * 2.0 ** min(deaths - 1, 30))
    return whole / 2 + whole / 2 * jitter


def free_port() -> int:
    """A port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def replica_name(index: int) -> str:
    """What replica ``index`` is called: endpoints, logs and figures carry it."""
    return f"replica-{index}"


class Replica:
    """Keeps one replica running.

    Attributes:
        name: ``replica-0`` and so on.
        revision: that it serves.
        state, since: where it is, and since when (monotonic seconds).
        port: of the current or last process.
        restarts: starts after the first.
        failed_starts: starts in a row that did not become ready.
        deaths: since it last served for long; they make the pause before a restart longer.
        problem: why it died last, "" if it never did.
        serves: it has answered a real completion, so the gateway may use it.
    """

    def __init__(
        self,
        *,
        index: int,
        model: str,
        engine: EngineSettings,
        launch: Callable[[int, int], Launch],
        log: Path,
        lifeline_fd: int,
        probe: Probe,
        changed: Callable[[Replica], None],
        admitted: Callable[[Replica], Awaitable[bool]],
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        revision: str = "",
    ) -> None:
        """Collaborators.

        ``launch`` gives the command for (index, port); ``changed`` is called after each change of state;
        ``admitted`` says whether the gateway takes requests to it by now.
        """
        self.index = index
        self.name = replica_name(index)
        self.revision = revision
        self.state = ReplicaState.STOPPED
        self.since = clock()
        self.port = 0
        self.pid = 0
        self.restarts = 0
        self.failed_starts = 0
        self.problem = ""
        self.serves = False
        self.log = log
        self.deaths = 0
        self._model = model
        self._engine = engine
        self._launch = launch
        self._lifeline_fd = lifeline_fd
        self._probe = probe
        self._changed = changed
        self._admitted = admitted
        self._clock = clock
        self._jitter = jitter
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """Base URL of the current or last process."""
        return f"http://127.0.0.1:{self.port}"

    def _enter(self, state: ReplicaState) -> None:
        self.state = state
        self.since = self._clock()
        self._changed(self)

    async def run(self) -> None:
        """Keep it running until cancelled."""
        while True:
            if await self._start():
                await self._until_death()
            self.deaths += 1
            pause = backoff(
                self.deaths,
                first_s=self._engine.restart_backoff_s,
                longest_s=self._engine.restart_backoff_max_s,
                jitter=self._jitter(),
            )
            self._enter(ReplicaState.WAITING)
            await asyncio.sleep(pause)
            self.restarts += 1

    async def _start(self) -> bool:
        try:
            self.port = free_port()
            launch = self._launch(self.index, self.port)
            self._child = await Child.start(launch, log=self.log, lifeline_fd=self._lifeline_fd)
        except OSError as exc:  # no memory for a process, no room for its log: other replicas go on
            self.failed_starts += 1
            self.problem = f"Its process cannot be started: {exc.strerror or exc}."
            return False
        self.pid = self._child.pid
        self._enter(ReplicaState.STARTING)
        return True

    async def _until_death(self) -> None:
        child = self._child
        assert child is not None
        death = asyncio.create_task(child.wait())
        try:
            if await self._becomes_ready(child, death):
                self.failed_starts = 0
                self._enter(ReplicaState.READY)
                status = await death
                if self._clock() - self.since > STABLE_AFTER_S:
                    self.deaths = 0
                self.problem = f"It ended with status {status}. {child.why()}"
            else:
                self.failed_starts += 1
        finally:
            self.serves = False
            death.cancel()

    async def _becomes_ready(self, child: Child, death: asyncio.Task[int]) -> bool:
        deadline = self._clock() + self._engine.startup_timeout_s
        while not death.done():
            if self._clock() > deadline:
                self.problem = f"It was not ready within {self._engine.startup_timeout_s:g} s."
                await child.stop(2.0)
                return False
            if not self.serves and await self._probe.healthy(self.url):
                self.serves = await self._probe.serves(self.url, self._model)
            if self.serves and await self._admitted(self):
                return True
            await asyncio.wait([death], timeout=POLL_S)
        self.problem = child.why()
        return False

    @property
    def alive(self) -> bool:
        """Whether it has a process."""
        return self._child is not None and self._child.alive

    def drain(self) -> None:
        """No new request shall go there, and it is not started again; :meth:`run` must have been cancelled before."""
        self.serves = False
        self._enter(ReplicaState.DRAINING)

    async def stop(self, within_s: float) -> None:
        """Stop its process; :meth:`run` must have been cancelled before."""
        if self._child is not None and self._child.alive:
            await self._child.stop(within_s)
        self._enter(ReplicaState.STOPPED)

    def kill(self) -> None:
        """Kill its process at once."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()
