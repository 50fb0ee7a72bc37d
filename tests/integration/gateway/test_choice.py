"""Which replica a request goes to, seen from outside: affinity, prefixes, ejection and return."""

from __future__ import annotations

import asyncio
import collections
import contextlib

import aiohttp
import pytest

from inferdock.config.settings import BalanceSettings
from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from tests.integration.gateway.test_relay import metric
from tests.support.gateway import running_gateway

FAST = SimOptions(ttft_s=0, itl_s=0.001)
ATTEMPTS_FAILED = 'llm_gateway_attempts_total{model="sim",outcome="failed",revision="r1"}'
CHAT = {"model": "sim", "max_tokens": 2, "ignore_eos": True}
NO_SLOW_START = BalanceSettings(slow_start_s=0)


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


async def ask(http: aiohttp.ClientSession, url: str, text: str = "hello", **headers: str) -> int:
    body = CHAT | {"messages": [{"role": "user", "content": text}]}
    async with http.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response:
        await response.read()
        return response.status


def served(gateway) -> list[str]:
    """Endpoint of each request so far, from the log."""
    lines = [line for line in bytes(gateway.log).decode().splitlines() if '"event":"request"' in line]
    return [line.partition('"endpoint":"')[2].partition('"')[0] for line in lines]


@contextlib.asynccontextmanager
async def three(balance: BalanceSettings = NO_SLOW_START):
    async with running_sim(FAST) as one, running_sim(FAST) as two, running_sim(FAST) as third:
        async with running_gateway([one.url, two.url, third.url], balance=balance) as gateway:
            yield gateway


async def test_a_session_stays_with_its_replica_and_sessions_spread(http):
    async with three() as gateway:
        homes = collections.Counter()
        for session in range(12):
            before = len(served(gateway))
            for _ in range(4):
                await ask(http, gateway.url, **{"x-session-id": f"session {session}"})
            await asyncio.sleep(0.25)  # the log is written five times a second
            (home,) = set(served(gateway)[before:])
            homes[home] += 1
    assert len(homes) >= 2


async def test_equal_beginnings_of_long_prompts_meet_at_one_replica(http):
    balance = BalanceSettings(policy="prefix", slow_start_s=0)
    async with three(balance) as gateway:
        homes = set()
        for document in range(6):
            before = len(served(gateway))
            for turn in range(3):
                await ask(http, gateway.url, f"document {document} " * 300 + f"question {turn}")
            await asyncio.sleep(0.25)
            (home,) = set(served(gateway)[before:])
            homes.add(home)
    assert len(homes) >= 2


async def test_a_replica_that_only_fails_is_left_out_after_three_failures_and_taken_back(http):
    balance = BalanceSettings(slow_start_s=0, eject_base_s=0.5)
    async with running_sim(FAST, "status:503") as bad, running_sim(FAST) as good:
        async with running_gateway([bad.url, good.url], balance=balance) as gateway:
            statuses = {await ask(http, gateway.url) for _ in range(40)}
            failed = await metric(http, gateway.url, ATTEMPTS_FAILED)
            assert statuses == {200}
            assert 3 <= failed <= 6
            await http.delete(f"{bad.url}/sim/faults")
            await asyncio.sleep(1.0)
            for _ in range(10):
                await ask(http, gateway.url)
            await asyncio.sleep(0.25)
            assert "replica-0" in served(gateway)[-10:]


async def test_a_replica_that_takes_no_connections_is_out_at_once(http):
    async with running_sim(FAST) as good, running_sim(FAST) as gone:
        async with running_gateway([good.url, gone.url], health_interval_s=30) as gateway:
            await gone.stop()
            assert {await ask(http, gateway.url) for _ in range(20)} == {200}
            assert await metric(http, gateway.url, ATTEMPTS_FAILED) <= 1
