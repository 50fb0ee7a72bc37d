"""Equal requests through a real gateway: what hits, what may not, and what an answer says about it."""

from __future__ import annotations

import asyncio
import json

import pytest
from openai import AsyncOpenAI

from inferdock.config.settings import CacheSettings, ModelCacheSettings, ModelRouteSettings
from inferdock.domain.endpoint import EndpointSpec
from tests.integration.gateway.caching.support import (
    EXACT_ONLY,
    chat_body,
    platform,
)


async def test_the_second_equal_request_is_answered_without_the_replica() -> None:
    async with platform() as p:
        first, second = await p.post(chat_body()), await p.post(chat_body())
        assert (first.cache, second.cache) == ("miss", "hit exact")
        assert second.text == first.text
        assert p.upstream == 1


async def test_a_hit_says_its_age_revision_and_that_its_usage_was_not_spent() -> None:
    async with platform() as p:
        first = await p.post(chat_body())
        await asyncio.sleep(1.1)
        second = await p.post(chat_body())
        assert int(second.headers["age"]) == 1
        assert second.headers["x-inferdock-revision"] == first.headers["x-inferdock-revision"] == "r1"
        assert float(second.headers["x-inferdock-cache-score"]) == 1
        usage = second.usage
        assert usage["response_cached"] is True
        assert usage["completion_tokens"] == first.usage["completion_tokens"]
        assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"]


@pytest.mark.parametrize("stored_as_stream", [False, True], ids=["stored-as-json", "stored-as-stream"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"], ids=["chat", "completion"])
async def test_one_entry_serves_streams_and_bodies(stored_as_stream: bool, path: str) -> None:
    body = chat_body()
    if path == "/v1/completions":
        body |= {"prompt": body.pop("messages")[0]["content"]}
    async with platform() as p:
        first = await p.post({**body, "stream": stored_as_stream}, path)
        streamed = await p.post({**body, "stream": True, "stream_options": {"include_usage": True}}, path)
        whole = await p.post(body, path)
        assert (first.cache, streamed.cache, whole.cache) == ("miss", "hit exact", "hit exact")
        texts = {
            "".join(c.get("text") or c.get("delta", {}).get("content") or "" for e in got.events for c in e["choices"])
            if got.events
            else got.data["choices"][0].get("text") or got.data["choices"][0]["message"]["content"]
            for got in (first, streamed, whole)
        }
        assert len(texts) == 1
        assert streamed.usage["completion_tokens"] == whole.usage["completion_tokens"]
        assert p.upstream == 1


async def test_the_usage_event_comes_only_where_it_was_asked_for() -> None:
    async with platform() as p:
        first = await p.post(chat_body(stream=True))
        second = await p.post(chat_body(stream=True))
        third = await p.post(chat_body(stream=True, stream_options={"include_usage": True}))
        assert first.usage is None
        assert second.usage is None
        assert third.usage is not None


async def test_the_official_client_takes_hits() -> None:
    async with platform() as p:
        client = AsyncOpenAI(base_url=p.gateway.url + "/v1", api_key="none")
        messages = [{"role": "user", "content": "where is the river"}]
        kept = {"model": "sim", "messages": messages, "temperature": 0, "max_tokens": 8}
        first = await client.chat.completions.create(**kept)
        second = await client.chat.completions.create(**kept)
        stream = await client.chat.completions.create(**kept, stream=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
        assert second.choices[0].message.content == first.choices[0].message.content == "".join(pieces)
        assert second.choices[0].finish_reason == first.choices[0].finish_reason
        assert second.id != first.id
        await client.close()


async def test_a_paced_replay_takes_its_time_and_says_the_same() -> None:
    async with platform(EXACT_ONLY.model_copy(update={"replay_tokens_per_s": 40.0})) as p:
        first = await p.post(chat_body())
        began = asyncio.get_running_loop().time()
        second = await p.post(chat_body(stream=True))
        assert second.cache == "hit exact"
        assert asyncio.get_running_loop().time() - began > 0.15  # 12 tokens at 40 a second
        assert second.text == first.text


OPT_OUTS = {
    "cache-control-no-cache": ({}, {"cache_control": "no-cache"}, "miss"),
    "cache-control-no-store": ({}, {"cache_control": "no-store"}, "bypass"),
    "max-age-0": ({}, {"cache_control": "max-age=0"}, "miss"),
    "body-no-cache": ({"cache": {"no-cache": True}}, {}, "miss"),
    "body-no-store": ({"cache": {"no-store": True}}, {}, "bypass"),
    "body-cache-false": ({"cache": False}, {}, "bypass"),
}


@pytest.mark.parametrize(("fields", "headers", "outcome"), OPT_OUTS.values(), ids=OPT_OUTS)
async def test_a_request_may_opt_out(fields: dict, headers: dict, outcome: str) -> None:
    async with platform() as p:
        await p.post(chat_body())
        got = await p.post(chat_body(**fields), **headers)
        assert (got.status, got.cache) == (200, outcome)
        assert p.upstream == 2


async def test_what_only_concerns_the_cache_does_not_reach_the_replica() -> None:
    async with platform() as p:
        seen = []
        original = p.sim._generate

        async def spy(request, *, chat):
            seen.append(await request.read())
            return await original(request, chat=chat)

        p.sim._generate = spy
        await p.post(chat_body(cache={"ttl": 60}))
        assert "cache" not in json.loads(seen[0])


async def test_a_wrong_cache_field_is_an_error_with_its_name() -> None:
    async with platform() as p:
        got = await p.post(chat_body(cache={"ttl": "soon"}))
        assert got.status == 400
        assert got.data["error"]["param"] == "cache.ttl"
        assert p.upstream == 0


async def test_only_if_cached_never_asks_the_replica() -> None:
    async with platform() as p:
        got = await p.post(chat_body(), cache_control="only-if-cached")
        assert (got.status, got.data["error"]["code"]) == (504, "not_cached")
        await p.post(chat_body())
        again = await p.post(chat_body(), cache_control="only-if-cached")
        assert again.cache == "hit exact"
        assert p.upstream == 1


BYPASSES = {
    "sampled": {"temperature": 0.7},
    "no-temperature": {"temperature": None},
    "two-choices": {"n": 2},
    "tools": {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}], "tool_choice": "auto"},
    "logprobs": {"logprobs": True},
    "picture": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    "many-turns": {"messages": [{"role": "user", "content": f"turn {i}"} for i in range(17)]},
}


@pytest.mark.parametrize("fields", BYPASSES.values(), ids=BYPASSES)
async def test_what_is_not_eligible_goes_by_the_cache(fields: dict) -> None:
    async with platform() as p:
        for _ in range(2):
            got = await p.post(chat_body(**fields))
            assert got.cache == "bypass"
            assert got.headers["x-inferdock-cache-reason"]


async def test_a_model_that_opted_in_caches_sampled_answers() -> None:
    models = {"sim": ModelRouteSettings(cache=ModelCacheSettings(enabled=True, any_temperature=True))}
    async with platform(CacheSettings(semantic=False), models=models) as p:
        first = await p.post(chat_body(temperature=1.0))
        second = await p.post(chat_body(temperature=1.0))
        assert (first.cache, second.cache) == ("miss", "hit exact")
        assert first.text == second.text


async def test_without_the_switch_nothing_is_cached() -> None:
    async with platform(CacheSettings()) as p:
        got = [await p.post(chat_body()) for _ in range(2)]
        assert [g.cache for g in got] == ["", ""]
        assert p.upstream == 2


async def test_an_entry_ends_at_its_second() -> None:
    async with platform(EXACT_ONLY.model_copy(update={"ttl_s": 2.0})) as p:
        await p.post(chat_body())
        begun = asyncio.get_running_loop().time()
        hits = []
        while asyncio.get_running_loop().time() - begun < 2.6:
            hits.append((asyncio.get_running_loop().time() - begun, (await p.post(chat_body())).cache))
            await asyncio.sleep(0.1)
        misses = [at for at, cache in hits if cache == "miss"]
        assert 1.5 <= misses[0] <= 2.2  # hits in between have not prolonged it
        assert all(cache == "hit exact" for at, cache in hits if at < 1.5)


async def test_a_request_may_shorten_the_life_of_its_answer() -> None:
    async with platform() as p:
        await p.post(chat_body(cache={"ttl": 1}))
        await asyncio.sleep(1.2)
        assert (await p.post(chat_body())).cache == "miss"


async def test_failed_answers_are_never_stored() -> None:
    async with platform() as p:
        bad = [await p.post(chat_body(max_tokens=10**9)) for _ in range(2)]
        assert [got.status for got in bad] == [400, 400]
        assert p.upstream == 2


async def test_a_release_finds_no_old_answer_and_a_rollback_finds_them_again() -> None:
    async with platform() as p:
        old = [EndpointSpec("replica-0", "127.0.0.1", p.sim.port, "sim", "r1", "digest-1")]
        new = [EndpointSpec("replica-1", "127.0.0.1", p.sim.port, "sim", "r2", "digest-2")]
        outcomes = []
        for specs in (old, new, old, new):
            p.gateway.server.replace_endpoints(specs)
            await p.gateway.until_ready(1)
            outcomes.append((await p.post(chat_body())).cache)
        assert outcomes == ["miss", "miss", "hit exact", "hit exact"]


async def test_a_revision_without_a_name_is_not_cached() -> None:
    async with platform() as p:
        p.gateway.server.replace_endpoints([EndpointSpec("replica-0", "127.0.0.1", p.sim.port, "sim", "")])
        await p.gateway.until_ready(1)
        got = await p.post(chat_body())
        assert (got.cache, got.headers["x-inferdock-cache-reason"]) == ("bypass", "revision")


async def test_hits_are_counted_by_tier_and_by_what_they_save() -> None:
    async with platform() as p:
        for _ in range(3):
            last = await p.post(chat_body())
        await p.post(chat_body(temperature=1))
        async with p.http.get(p.gateway.url + "/metrics") as response:
            text = await response.text()
        assert 'llm_cache_requests_total{model="sim",outcome="hit"} 2' in text
        assert 'llm_cache_requests_total{model="sim",outcome="miss"} 1' in text
        assert 'llm_cache_requests_total{model="sim",outcome="bypass"} 1' in text
        assert 'llm_cache_hits_total{model="sim",tier="exact"} 2' in text
        assert 'llm_cache_bypasses_total{model="sim",reason="temperature"} 1' in text
        saved = last.usage["completion_tokens"] * 2
        assert f'llm_cache_saved_tokens_total{{kind="output",model="sim"}} {saved}' in text
        assert "llm_cache_entries 1" in text


async def test_the_log_says_what_the_cache_did_and_never_the_prompt() -> None:
    async with platform() as p:
        for _ in range(2):
            await p.post(chat_body("my secret river"))
    lines = [json.loads(line) for line in p.gateway.log.splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [line["cache"] for line in requests] == ["miss", "hit"]
    assert [line["endpoint"] for line in requests] == ["replica-0", None]
    assert b"secret" not in p.gateway.log
