"""Requests that mean the same, through a real gateway with the real embedding model and guard."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from inferdock.config.settings import CacheRedisSettings, CacheSettings
from inferdock.sim.options import SimOptions
from inferdock.sim.server import SimServer
from tests.integration.gateway.caching.support import Platform, chat_body, platform, post
from tests.support.gateway import running_gateway
from tests.support.redis_server import running_redis

SEMANTIC = CacheSettings(enabled=True, ttl_jitter=0.0, audit_ratio=0.0, lookup_budget_s=0.008)
ASKED = "How can I reset my password?"

SAME = {
    "surface": "how can i reset my password",
    "please": "Please, how can I reset my password?",
    "white-space": "  How can I   reset my password ? ",
    "other-words": "How do I reset my password?",
}
DIFFERENT = {
    "negation": "How can I not reset my password?",
    "other-object": "How can I reset my router?",
    "number": "How can I reset my 2 passwords?",
    "opposite": "How can I keep my password?",
    "unrelated": "What is the capital of France?",
}


async def stored(p: Platform, text: str = ASKED, **fields: object) -> None:
    """Put one answer into the cache, and wait until it can be found by meaning."""
    await p.semantic()
    await p.post(chat_body(text, **fields))
    async with asyncio.timeout(10):
        while (await p.admin())["vectors"] < 1:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
async def test_what_means_the_same_gets_the_stored_answer(text: str) -> None:
    async with platform(SEMANTIC) as p:
        await stored(p)
        got = await p.post(chat_body(text, stream=True))
        assert got.cache == "hit semantic"
        assert 0.9 < float(got.headers["x-inferdock-cache-score"]) <= 1
        assert p.upstream == 1


@pytest.mark.parametrize("text", DIFFERENT.values(), ids=DIFFERENT)
async def test_what_means_something_else_does_not(text: str) -> None:
    async with platform(SEMANTIC) as p:
        await stored(p)
        assert (await p.post(chat_body(text))).cache == "miss"


ELSEWHERE = {
    "system-prompt": {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ASKED}]},
    "history": {
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "hello"},
            {"role": "user", "content": SAME["surface"]},
        ]
    },
    "max-tokens": {"max_tokens": 13},
    "top-p": {"top_p": 0.5},
    "format": {"response_format": {"type": "json_object"}},
    "user": {"user": "somebody"},
}


@pytest.mark.parametrize("fields", ELSEWHERE.values(), ids=ELSEWHERE)
async def test_all_else_must_be_equal(fields: dict) -> None:
    async with platform(SEMANTIC) as p:
        await stored(p)
        assert (await p.post(chat_body(SAME["surface"], **fields))).cache in ("miss", "bypass")
        assert (await p.post(chat_body(SAME["surface"]))).cache == "hit semantic"


async def test_explain_names_the_nearest_message_and_the_guards_reason() -> None:
    async with platform(SEMANTIC) as p:
        await stored(p)
        said = await p.admin("explain", model="sim", body=chat_body(DIFFERENT["negation"]))
        assert said["outcome"] == "miss"
        assert said["candidate"] == ASKED
        assert said["reason"] not in ("", "empty")
        assert said["score"] > 0.8
        assert said["entries"] == 1


async def test_a_message_that_is_too_long_is_only_found_if_it_is_equal() -> None:
    async with platform(SEMANTIC) as p:
        long = "tell me about the river and the bridge " * 60
        await stored(p)
        await p.post(chat_body(long))
        assert (await p.post(chat_body("do " + long))).cache == "miss"
        assert (await p.post(chat_body(long))).cache == "hit exact"


async def test_another_gateway_finds_it_by_meaning_within_a_second(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        shared = SEMANTIC.model_copy(update={"redis": CacheRedisSettings(url=server.url, timeout_s=0.5)})
        async with platform(shared) as one, running_gateway([one.sim.url], cache=shared) as two:
            async with one.http.get(f"{two.admin_url}/admin/cache") as response:
                assert response.status == 200
            await stored(one)
            async with asyncio.timeout(20):
                while (await (await one.http.get(f"{two.admin_url}/admin/cache")).json())["vectors"] < 1:
                    await asyncio.sleep(0.02)
            got = await post(one.http, two.url, chat_body(SAME["other-words"]))
            assert got.cache == "hit semantic"
        # A gateway that starts later knows it too.
        async with platform(shared) as late:
            async with asyncio.timeout(20):
                while (await late.admin())["vectors"] < 1:
                    await asyncio.sleep(0.02)
            await late.semantic()
            assert (await late.post(chat_body(SAME["other-words"]))).cache == "hit semantic"


async def test_equal_bodies_at_two_gateways_are_one_generation_although_a_vector_is_made_first(tmp_path: Path) -> None:
    with running_redis(tmp_path) as server:
        shared = SEMANTIC.model_copy(update={"redis": CacheRedisSettings(url=server.url, timeout_s=0.5)})
        slow = SimOptions(ttft_s=0.2, itl_s=0.01)
        async with platform(shared, slow) as one, running_gateway([one.sim.url], cache=shared) as two:
            await one.semantic()
            for number in range(5):
                body = chat_body(f"{ASKED} ({'abcde'[number]})")
                before = one.upstream
                got = await asyncio.gather(*(post(one.http, url, body) for url in (one.gateway.url, two.url) * 3))
                assert len({answer.text for answer in got}) == 1
                assert one.upstream == before + 1


class Fickle(SimServer):
    """A replica that says something else each time, and judges as it is told.

    Attributes:
        verdict: what it says as a judge.
        judged: questions that it was asked as a judge.
        delay_s: until it answers.
    """

    said = 0
    verdict = "YES"
    judged = 0
    delay_s = 0.0

    async def _generate(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        body = json.loads(await request.read())
        if "YES or NO" in body["messages"][-1]["content"]:
            self.judged += 1
            text = self.verdict
        else:
            self.said += 1
            await asyncio.sleep(self.delay_s)
            text = f"The answer is {self.said * 17}."
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
        document = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "sim"}
        return web.json_response({**document, "choices": [choice], "usage": usage})


async def test_wrong_hits_are_measured_and_the_cache_falls_back_by_itself() -> None:
    """Each regenerated answer differs: after a few checks only equal requests hit."""
    audited = SEMANTIC.model_copy(update={"audit_ratio": 1.0, "wrong_bound": 0.05})
    async with fickle_platform(audited) as (p, _):
        await stored(p)
        outcomes = []
        for number in range(30):
            outcomes.append((await p.post(chat_body(f"{' ' * number}how do i reset my password"))).cache)
            await asyncio.sleep(0.1)
            rows = (await p.admin())["audits"]
            if rows and rows[0]["wrong"] is not None and outcomes[-1] == "miss":
                break
        assert "hit semantic" in outcomes
        assert outcomes[-1] == "miss"
        async with p.http.get(p.gateway.url + "/metrics") as response:
            text = await response.text()
        assert 'llm_cache_wrong_hit_ratio{bound="point",model="sim",partition_class="<1k"} 1' in text
        assert 'llm_cache_audited_hits_total{model="sim",partition_class="<1k",verdict="different"}' in text


NEAR = "I forgot my password, how can I reset it?"


async def test_a_judge_promotes_near_misses_that_got_no_answer_of_their_own() -> None:
    judged = SEMANTIC.model_copy(update={"judge_model": "sim"})
    async with fickle_platform(judged) as (p, sim):
        await stored(p)
        said = await p.admin("explain", model="sim", body=chat_body(NEAR))
        assert (said["outcome"], said["candidate"]) == ("miss", ASKED)
        sim.delay_s = 0.5
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):  # the client gives up
                await p.post(chat_body(NEAR))
        sim.delay_s = 0.0
        async with asyncio.timeout(20):
            while (await p.admin("explain", model="sim", body=chat_body(NEAR)))["outcome"] != "hit":
                await asyncio.sleep(0.1)
        assert sim.judged == 1
        assert (await p.post(chat_body(NEAR))).text == "The answer is 17."


async def test_a_judge_that_says_no_promotes_nothing_and_answered_requests_are_not_judged() -> None:
    judged = SEMANTIC.model_copy(update={"judge_model": "sim"})
    async with fickle_platform(judged) as (p, sim):
        sim.verdict = "NO"
        await stored(p)
        assert (await p.post(chat_body(NEAR))).cache == "miss"
        await asyncio.sleep(1.0)
        assert sim.judged == 0
        assert (await p.post(chat_body(NEAR))).text == "The answer is 34."


@contextlib.asynccontextmanager
async def fickle_platform(cache: CacheSettings) -> AsyncIterator[tuple[Platform, Fickle]]:
    """A gateway before a fickle replica."""
    sim = Fickle(SimOptions())
    await sim.start()
    try:
        async with running_gateway([sim.url], cache=cache) as gateway:
            async with aiohttp.ClientSession() as http:
                yield Platform(gateway, sim, http), sim
    finally:
        await sim.stop()
