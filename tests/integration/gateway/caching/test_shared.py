"""Several gateways on one real Redis: shared entries, one generation for all, nothing lost with Redis or a leader."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from inferdock.config.settings import CacheRedisSettings, CacheSettings
from inferdock.sim.options import SimOptions
from tests.integration.gateway.caching.support import EXACT_ONLY, CountingSim, chat_body, counting_sim, post
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.redis_server import RedisServer, need_redis, running_redis

SLOW = SimOptions(ttft_s=0.1, itl_s=0.03)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as server:
        yield server


def shared(redis: RedisServer, **fields: object) -> CacheSettings:
    """Settings of a gateway that shares by this Redis."""
    return EXACT_ONLY.model_copy(update={"redis": CacheRedisSettings(url=redis.url, timeout_s=0.2), **fields})


@contextlib.asynccontextmanager
async def two_gateways(
    cache: CacheSettings, options: SimOptions = SLOW
) -> AsyncIterator[tuple[CountingSim, list[RunningGateway], aiohttp.ClientSession]]:
    """One replica, two gateways, a client."""
    async with counting_sim(options) as sim, contextlib.AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(running_gateway([sim.url], cache=cache)) for _ in range(2)]
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        yield sim, gateways, http


async def eventually(check, within_s: float = 5.0) -> None:
    """Wait until ``await check()`` is true."""
    async with asyncio.timeout(within_s):
        while not await check():
            await asyncio.sleep(0.02)


async def test_what_one_gateway_has_stored_another_serves(redis: RedisServer) -> None:
    async with two_gateways(shared(redis)) as (sim, (one, two), http):
        first = await post(http, one.url, chat_body())

        async def served() -> bool:
            got = await post(http, two.url, chat_body(), cache_control="only-if-cached")
            return got.status == 200 and got.text == first.text

        await eventually(served, within_s=1.0)
        assert sim.generations == 1


async def test_a_flush_at_one_gateway_counts_at_the_other(redis: RedisServer) -> None:
    async with two_gateways(shared(redis)) as (_, (one, two), http):
        await post(http, one.url, chat_body())
        assert (await post(http, two.url, chat_body())).cache == "hit exact"
        async with http.post(f"{one.admin_url}/admin/cache/flush", json={"model": "sim"}) as response:
            assert response.status == 200

        async def void() -> bool:
            return (await post(http, two.url, chat_body(), cache_control="only-if-cached")).status == 504

        await eventually(void, within_s=2.0)


async def test_equal_streams_at_two_gateways_are_one_generation(redis: RedisServer) -> None:
    async with two_gateways(shared(redis)) as (sim, gateways, http):
        body = chat_body(stream=True, max_tokens=20)
        got = await asyncio.gather(*(post(http, gateways[i % 2].url, body) for i in range(50)))
        assert sim.generations == 1
        assert len({g.text for g in got}) == 1
        assert {g.status for g in got} == {200}


async def test_equal_bodies_at_two_gateways_are_one_generation(redis: RedisServer) -> None:
    async with two_gateways(shared(redis)) as (sim, gateways, http):
        got = await asyncio.gather(*(post(http, gateways[i % 2].url, chat_body(max_tokens=20)) for i in range(20)))
        assert sim.generations == 1
        assert len({g.text for g in got}) == 1


async def test_all_followers_of_another_gateway_may_leave(redis: RedisServer) -> None:
    async with two_gateways(shared(redis)) as (sim, (one, two), http):
        body = chat_body(stream=True, max_tokens=30)
        leading = asyncio.create_task(post(http, one.url, body))
        await asyncio.sleep(0.3)
        following = asyncio.create_task(post(http, two.url, body))
        await asyncio.sleep(0.3)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        assert (await leading).status == 200
        assert sim.generations == 1


@contextlib.asynccontextmanager
async def gateway_to_kill(folder: Path, sim: CountingSim, redis: RedisServer) -> AsyncIterator[tuple[str, int]]:
    """The command that people start; its URL and process id."""
    config, announce = folder / "inferdock.yaml", folder / "gateway.json"
    config.write_text(
        f"cache:\n  enabled: true\n  semantic: false\n  redis:\n    url: {redis.url}\n    timeout_s: 0.2\n"
        "keys:\n  check: never\n"
    )
    command = [sys.executable, "-m", "inferdock.cli.main", "gateway", "-f", str(config), "--port", "0"]
    command += ["--announce", str(announce), "--replica", f"sim@r1={sim.url}"]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        async with asyncio.timeout(30):
            while not announce.exists():
                await asyncio.sleep(0.05)
        document = json.loads(announce.read_text())
        yield f"http://127.0.0.1:{document['port']}", document["pid"]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize("streams", [True, False], ids=["streams", "bodies"])
async def test_when_the_leader_is_killed_all_followers_complete(
    redis: RedisServer, tmp_path: Path, streams: bool
) -> None:
    async with counting_sim(SimOptions(ttft_s=0.1, itl_s=0.06)) as sim:
        async with gateway_to_kill(tmp_path, sim, redis) as (leader, pid):
            async with running_gateway([sim.url], cache=shared(redis)) as follower, aiohttp.ClientSession() as http:
                plain = await post(http, follower.url, chat_body(max_tokens=40), cache_control="no-store")
                body = chat_body(stream=streams, max_tokens=40)

                async def ready() -> bool:
                    return (await post(http, leader, chat_body("warm up", max_tokens=1))).status == 200

                await eventually(ready, within_s=20)
                led = asyncio.create_task(post(http, leader, body))
                await asyncio.sleep(0.5)
                before = sim.generations
                followers = [asyncio.create_task(post(http, follower.url, body)) for _ in range(10)]
                await asyncio.sleep(1.0)
                assert sim.generations == before  # they follow
                os.kill(pid, signal.SIGKILL)
                got = await asyncio.gather(*followers)
                assert {g.status for g in got} == {200}
                assert {g.text for g in got} == {plain.text}
                assert sim.generations == before + 1
                await asyncio.gather(led, return_exceptions=True)


async def test_redis_killed_and_back_during_load_fails_no_request(redis: RedisServer) -> None:
    async with two_gateways(shared(redis), SimOptions(ttft_s=0.005, itl_s=0.001)) as (_, gateways, http):
        statuses: list[int] = []
        over = asyncio.Event()

        async def load(number: int) -> None:
            turn = 0
            while not over.is_set():
                turn += 1
                body = chat_body(f"question {turn % 50}", stream=bool(turn % 2), max_tokens=4)
                got = await post(http, gateways[number % 2].url, body)
                statuses.append(got.status)

        tasks = [asyncio.create_task(load(number)) for number in range(8)]
        for _ in range(2):
            await asyncio.sleep(1.0)
            await asyncio.to_thread(redis.kill)
            await asyncio.sleep(1.0)
            await asyncio.to_thread(redis.start)
        await asyncio.sleep(1.5)
        over.set()
        await asyncio.gather(*tasks)
        assert set(statuses) == {200}
        assert len(statuses) > 100


async def test_a_frozen_redis_costs_its_budget_and_no_more(redis: RedisServer) -> None:
    async with two_gateways(shared(redis), SimOptions(ttft_s=0.005, itl_s=0.001)) as (_, (one, _two), http):
        await post(http, one.url, chat_body())
        redis.freeze()
        began = asyncio.get_running_loop().time()
        got = [await post(http, one.url, chat_body(f"other {i}")) for i in range(20)]
        took = asyncio.get_running_loop().time() - began
        known = await post(http, one.url, chat_body())
        redis.thaw()
        assert {g.status for g in got} == {200}
        assert known.cache == "hit exact"  # memory goes on
        assert took < 10  # the breaker opens: not 20 times the budget of several commands


async def test_a_gateway_starts_without_redis_and_finds_it_later(tmp_path: Path) -> None:
    need_redis()
    server = RedisServer(tmp_path)
    async with two_gateways(shared(server)) as (_, (one, two), http):
        assert (await post(http, one.url, chat_body())).status == 200
        assert (await post(http, one.url, chat_body())).cache == "hit exact"
        await asyncio.to_thread(server.start)
        try:

            async def shares() -> bool:
                text = f"new {asyncio.get_running_loop().time()}"
                await post(http, one.url, chat_body(text, max_tokens=1))
                await asyncio.sleep(0.1)
                got = await post(http, two.url, chat_body(text, max_tokens=1), cache_control="only-if-cached")
                return got.status == 200

            await eventually(shares, within_s=20)
        finally:
            server.stop()
