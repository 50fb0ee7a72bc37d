"""One replica's life, with real child processes and a probe that says what the test wants."""

import asyncio
import os
import random
import sys
from collections.abc import Callable

import pytest

from inferdock.config.settings import EngineSettings
from inferdock.supervisor.engine import Launch
from inferdock.supervisor.replica import STABLE_AFTER_S, Replica, ReplicaState, backoff

SLEEPS = "import time; time.sleep(99)"
FAST = EngineSettings(restart_backoff_s=0.01, restart_backoff_max_s=0.02)


def test_pauses_double_up_to_the_longest():
    pauses = [backoff(n, first_s=1, longest_s=10, jitter=1.0) for n in range(1, 7)]
    assert pauses == [1, 2, 4, 8, 10, 10]


def test_jitter_spreads_pauses_over_the_upper_half():
    rng = random.Random(1)
    pauses = [backoff(3, first_s=1, longest_s=60, jitter=rng.random()) for _ in range(200)]
    assert 2 <= min(pauses) < 2.2
    assert 3.8 < max(pauses) <= 4


def test_many_deaths_do_not_overflow():
    assert backoff(10_000, first_s=1, longest_s=60, jitter=1.0) == 60


class SaidProbe:
    """Answers for a replica what the test sets."""

    def __init__(self, *, healthy: bool = True, serves: bool = True) -> None:
        self.is_healthy = healthy
        self.does_serve = serves

    async def healthy(self, url: str) -> bool:
        return self.is_healthy

    async def serves(self, url: str, model: str) -> bool:
        return self.does_serve


class Life:
    """A replica that runs ``codes[0]``, then ``codes[1]``, ... (the last for ever), and the states that it entered."""

    def __init__(self, tmp_path, lifeline_fd: int, codes: list[str], probe: SaidProbe, engine: EngineSettings) -> None:
        self.states: list[str] = []
        self.now = 0.0
        self.admits = True
        self._codes = codes
        self.replica = Replica(
            index=0,
            model="m",
            engine=engine,
            launch=self._launch,
            log=tmp_path / "replica-0.log",
            lifeline_fd=lifeline_fd,
            probe=probe,
            changed=lambda replica: self.states.append(str(replica.state)),
            admitted=self._admitted,
            clock=lambda: self.now,
            jitter=lambda: 1.0,
        )
        self.task = asyncio.create_task(self.replica.run())

    def _launch(self, index: int, port: int) -> Launch:
        code = self._codes.pop(0) if len(self._codes) > 1 else self._codes[0]
        return Launch((sys.executable, "-c", code), dict(os.environ))

    async def _admitted(self, replica: Replica) -> bool:
        return self.admits

    async def until(self, wanted: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not wanted():
                assert not self.task.done(), self.task.exception()
                await asyncio.sleep(0.01)

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.replica.stop(5)


@pytest.fixture
async def live(tmp_path):
    """Begin lives; all are ended."""
    read, write = os.pipe()
    lives: list[Life] = []

    def begin(*codes: str, probe: SaidProbe | None = None, engine: EngineSettings = FAST) -> Life:
        lives.append(Life(tmp_path, read, list(codes), probe or SaidProbe(), engine))
        return lives[-1]

    yield begin
    for life in lives:
        await life.end()
    os.close(write)
    os.close(read)


async def test_it_is_ready_once_it_answers_and_the_gateway_uses_it(live):
    life = live(SLEEPS)
    await life.until(lambda: life.replica.state is ReplicaState.READY)
    await life.end()
    assert life.states == ["starting", "ready", "stopped"]


@pytest.mark.parametrize("missing", ["health", "completion", "gateway"])
async def test_it_is_not_ready_while_one_of_the_three_is_missing(live, missing):
    probe = SaidProbe(healthy=missing != "health", serves=missing != "completion")
    life = live(SLEEPS, probe=probe)
    life.admits = missing != "gateway"
    await asyncio.sleep(0.5)
    assert life.states == ["starting"]
    probe.is_healthy = probe.does_serve = life.admits = True
    await life.until(lambda: life.replica.state is ReplicaState.READY)


async def test_one_that_dies_in_its_start_is_started_again_and_says_why(live):
    life = live("raise ValueError('broken')", SLEEPS, probe=SaidProbe(healthy=False))
    await life.until(lambda: life.replica.restarts == 1)
    assert "ValueError: broken" in life.replica.problem
    assert life.replica.failed_starts == 1


async def test_a_start_that_succeeds_ends_the_row_of_failed_ones(live):
    probe = SaidProbe(healthy=False)
    life = live("", "", SLEEPS, probe=probe)
    await life.until(lambda: life.replica.restarts == 2)
    assert life.replica.failed_starts == 2
    probe.is_healthy = True
    await life.until(lambda: life.replica.state is ReplicaState.READY)
    assert life.replica.failed_starts == 0


async def test_one_that_takes_too_long_is_stopped_and_started_again(live):
    life = live(SLEEPS, probe=SaidProbe(healthy=False), engine=FAST.model_copy(update={"startup_timeout_s": 5.0}))
    await life.until(lambda: life.states == ["starting"])
    life.now = 6.0
    await life.until(lambda: life.replica.restarts == 1)
    assert "not ready within 5 s" in life.replica.problem


async def test_stable_service_resets_the_pause_and_short_service_does_not(live):
    life = live(SLEEPS)
    for served_s, deaths in ((1.0, 1), (1.0, 2), (STABLE_AFTER_S + 1, 1)):
        restarts = life.replica.restarts
        await life.until(lambda: life.replica.state is ReplicaState.READY)
        life.now += served_s
        life.replica.kill()
        await life.until(lambda before=restarts: life.replica.restarts > before)
        assert life.replica.deaths == deaths


async def test_each_start_takes_a_port_of_its_own_choice(live):
    life = live(SLEEPS)
    await life.until(lambda: life.replica.state is ReplicaState.READY)
    assert life.replica.url == f"http://127.0.0.1:{life.replica.port}"
    assert life.replica.port > 0
