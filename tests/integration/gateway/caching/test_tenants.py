"""Whose answer it is: the key says so, and nothing that a client writes."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from inferdock.config.settings import CacheSettings, KeysSettings
from inferdock.keys.store import KeyFile
from inferdock.sim.options import SimOptions
from tests.integration.gateway.caching.support import chat_body, platform


@pytest.fixture
def keys(tmp_path: Path) -> tuple[KeysSettings, dict[str, str]]:
    """Three keys: two of one tenant, one of another."""
    file = KeyFile(tmp_path / "keys.jsonl")
    texts = {}
    for name, tenant in (("a1", "team-a"), ("a2", "team-a"), ("b", "team-b")):
        _, texts[name] = file.create(name=name, now=time.time(), tenant=tenant)
    return KeysSettings(file=tmp_path / "keys.jsonl"), texts


async def test_answers_stay_within_a_tenant(keys) -> None:
    settings, texts = keys
    async with platform(keys=settings) as p:
        outcomes = {}
        for name in ("a1", "b", "a2", "b", "a1"):
            got = await p.post(chat_body(), authorization=f"Bearer {texts[name]}")
            outcomes.setdefault(name, []).append(got.cache)
        assert outcomes == {"a1": ["miss", "hit exact"], "b": ["miss", "hit exact"], "a2": ["hit exact"]}


CLAIMS = {
    "user": {"user": "team-a"},
    "tenant": {"tenant": "team-a"},
    "cache-salt": {"cache_salt": "team-a"},
    "metadata": {"metadata": {"tenant": "team-a"}},
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
async def test_a_client_cannot_say_who_it_is(keys, claim: dict) -> None:
    settings, texts = keys
    async with platform(keys=settings) as p:
        await p.post(chat_body(**claim), authorization=f"Bearer {texts['a1']}")
        got = await p.post(
            chat_body(**claim), authorization=f"Bearer {texts['b']}", x_tenant="team-a", x_inferdock_tenant="team-a"
        )
        assert got.cache == "miss"


async def test_a_flight_is_not_shared_between_tenants(keys) -> None:
    settings, texts = keys
    async with platform(keys=settings) as p:
        got = await asyncio.gather(
            *(p.post(chat_body(stream=True), authorization=f"Bearer {texts[name]}") for name in ("a1", "a2", "b"))
        )
        assert sorted(g.cache for g in got) == ["hit flight", "miss", "miss"]
        assert p.upstream == 2


async def test_a_hit_uses_none_of_the_keys_tokens(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.jsonl")
    _, text = file.create(name="small", now=time.time(), tokens_per_minute=60)
    async with platform(keys=KeysSettings(file=tmp_path / "keys.jsonl")) as p:
        statuses = [
            (await p.post(chat_body("hi", max_tokens=4), authorization=f"Bearer {text}")).status for _ in range(12)
        ]
        assert statuses == [200] * 12


async def test_a_flush_of_one_tenant_leaves_the_others(keys) -> None:
    settings, texts = keys
    async with platform(keys=settings) as p:
        for name in ("a1", "b"):
            await p.post(chat_body(), authorization=f"Bearer {texts[name]}")
        assert await p.admin("flush", tenant="team-a") == {"flushed": ["tenant team-a"]}
        got = {name: (await p.post(chat_body(), authorization=f"Bearer {texts[name]}")).cache for name in ("a1", "b")}
        assert got == {"a1": "miss", "b": "hit exact"}


async def test_what_was_begun_before_a_flush_is_not_served_after_it() -> None:
    async with platform(options=SimOptions(ttft_s=0.3, itl_s=0.001)) as p:
        running = asyncio.create_task(p.post(chat_body()))
        await asyncio.sleep(0.1)
        await p.admin("flush")
        assert (await running).status == 200
        assert (await p.post(chat_body())).cache == "miss"


async def test_explain_says_why_and_evict_drops_one(keys) -> None:
    settings, texts = keys
    async with platform(keys=settings) as p:
        body = chat_body()
        missed = await p.admin("explain", model="sim", tenant="team-a", body=body)
        assert missed["outcome"] == "miss"
        await p.post(body, authorization=f"Bearer {texts['a1']}")
        found = await p.admin("explain", model="sim", tenant="team-a", body=body)
        assert (found["outcome"], found["tier"]) == ("hit", "exact")
        other = await p.admin("explain", model="sim", tenant="team-b", body=body)
        assert other["outcome"] == "miss"
        bypassed = await p.admin("explain", model="sim", body={**body, "temperature": 1})
        assert (bypassed["outcome"], bypassed["reason"]) == ("bypass", "temperature")
        assert await p.admin("evict", key=found["key"]) == {"evicted": True}
        assert await p.admin("evict", key=found["key"]) == {"evicted": False}
        assert p.upstream == 1


WRONG = {
    "evict-no-hex": ("evict", b'{"key": "zz"}'),
    "evict-nothing": ("evict", b"{}"),
    "flush-unknown-field": ("flush", b'{"everything": true}'),
    "explain-no-json": ("explain", b"["),
    "explain-wrong-path": ("explain", b'{"model": "sim", "body": {}, "path": "/etc/passwd"}'),
}


@pytest.mark.parametrize(("name", "body"), WRONG.values(), ids=WRONG)
async def test_wrong_questions_to_the_admin_port_are_answered_400(name: str, body: bytes) -> None:
    async with platform() as p:
        async with p.http.post(f"{p.gateway.admin_url}/admin/cache/{name}", data=body) as response:
            assert response.status == 400
            assert json.loads(await response.read())["error"]["message"]


async def test_the_admin_port_says_when_nothing_uses_the_cache() -> None:
    async with platform(CacheSettings()) as p:
        async with p.http.get(f"{p.gateway.admin_url}/admin/cache") as response:
            assert response.status == 404
            assert (await response.json())["error"]["code"] == "cache_off"
