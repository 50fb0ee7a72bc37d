"""When requests are sent: a closed loop waits for answers, an open loop does not."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from inferdock.bench.arrivals import constant
from inferdock.bench.client import Outcome
from inferdock.bench.runner import Runner
from inferdock.bench.workload import Task


class SlowServer:
    """Answers when ``released``; stands for the client."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.open = 0
        self.most_open = 0

    async def send(self, task: Task, due_at: float) -> Outcome:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        await self.released.wait()
        self.open -= 1
        return Outcome(due_at)


def runner(server: SlowServer, requests: int | None = None, duration_s: float | None = None) -> Runner:
    tasks = itertools.repeat(Task("hello", 3))
    return Runner(server, tasks, requests=requests, duration_s=duration_s)  # type: ignore[arg-type]


async def until(condition) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


async def test_an_open_loop_sends_on_while_nothing_is_answered():
    server = SlowServer()
    load = runner(server, requests=50)
    running = asyncio.create_task(load.open(constant(1000)))
    await until(lambda: server.open == 50)
    server.released.set()
    await running
    assert (load.progress.sent, load.progress.done) == (50, 50)


async def test_latency_of_an_open_loop_counts_from_when_the_request_was_due():
    server = SlowServer()
    server.released.set()
    load = runner(server, requests=4)
    await load.open(constant(100))
    due = sorted(outcome.due_at for outcome in load.progress.outcomes)
    assert [b - a for a, b in itertools.pairwise(due)] == pytest.approx([0.01] * 3)


async def test_a_closed_loop_has_no_more_open_than_it_has_users():
    server = SlowServer()
    load = runner(server, requests=20)
    running = asyncio.create_task(load.closed(5))
    await until(lambda: server.open == 5)
    await asyncio.sleep(0.05)
    server.released.set()
    await running
    assert (server.most_open, load.progress.done) == (5, 20)


async def test_a_duration_ends_the_sending_and_answers_are_still_awaited():
    server = SlowServer()
    load = runner(server, duration_s=0.05)
    running = asyncio.create_task(load.closed(3))
    await until(lambda: server.open == 3)
    await asyncio.sleep(0.1)
    server.released.set()
    await running
    assert load.progress.done == 3


async def test_a_cancelled_run_keeps_what_was_measured():
    server = SlowServer()
    load = runner(server, requests=10)
    running = asyncio.create_task(load.open(constant(1000)))
    await until(lambda: server.open == 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (load.progress.sent, load.progress.done) == (10, 0)
