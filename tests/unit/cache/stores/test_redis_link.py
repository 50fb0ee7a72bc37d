"""Budget and breaker around commands, without a Redis. With one: tests/integration/cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis.exceptions import AuthenticationError, OutOfMemoryError
from redis.exceptions import ConnectionError as RedisConnectionError

from inferdock.cache import redis_link
from inferdock.cache.breaker import Breaker
from inferdock.cache.redis_address import redis_address
from inferdock.cache.redis_client import RedisClient
from inferdock.cache.redis_link import RedisLink
from inferdock.telemetry.logs import EventLog
from tests.support.cache_values import FakeClock

Command = Callable[[RedisClient], Awaitable[str]]


class Made:
    """A link with a clock that stands, and what it logs."""

    def __init__(self) -> None:
        self.lines = bytearray()
        self.log = EventLog(self.lines.extend)
        self.clock = FakeClock()
        self.link = RedisLink(
            redis_address("redis://:s3cret@127.0.0.1:1"),
            log=self.log,
            budget_s=0.02,
            breaker=Breaker(failures=3, base_s=1.0),
            monotonic=self.clock,
        )

    def logged(self) -> bytes:
        self.log.flush()
        return bytes(self.lines)


@pytest.fixture
async def made() -> AsyncIterator[Made]:
    made = Made()
    yield made
    await made.link.close()


def answers(after_s: float = 0.0) -> Command:
    async def command(client: RedisClient) -> str:
        await asyncio.sleep(after_s)
        return "answer"

    return command


def fails(exc: Exception) -> Command:
    async def command(client: RedisClient) -> str:
        raise exc

    return command


async def test_an_answer_in_time_is_returned(made: Made) -> None:
    assert await made.link.run(answers()) == "answer"
    assert made.link.outcomes["ok"] == 1


@pytest.mark.parametrize(
    ("command", "outcome"),
    [
        (answers(0.2), "slow"),
        (fails(RedisConnectionError("text s3cret")), "down"),
        (fails(AuthenticationError("text s3cret")), "down"),
        (fails(OSError("text s3cret")), "down"),
        (fails(TimeoutError()), "down"),
        (fails(KeyError("a defect")), "down"),
        (fails(OutOfMemoryError("text s3cret")), "error"),
    ],
    ids=["slow", "gone", "password", "socket", "no reply", "defect", "full"],
)
async def test_trouble_is_none_and_counted(made: Made, command: Command, outcome: str) -> None:
    for _ in range(3):
        assert await made.link.run(command) is None
    assert made.link.outcomes[outcome] == 3
    assert (made.link.breaker.state == "closed") is (outcome == "error")
    assert made.logged().count(b"redis does not serve") == 1
    assert b"cret" not in made.logged()


async def test_an_open_breaker_lets_nothing_through_until_its_probe(made: Made) -> None:
    for _ in range(3):
        await made.link.run(fails(OSError()))
    assert await made.link.run(answers()) is None
    assert (made.link.up, made.link.outcomes["open"]) == (False, 1)
    made.clock.now += 1
    assert made.link.up
    assert await made.link.run(answers()) == "answer"
    assert made.link.breaker.state == "closed"
    assert b"redis is back" in made.logged()


async def test_answers_that_come_late_do_not_hide_that_they_do(made: Made) -> None:
    for _ in range(3):
        assert await made.link.run(answers(0.03)) is None
        await asyncio.sleep(0.05)
    assert made.link.breaker.state == "open"
    assert made.link.outcomes == {"ok": 0, "slow": 3, "down": 0, "error": 0, "open": 0, "busy": 0}


async def test_a_command_goes_on_when_its_caller_leaves(made: Made) -> None:
    done = asyncio.Event()

    async def command(client: RedisClient) -> str:
        await asyncio.sleep(0.01)
        done.set()
        return "answer"

    caller = asyncio.ensure_future(made.link.run(command))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait_for(done.wait(), 5)
    await asyncio.sleep(0)
    assert made.link.outcomes["ok"] == 1


async def test_a_probe_whose_caller_leaves_is_reported_all_the_same(made: Made) -> None:
    for _ in range(3):
        await made.link.run(fails(OSError()))
    made.clock.now += 1
    caller = asyncio.ensure_future(made.link.run(answers(0.01)))
    await asyncio.sleep(0.001)
    caller.cancel()
    await asyncio.sleep(0.1)
    assert made.link.breaker.state == "closed"


async def test_commands_under_way_are_bounded(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_link, "MAX_PENDING", 2)
    slow = [asyncio.ensure_future(made.link.run(answers(0.01), budget_s=5)) for _ in range(2)]
    await asyncio.sleep(0.001)
    assert await made.link.run(answers()) is None
    assert made.link.outcomes["busy"] == 1
    assert await asyncio.gather(*slow) == ["answer", "answer"]


async def test_closing_ends_what_is_under_way(made: Made) -> None:
    waiting = asyncio.ensure_future(made.link.run(answers(60), budget_s=60))
    await asyncio.sleep(0.001)
    await made.link.close()
    assert await asyncio.wait_for(waiting, 5) is None
