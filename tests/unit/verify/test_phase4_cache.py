"""Checks of the response cache pass on what is right, and fail on each thing that is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from inferdock.app.verify import cached
from inferdock.app.verify.phase4 import CHECKS
from inferdock.app.verify.target import Target
from inferdock.config.settings import CacheSettings
from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from tests.support.gateway import running_gateway
from tests.support.verify_scripts import ScriptedPlatform, lone_target, outcome, served

PAIRS = len(cached.PAIRS)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Nobody indexes anything here, so nobody waits for it."""
    monkeypatch.setattr(cached, "INDEXED_S", 0.0)


def _counted(requests: int, hits: int) -> str:
    return (
        f'llm_cache_requests_total{{model="m",outcome="x"}} {requests}\n'
        f'llm_cache_hits_total{{model="m",tier="exact"}} {hits}\n'
    )


@pytest.mark.parametrize(
    ("cache", "metrics", "expected"),
    [
        (["miss", "hit exact"], [_counted(5, 1), _counted(7, 2)], "pass"),
        (["miss", "hit exact"], [_counted(5, 1), _counted(9, 4)], "pass"),
        (["miss", "hit exact"], [_counted(5, 1), _counted(7, 3)], "fail"),
        (["miss", "hit exact"], [_counted(5, 1)], "fail"),
        (["miss"], [_counted(5, 1), _counted(7, 2)], "fail"),
        (["hit exact"], [_counted(5, 1), _counted(7, 2)], "fail"),
        (["miss", "hit semantic"], [_counted(5, 1), _counted(7, 2)], "fail"),
        (None, [""], "needs"),
    ],
)
async def test_equal_requests(cache: list[str] | None, metrics: list[str], expected: str):
    async with served(ScriptedPlatform(cache=cache, metrics=metrics)) as target:
        assert await outcome(CHECKS, "4.3.equal", target) == expected


@pytest.mark.parametrize(
    ("cache", "expected"),
    [
        (["miss"] * PAIRS + ["hit exact"] * PAIRS + ["miss"], "pass"),
        (["miss"] * PAIRS + ["hit exact"] + ["miss"], "fail"),
        (["bypass"], "fail"),
        (None, "needs"),
    ],
)
async def test_the_rate_of_hits(cache: list[str] | None, expected: str):
    async with served(ScriptedPlatform(cache=cache)) as target:
        assert await outcome(CHECKS, "4.3.rate", target) == expected


ON = {"semantic": {"state": "ready", "problem": ""}, "redis": None}


@pytest.mark.parametrize(
    ("cache", "stats", "expected"),
    [
        (["miss"] * PAIRS + ["hit semantic"], ON, "pass"),
        (["miss"] * PAIRS + ["hit exact"], ON, "fail"),
        (["miss"], ON, "fail"),
        (["miss"], {"semantic": {"state": "off"}}, "needs"),
        (["miss"], None, "needs"),
    ],
)
async def test_similar_requests(cache: list[str], stats: Mapping[str, Any] | None, expected: str):
    async with served(ScriptedPlatform(cache=cache, stats=stats)) as target:
        assert await outcome(CHECKS, "4.3.similar", target) == expected


@pytest.mark.parametrize(
    ("redis", "expected"),
    [
        ({"connected": True, "synced": True}, "pass"),
        ({"connected": False, "synced": True}, "fail"),
        ({"connected": True, "synced": False}, "fail"),
        (None, "needs"),
    ],
)
async def test_redis(redis: Mapping[str, bool] | None, expected: str):
    async with served(ScriptedPlatform(stats=ON | {"redis": redis})) as target:
        assert await outcome(CHECKS, "4.3.redis", target) == expected


def _lookups(fast: int, all_: int, tier: str = "semantic") -> str:
    name = "llm_cache_lookup_seconds_bucket"
    return f'{name}{{tier="{tier}",le="0.005"}} {fast}\n{name}{{tier="{tier}",le="+Inf"}} {all_}\n'


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ([_lookups(0, 10), _lookups(20, 30)], "pass"),
        ([_lookups(0, 0), _lookups(18, 20)], "fail"),
        ([_lookups(0, 0) + _lookups(0, 0, "exact"), _lookups(9, 10) + _lookups(990, 990, "exact")], "fail"),
        ([_lookups(5, 5)], "fail"),
    ],
    ids=["fast", "slow", "slow-in-one-tier", "none"],
)
async def test_lookups_are_quick(metrics: list[str], expected: str):
    async with served(ScriptedPlatform(cache=["miss"], metrics=metrics)) as target:
        assert await outcome(CHECKS, "4.3.lookup", target) == expected


@pytest.mark.parametrize(
    ("cache", "expected"),
    [
        (["miss", "hit exact", "miss"], "pass"),
        (["miss", "hit exact"], "fail"),
        (["miss"], "fail"),
        (["hit exact", "hit exact", "miss"], "fail"),
    ],
)
async def test_answers_end(monkeypatch, cache: list[str], expected: str):
    monkeypatch.setattr(cached, "TTL_S", 0)
    async with served(ScriptedPlatform(cache=cache)) as target:
        assert await outcome(CHECKS, "4.3.ttl", target) == expected


async def test_a_real_gateway_caches_as_it_should():
    async with running_sim(SimOptions(model="sim", itl_s=0.001)) as sim, lone_target() as lone:
        async with running_gateway([sim.url], cache=CacheSettings(enabled=True, semantic=False)) as gateway:
            target = Target(
                url=gateway.url, admin_url=gateway.admin_url, model="sim", http=lone.http, cost_per_hour=1.0
            )
            for name in ("4.3.equal", "4.3.rate", "4.3.ttl", "4.3.lookup"):
                assert await outcome(CHECKS, name, target) == "pass", name
            for name in ("4.3.similar", "4.3.redis"):
                assert await outcome(CHECKS, name, target) == "needs", name
