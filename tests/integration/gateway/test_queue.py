"""Requests that wait: for a busy replica, for a model that wakes from zero; and the division of traffic."""

from __future__ import annotations

import asyncio
import collections
import json

import aiohttp
import pytest

from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from tests.integration.gateway.test_relay import events, metric
from tests.support.gateway import running_gateway, specs
from tests.support.workers import running_workers

CHAT = {"model": "sim", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 10, "ignore_eos": True}
STREAM = CHAT | {"stream": True, "temperature": 0}
SLOW = SimOptions(ttft_s=0, itl_s=0.03)
FAST = SimOptions(ttft_s=0, itl_s=0.001)


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


async def ask(http: aiohttp.ClientSession, url: str, body: dict, **headers: str):
    async with http.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response:
        return response.status, response.headers, await response.text()


async def test_requests_beyond_the_replicas_limit_wait_here_and_are_all_answered(http):
    async with running_sim(SLOW) as replica, running_gateway([replica.url], max_in_flight_per_replica=2) as gateway:
        asked = [asyncio.create_task(ask(http, gateway.url, CHAT)) for _ in range(8)]
        await asyncio.sleep(0.1)
        assert replica.unfinished <= 2
        assert await metric(http, gateway.url, "llm_gateway_queue_waiting{") == 6
        assert [status for status, _, _ in await asyncio.gather(*asked)] == [200] * 8


async def test_the_more_urgent_request_overtakes(http):
    async with running_sim(SLOW) as replica, running_gateway([replica.url], max_in_flight_per_replica=1) as gateway:
        order: list[str] = []

        async def named(name: str, priority: int) -> None:
            await ask(http, gateway.url, CHAT | {"priority": priority})
            order.append(name)

        first = asyncio.create_task(named("first", 0))
        await asyncio.sleep(0.05)
        rest = [asyncio.create_task(named("later", 5)), asyncio.create_task(named("urgent", -5))]
        await asyncio.gather(first, *rest)
    assert order == ["first", "urgent", "later"]


async def test_a_full_queue_answers_429_with_retry_after(http):
    settings = {"max_in_flight_per_replica": 1, "queue_length": 1}
    async with running_sim(SLOW) as replica, running_gateway([replica.url], **settings) as gateway:
        answers = await asyncio.gather(*(ask(http, gateway.url, CHAT) for _ in range(5)))
        assert await metric(http, gateway.url, "llm_gateway_requests_turned_away_total{") == 3
    statuses = collections.Counter(status for status, _, _ in answers)
    assert statuses == {200: 2, 429: 3}
    assert all(int(headers["retry-after"]) >= 1 for status, headers, _ in answers if status == 429)


async def test_a_request_that_cannot_begin_in_the_clients_time_is_refused(http):
    async with running_sim(SLOW) as replica, running_gateway([replica.url], max_in_flight_per_replica=1) as gateway:
        running = asyncio.create_task(ask(http, gateway.url, CHAT | {"max_tokens": 100}))
        await asyncio.sleep(0.1)
        status, _, text = await ask(http, gateway.url, CHAT, **{"x-inferdock-timeout-ms": "200"})
        assert (status, json.loads(text)["error"]["code"]) == (503, "queue_timeout")
        assert (await running)[0] == 200


async def test_a_model_that_wakes_from_zero_is_waited_for_with_heartbeats(http):
    async with running_sim(FAST) as replica, running_gateway([], heartbeat_s=0.2) as gateway:
        gateway.server.replace_endpoints([], ["sim"])
        whole = asyncio.create_task(ask(http, gateway.url, CHAT))
        async with http.post(f"{gateway.url}/v1/chat/completions", json=STREAM) as response:
            beginning = await response.content.readany()
            assert beginning.startswith(b":")
            assert await metric(http, gateway.url, "llm_gateway_queue_waiting{") == 2
            gateway.server.replace_endpoints(specs([replica.url]), ["sim"])
            text = (beginning + await response.read()).decode()
        assert (await whole)[0] == 200
    said = "\n\n".join(event for event in text.split("\n\n") if not event.startswith(":"))
    assert events(said)[-1] == "[DONE]"
    assert response.headers["content-type"].startswith("text/event-stream")


async def test_a_model_that_does_not_wake_ends_in_an_error_event_after_heartbeats(http):
    async with running_gateway([], heartbeat_s=0.1, hold_timeout_s=0.5) as gateway:
        gateway.server.replace_endpoints([], ["sim"])
        status, _, text = await ask(http, gateway.url, STREAM)
    assert status == 200
    assert "no_ready_replica" in text
    assert "[DONE]" not in text


async def test_a_replica_that_refuses_after_heartbeats_is_quoted_in_an_event(http):
    async with running_sim(FAST) as replica, running_gateway([], heartbeat_s=0.1) as gateway:
        gateway.server.replace_endpoints([], ["sim"])
        asked = asyncio.create_task(ask(http, gateway.url, STREAM | {"max_tokens": -1}))
        await asyncio.sleep(0.4)
        gateway.server.replace_endpoints(specs([replica.url]), ["sim"])
        status, _, text = await asked
    assert status == 200
    assert "max_tokens must be at least 1" in text


async def test_a_declared_model_is_listed_and_an_unknown_one_is_404(http):
    async with running_gateway([]) as gateway:
        gateway.server.replace_endpoints([], ["sleeping"])
        async with http.get(f"{gateway.url}/v1/models") as response:
            assert [card["id"] for card in (await response.json())["data"]] == ["sleeping"]
        assert (await ask(http, gateway.url, CHAT))[0] == 404


async def shares(http: aiohttp.ClientSession, url: str, count: int, **headers: str) -> collections.Counter:
    answers = await asyncio.gather(*(ask(http, url, CHAT | {"max_tokens": 1}, **headers) for _ in range(count)))
    assert {status for status, _, _ in answers} == {200}
    return collections.Counter(headers["x-inferdock-revision"] for _, headers, _ in answers)


async def put_traffic(http: aiohttp.ClientSession, admin_url: str, weights: dict) -> int:
    async with http.put(f"{admin_url}/admin/traffic", json={"model": "sim", "weights": weights}) as response:
        return response.status


async def test_a_canary_gets_its_weight_of_the_traffic(http):
    async with running_sim(FAST) as one, running_sim(FAST) as two, running_gateway([]) as gateway:
        made = [*specs([one.url]), *specs(["http://127.0.0.1:1", two.url], revision="r2")[1:]]
        gateway.server.replace_endpoints(made)
        await gateway.until_ready(2)
        assert await put_traffic(http, gateway.admin_url, {"r1": 90, "r2": 10}) == 200
        assert await shares(http, gateway.url, 100) == {"r1": 90, "r2": 10}
        assert len(await shares(http, gateway.url, 20, **{"x-session-id": "one person"})) == 1
        assert await put_traffic(http, gateway.admin_url, {"r1": 0, "r2": 1}) == 200
        assert await shares(http, gateway.url, 10) == {"r2": 10}
        assert await put_traffic(http, gateway.admin_url, {"r1": -1}) == 400


async def test_workers_take_the_weights_too(http):
    async with running_sim(FAST) as one, running_sim(FAST) as two, running_workers([]) as gateway:
        gateway.parent.replace_endpoints(
            [*specs([one.url]), *specs(["http://127.0.0.1:1", two.url], revision="r2")[1:]], ["sim"]
        )
        await gateway.until(lambda status: [e["state"] for e in status["endpoints"]] == ["ready"] * 2)
        assert await put_traffic(http, gateway.admin_url, {"r1": 0, "r2": 1}) == 200
        async with asyncio.timeout(10):
            while await shares(http, gateway.url, 10) != {"r2": 10}:
                await asyncio.sleep(0.05)
