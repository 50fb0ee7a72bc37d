"""Streams that lose their replica after the first byte: they go on elsewhere, or end honestly."""

from __future__ import annotations

import asyncio
import json
import re

import aiohttp
import pytest

from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from inferdock.wire.http1 import LAST_CHUNK, chunk
from tests.integration.gateway.test_relay import ask, events, metric
from tests.support.gateway import RunningGateway, running_gateway, specs
from tests.support.scripted_replica import EVENT_STREAM, scripted_replica

FAST = SimOptions(ttft_s=0, itl_s=0.002)
MESSAGES = [{"role": "user", "content": "tell me of the harbour"}]
STREAM = {"model": "sim", "messages": MESSAGES, "max_tokens": 40, "stream": True, "temperature": 0}
WITH_USAGE = {"stream_options": {"include_usage": True}}
RESUMED = 'llm_gateway_stream_resumes_total{model="sim",outcome="resumed"}'
IMPOSSIBLE = 'llm_gateway_stream_resumes_total{model="sim",outcome="impossible"}'


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


async def complete(http: aiohttp.ClientSession, url: str, body: dict) -> str:
    async with http.post(f"{url}/v1/completions", json=body) as response:
        assert response.status == 200, await response.text()
        return await response.text()


async def undisturbed(http: aiohttp.ClientSession, route: str, body: dict) -> str:
    async with running_sim(FAST) as replica, running_gateway([replica.url]) as gateway:
        async with http.post(f"{gateway.url}/v1/{route}", json=body) as response:
            return await response.text()


CASES = {
    "chat": ("chat/completions", STREAM),
    "chat with usage": ("chat/completions", STREAM | WITH_USAGE),
    "chat that ends at its limit": ("chat/completions", STREAM | {"ignore_eos": True} | WITH_USAGE),
    "chat with a stop string": ("chat/completions", STREAM | {"stop": [" the ", "zebra zebra"], "ignore_eos": True}),
    "chat with a long stop string": ("chat/completions", STREAM | {"stop": "never comes at all"} | WITH_USAGE),
    "chat with a seed": ("chat/completions", STREAM | {"temperature": 0.9, "seed": 7} | WITH_USAGE),
    "chat with running usage": (
        "chat/completions",
        STREAM | {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    ),
    "chat with min_tokens": ("chat/completions", STREAM | {"min_tokens": 30}),
    "completion": (
        "completions",
        {"model": "sim", "prompt": "Once", "max_tokens": 40, "stream": True, "temperature": 0},
    ),
    "completion of default length": (
        "completions",
        {"model": "sim", "prompt": "Once", "stream": True, "temperature": 0},
    ),
    "completion of token ids": (
        "completions",
        {"model": "sim", "prompt": [0, 90, 91], "max_tokens": 30, "ignore_eos": True, "stream": True, "temperature": 0}
        | WITH_USAGE,
    ),
}
CUTS = ["cut:1", "cut:5", "cut:12", "badchunk:7", "badjson:6"]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("case", CASES)
async def test_a_stream_that_is_cut_goes_on_elsewhere_unnoticed(http, case, cut):
    route, body = CASES[case]
    expected = await undisturbed(http, route, body)
    async with running_sim(FAST, cut) as bad, running_sim(FAST) as good:
        async with running_gateway([bad.url, good.url]) as gateway:
            texts = []
            for _ in range(2):  # one of the two meets the bad replica
                async with http.post(f"{gateway.url}/v1/{route}", json=body) as response:
                    texts.append(await response.text())
            assert await metric(http, gateway.url, RESUMED) >= 1
    for text in texts:
        assert whole(text) == whole(expected)
        assert len({event["id"] for event in events(text) if event != "[DONE]"}) == 1


def whole(stream: str) -> dict:
    """What a client ends up with."""
    found: dict = {"text": "", "usage": None, "finish": None, "stop": None, "last": None}
    for event in events(stream):
        found["last"] = event if event == "[DONE]" else "event"
        if event == "[DONE]":
            continue
        assert "error" not in event, event
        found["usage"] = event.get("usage") or found["usage"]
        for choice in event["choices"]:
            assert choice.get("token_ids") is None
            found["text"] += choice["delta"].get("content") or "" if "delta" in choice else choice["text"]
            found["finish"] = choice["finish_reason"] or found["finish"]
            found["stop"] = choice.get("stop_reason") or found["stop"]
    if found["usage"]:
        found["usage"] = {k: found["usage"][k] for k in ("prompt_tokens", "completion_tokens", "total_tokens")}
    return found


async def test_a_stream_survives_several_replicas(http):
    expected = whole(await undisturbed(http, "chat/completions", STREAM | WITH_USAGE))
    async with running_sim(FAST, "cut:3") as one, running_sim(FAST, "cut:4") as two, running_sim(FAST) as three:
        async with running_gateway([one.url, two.url, three.url], resume_attempts=8) as gateway:
            for _ in range(6):
                _, text = await ask(http, gateway.url, STREAM | WITH_USAGE)
                assert whole(text) == expected


IMPOSSIBLE_BODIES = {
    "several choices": {"n": 2, "temperature": 1},
    "log-probabilities": {"logprobs": True},
    "tools": {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
    "structured output of a sampled answer": {"response_format": {"type": "json_object"}, "temperature": 1},
}


@pytest.mark.parametrize("case", IMPOSSIBLE_BODIES)
async def test_what_cannot_go_on_ends_with_an_honest_error(http, case):
    async with running_sim(FAST, "cut:1x1") as bad, running_gateway([bad.url]) as gateway:
        body = STREAM | {"ignore_eos": True} | IMPOSSIBLE_BODIES[case]  # no answer must end before the cut
        status, text = await ask(http, gateway.url, body)
        assert status == 200
        assert events(text)[-1]["error"]["code"] == "stream_cut"
        assert "[DONE]" not in text
        assert await metric(http, gateway.url, IMPOSSIBLE) == 1


async def test_resuming_can_be_switched_off_for_a_model(http):
    async with running_sim(FAST, "cut:5x1") as bad, running_sim(FAST) as good:
        async with running_gateway([bad.url, good.url], models={"sim": {"resume": False}}) as gateway:
            answers = [(await ask(http, gateway.url, STREAM))[1] for _ in range(2)]
    assert sum("stream_cut" in text for text in answers) == 1


async def test_a_replica_that_hangs_in_the_middle_loses_its_streams(http):
    expected = whole(await undisturbed(http, "chat/completions", STREAM))
    async with running_sim(FAST, "hang:8") as bad, running_sim(FAST) as good:
        async with running_gateway([bad.url, good.url], stall_timeout_s=0.5) as gateway:
            texts = await asyncio.gather(*(ask(http, gateway.url, STREAM) for _ in range(4)))
            assert await metric(http, gateway.url, RESUMED) >= 1
    assert all(whole(text) == expected for _, text in texts)


async def test_a_replica_that_is_shut_down_in_the_middle_loses_nothing(http):
    """vLLM ends answers with the reason ``abort`` when its shutdown timeout has passed."""
    slow = SimOptions(ttft_s=0, itl_s=0.03, shutdown_timeout_s=0.1)
    async with running_sim(slow) as leaving, running_sim(slow) as staying:
        async with running_gateway([leaving.url, staying.url]) as gateway:
            asked = [asyncio.create_task(ask(http, gateway.url, STREAM)) for _ in range(6)]
            await asyncio.sleep(0.4)
            await leaving.stop()
            texts = [(await task)[1] for task in asked]
            assert await metric(http, gateway.url, RESUMED) >= 1
    expected = whole(await undisturbed(http, "chat/completions", STREAM))
    assert all(whole(text) == expected for text in texts)


async def test_streams_leave_a_replica_that_is_taken_out_when_its_time_is_up(http):
    slow = SimOptions(ttft_s=0, itl_s=0.1)
    async with running_sim(slow) as leaving, running_sim(FAST) as staying:
        async with running_gateway([leaving.url], replica_drain_timeout_s=0.2) as gateway:
            asked = asyncio.create_task(ask(http, gateway.url, STREAM))
            await asyncio.sleep(0.5)
            await take(gateway, [staying.url])
            _, text = await asked
            assert await metric(http, gateway.url, RESUMED) == 1
    assert whole(text) == whole(await undisturbed(http, "chat/completions", STREAM))


async def take(gateway: RunningGateway, urls: list[str]) -> None:
    """Use these replicas only."""
    made = [spec for spec in specs(["http://127.0.0.1:1", *urls]) if spec.port != 1]
    gateway.server.replace_endpoints(made)


async def test_a_stream_waits_for_a_replica_of_its_revision(http):
    """All replicas are gone for a moment: comments keep the client's connection alive, then the stream goes on."""
    slow = SimOptions(ttft_s=0, itl_s=0.05)
    async with running_sim(slow, "cut:8x1") as only:
        async with running_gateway([only.url], heartbeat_s=0.2, health_interval_s=0.1) as gateway:
            async with http.post(f"{gateway.url}/v1/chat/completions", json=STREAM) as response:
                first = await response.content.readany()
                await take(gateway, [])
                while b"waiting" not in first:
                    first += await response.content.readany()
                gateway.server.replace_endpoints(specs([only.url]))
                text = (first + await response.read()).decode()
    assert whole(without_comments(text)) == whole(await undisturbed(http, "chat/completions", STREAM))


def without_comments(text: str) -> str:
    return "\n\n".join(event for event in text.split("\n\n") if not event.startswith(":"))


async def test_the_client_that_leaves_while_its_stream_waits_is_forgotten(http):
    async with running_sim(FAST, "cut:5x1") as only, running_gateway([only.url], health_interval_s=0.1) as gateway:
        async with http.post(f"{gateway.url}/v1/chat/completions", json=STREAM) as response:
            await response.content.readany()
            await take(gateway, [])
        async with asyncio.timeout(5):
            while gateway.server.status()["in_flight"]:
                await asyncio.sleep(0.02)


async def test_ids_that_the_client_asked_for_are_shown_over_the_cut(http):
    body = STREAM | {"return_token_ids": True}
    async with running_sim(FAST, "cut:5") as bad, running_sim(FAST) as good:
        async with running_gateway([bad.url, good.url]) as gateway:
            texts = [(await ask(http, gateway.url, body))[1] for _ in range(2)]
            assert await metric(http, gateway.url, RESUMED) >= 1
    ids = [
        [i for e in events(t) if e != "[DONE]" for c in e["choices"] for i in c.get("token_ids") or []] for t in texts
    ]
    assert ids[0] == ids[1]
    assert ids[0]


async def test_the_log_line_of_a_resumed_stream_says_so(http):
    async with running_sim(FAST, "cut:5") as bad, running_sim(FAST) as good:
        async with running_gateway([bad.url, good.url]) as gateway:
            for _ in range(2):
                await ask(http, gateway.url, STREAM)
            await asyncio.sleep(0.3)
            lines = [json.loads(line) for line in bytes(gateway.log).splitlines()]
    resumed = [line for line in lines if line.get("event") == "request" and line["resumes"]]
    assert {(line["outcome"], line["resumes"], line["status"]) for line in resumed} == {("answered", 1, 200)}


def scripted_event(choice: dict, **more: object) -> bytes:
    whole = {"id": "1", "object": "x", "created": 1, "model": "sim", "choices": [{"index": 0} | choice]} | more
    return chunk(b"data: " + json.dumps(whole, separators=(",", ":")).encode() + b"\n\n")


async def test_a_client_that_reads_slowly_loses_nothing_when_its_replica_dies_meanwhile():
    """Its stream fills all buffers, the replica is cut, and the client reads on only then."""
    words = ["w" * 8000 + str(number) for number in range(1200)]
    role = scripted_event(
        {"delta": {"role": "assistant", "content": ""}, "finish_reason": None}, prompt_token_ids=[1, 2]
    )
    tokens = [
        scripted_event({"delta": {"content": word}, "finish_reason": None, "token_ids": [number]})
        for number, word in enumerate(words)
    ]
    rest = [
        scripted_event({"text": "the rest", "finish_reason": None, "token_ids": [7]}),
        scripted_event({"text": "", "finish_reason": "stop", "token_ids": [8]}),
        chunk(b"data: [DONE]\n\n") + LAST_CHUNK,
    ]
    scripts = {1: [EVENT_STREAM, role, *tokens, None], 2: [EVENT_STREAM, *rest]}
    async with scripted_replica(lambda number: scripts[number]) as replica, running_gateway([replica.url]) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.server.port, limit=1024)
        payload = json.dumps(STREAM | {"max_tokens": 2000}).encode()
        kind = "content-type: application/json"
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{kind}\r\ncontent-length: {len(payload)}\r\n\r\n"
        writer.write(head.encode() + payload)
        async with asyncio.timeout(20):
            while not any(exchange.paused for exchange in gateway.server._front.pipeline._live):
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        text = b""
        while not text.endswith(b"\r\n0\r\n\r\n"):
            data = await reader.read(1 << 20)
            assert data, text[-300:]
            text += data
        writer.close()
    said = re.findall(rb'"content":"([^"]*)"', text)
    assert said == [b"", *[word.encode() for word in words], b"the rest", b""]


async def test_an_error_event_of_the_second_replica_leads_to_a_third(http):
    role = scripted_event({"delta": {"role": "assistant", "content": ""}, "finish_reason": None}, prompt_token_ids=[1])
    token = scripted_event({"delta": {"content": "one "}, "finish_reason": None, "token_ids": [5]})
    error = chunk(b'data: {"error":{"message":"EngineCore died","type":"InternalServerError","code":500}}\n\n')
    last = [
        scripted_event({"text": "two", "finish_reason": "stop", "token_ids": [6]}),
        chunk(b"data: [DONE]\n\n") + LAST_CHUNK,
    ]
    scripts = {1: [EVENT_STREAM, role, token, None], 2: [EVENT_STREAM, error, LAST_CHUNK], 3: [EVENT_STREAM, *last]}
    async with scripted_replica(lambda number: scripts[number]) as replica, running_gateway([replica.url]) as gateway:
        _, text = await ask(http, gateway.url, STREAM)
    assert whole(text)["text"] == "one two"
    assert whole(text)["last"] == "[DONE]"


async def test_a_replica_that_is_taken_out_keeps_its_streams_while_they_have_nowhere_to_go(http):
    slow = SimOptions(ttft_s=0, itl_s=0.06)
    async with running_sim(slow) as leaving, running_gateway([leaving.url], replica_drain_timeout_s=0.1) as gateway:
        asked = asyncio.create_task(ask(http, gateway.url, STREAM))
        await asyncio.sleep(0.4)
        gateway.server.replace_endpoints([], ["sim"])
        _, text = await asked
    assert whole(text) == whole(await undisturbed(http, "chat/completions", STREAM))
