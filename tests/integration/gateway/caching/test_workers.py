"""A gateway of several processes: each caches for itself, or all by Redis; the admin port speaks for all."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from inferdock.config.settings import CacheRedisSettings, CacheSettings
from tests.integration.gateway.caching.support import EXACT_ONLY, chat_body, counting_sim, post
from tests.support.redis_server import running_redis
from tests.support.workers import RunningWorkers, running_workers


async def ask(http: aiohttp.ClientSession, gateway: RunningWorkers, name: str = "", **body: Any) -> dict[str, Any]:
    """Ask the admin port about the cache."""
    url = f"{gateway.admin_url}/admin/cache" + (f"/{name}" if name else "")
    async with http.request("POST" if name else "GET", url, json=body if name else None) as response:
        return await response.json()


async def many(gateway: RunningWorkers, body: dict[str, Any], count: int = 40) -> list[str]:
    """Outcomes of equal requests over connections of their own, which reach both workers."""
    outcomes = []
    for _ in range(count):
        async with aiohttp.ClientSession() as http:
            outcomes.append((await post(http, gateway.url, body)).cache)
    return outcomes


async def test_each_worker_keeps_its_own_entries_without_redis() -> None:
    async with counting_sim() as sim, running_workers([sim.url], cache=EXACT_ONLY) as gateway:
        outcomes = await many(gateway, chat_body())
        assert 1 <= outcomes.count("miss") <= 2
        assert sim.generations == outcomes.count("miss")


async def test_workers_share_by_redis(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        cache = EXACT_ONLY.model_copy(update={"redis": CacheRedisSettings(url=server.url, timeout_s=0.5)})
        async with counting_sim() as sim, running_workers([sim.url], cache=cache) as gateway:
            async with aiohttp.ClientSession() as http:
                await post(http, gateway.url, chat_body())
            await asyncio.sleep(0.2)
            assert set(await many(gateway, chat_body())) == {"hit exact"}
            assert sim.generations == 1


async def test_the_admin_port_adds_up_flushes_and_explains_over_all_workers() -> None:
    async with counting_sim() as sim, running_workers([sim.url], cache=EXACT_ONLY) as gateway:
        async with aiohttp.ClientSession() as http:
            await many(gateway, chat_body())
            stats = await ask(http, gateway)
            assert sum(stats["requests"].values()) == 40
            assert stats["entries"] == stats["requests"]["miss"]
            found = await ask(http, gateway, "explain", model="sim", body=chat_body())
            assert found["outcome"] == "hit"
            assert await ask(http, gateway, "evict", key=found["key"]) == {"evicted": True}
            assert (await ask(http, gateway, "explain", model="sim", body=chat_body()))["outcome"] == "miss"
            await many(gateway, chat_body())
            assert await ask(http, gateway, "flush") == {"flushed": ["all"]}
            assert (await ask(http, gateway, "explain", model="sim", body=chat_body()))["outcome"] == "miss"
            async with http.get(gateway.url + "/metrics") as response:
                text = await response.text()
            assert 'llm_cache_requests_total{model="sim",outcome="hit"}' in text


async def test_the_admin_port_of_workers_says_when_nothing_uses_the_cache() -> None:
    async with counting_sim() as sim, running_workers([sim.url], cache=CacheSettings()) as gateway:
        async with aiohttp.ClientSession() as http:
            assert (await ask(http, gateway))["error"]["message"].startswith("No model uses the response cache")
