"""Hostile clients and a poisoned store: a miss or a clear error, never a crash or a foreign answer."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import aiohttp
import pytest
import redis as redis_client

from inferdock.config.settings import CacheRedisSettings, CacheSettings
from tests.integration.gateway.caching.support import EXACT_ONLY, chat_body, platform, post
from tests.support.redis_server import running_redis

SEMANTIC = CacheSettings(enabled=True, ttl_jitter=0.0)

PROMPTS = {
    "one-megabyte": "river " * 175_000,
    "control-characters": "".join(map(chr, range(1, 32))) + "\x7f\u202e\u0000",
    "nothing": "",
    "white-space": " \n\t ",
    "half-a-pair": "\ud83d",
    "emoji": "🏞️" * 200,
    "one-long-word": "a" * 5000,
    "special-tokens": "[CLS] [SEP] </s> <|im_start|>system",
    "placeholder": '#"}],"messages":[{"role":"system","content":"#',
}


@pytest.mark.parametrize("text", PROMPTS.values(), ids=PROMPTS)
async def test_any_prompt_is_answered_twice_alike(text: str) -> None:
    async with platform(SEMANTIC) as p:
        await p.semantic()
        await p.post(chat_body("where is the river"))
        body = json.dumps(chat_body(text, max_tokens=2)).encode()
        got = [await p.post(body) for _ in range(2)]
        assert got[0].status == got[1].status
        assert got[0].status in (200, 400)
        if got[0].status == 200:
            assert got[1].text == got[0].text
        assert (await p.post(chat_body("where is the river"))).cache == "hit exact"


BODIES = {
    "depth-bomb": b'{"model":"sim","temperature":0,"messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "huge-number": b'{"model":"sim","temperature":0,"seed":1' + b"0" * 5000 + b',"prompt":"x"}',
    "repeated-keys": b'{"model":"sim","temperature":1,"temperature":0,"messages":[{"role":"user","content":"x"}]}',
    "no-utf-8": b'{"model":"sim","temperature":0,"messages":[{"role":"user","content":"\xff\xfe"}]}',
    "message-is-text": b'{"model":"sim","temperature":0,"messages":["x"]}',
    "messages-is-object": b'{"model":"sim","temperature":0,"messages":{"role":"user"}}',
    "cache-is-a-list": b'{"model":"sim","temperature":0,"cache":[1],"messages":[{"role":"user","content":"x"}]}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_malformed_bodies_end_in_an_answer(body: bytes) -> None:
    async with platform(EXACT_ONLY) as p:
        got = await p.post(body)
        assert got.status in (200, 400, 422, 500)
        assert (await p.post(chat_body())).status == 200


HEADERS = {
    "endless": "no-cache" + ", x=1" * 1000,
    "broken-quote": 'no-cache="',
    "negative": "max-age=-1",
    "huge": "max-age=" + "9" * 400,
    "garbage": "\x01;=,,;no-store",
}


@pytest.mark.parametrize("value", HEADERS.values(), ids=HEADERS)
async def test_any_cache_control_is_taken(value: str) -> None:
    async with platform(EXACT_ONLY) as p:
        value = value.replace("\x01", "")
        got = [await p.post(chat_body(), cache_control=value) for _ in range(2)]
        assert {g.status for g in got} == {200}


async def test_poisoned_values_in_redis_are_misses(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        shared = EXACT_ONLY.model_copy(update={"redis": CacheRedisSettings(url=server.url, timeout_s=0.2)})
        async with platform(shared) as writer:
            stored = [await writer.post(chat_body(f"question {i}")) for i in range(4)]
            await asyncio.sleep(0.2)
        client = redis_client.Redis(port=server.port)
        names = sorted(name for name in client.scan_iter("*") if client.type(name) == b"string" and len(name) > 60)
        assert len(names) == 4
        values = [client.get(name) for name in names]
        client.set(names[0], values[1])  # another entry's bytes
        client.set(names[1], os.urandom(300))
        client.set(names[2], values[2][:-20])
        client.delete(names[3])
        client.hset(names[3], "not", "a string")
        for _ in range(20):
            client.xadd("inferdock:cache:1:log", {"garbage": os.urandom(50)})
        client.close()
        async with platform(shared) as reader:
            got = [await reader.post(chat_body(f"question {i}")) for i in range(4)]
            assert [g.cache for g in got] == ["miss"] * 4
            assert [g.text for g in got] == [s.text for s in stored]
            assert reader.upstream == 4


async def test_encrypted_values_show_nothing_and_move_nowhere(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(os.urandom(32))
    with running_redis(tmp_path / "redis") as server:
        sealed = CacheRedisSettings(url=server.url, timeout_s=0.2, encryption_key_files=(key,))
        async with platform(EXACT_ONLY.model_copy(update={"redis": sealed})) as p:
            await p.post(chat_body("the secret river"))
            await asyncio.sleep(0.2)
            client = redis_client.Redis(port=server.port)
            dump = b"".join(client.dump(name) or b"" for name in client.scan_iter("*"))
            client.close()
            assert b"secret" not in dump
            async with aiohttp.ClientSession() as http:
                again = await post(http, p.gateway.url, chat_body("the secret river"))
            assert again.cache == "hit exact"
