"""The gateway's replica side: streams, usage, retries, cuts, cancels, drain."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from inferdock.wire.http1 import LAST_CHUNK, chunk
from tests.support.gateway import running_gateway, specs
from tests.support.scripted_replica import EVENT_STREAM, scripted_replica

FAST = SimOptions(ttft_s=0, itl_s=0.001)
ATTEMPTS_FAILED = 'llm_gateway_attempts_total{model="sim",outcome="failed",revision="r1"}'
ATTEMPTS_CUT = 'llm_gateway_attempts_total{model="sim",outcome="cut",revision="r1"}'
CHAT = {"model": "sim", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20, "ignore_eos": True}
STREAM = {**CHAT, "stream": True, "temperature": 0}


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


async def ask(http: aiohttp.ClientSession, url: str, body: dict) -> tuple[int, str]:
    async with http.post(f"{url}/v1/chat/completions", json=body) as response:
        return response.status, await response.text()


def events(text: str) -> list:
    found = [event.removeprefix("data: ") for event in text.split("\n\n") if event]
    return [event if event == "[DONE]" else json.loads(event) for event in found]


def text_of(stream: str) -> str:
    return "".join(
        e["choices"][0]["delta"].get("content", "") for e in events(stream) if e != "[DONE]" and e["choices"]
    )


async def metric(http: aiohttp.ClientSession, url: str, prefix: str) -> float:
    async with http.get(f"{url}/metrics") as response:
        lines = [line for line in (await response.text()).splitlines() if line.startswith(prefix)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def test_a_stream_has_the_bytes_of_the_replica_but_for_our_usage_event(http):
    async with running_sim(FAST) as replica, running_gateway([replica.url]) as gateway:
        _, direct = await ask(http, replica.url, STREAM)
        _, through = await ask(http, gateway.url, STREAM)
    assert text_of(through) == text_of(direct)
    assert len(events(through)) == len(events(direct))
    assert all(e == "[DONE]" or "usage" not in e for e in events(through))


async def test_the_usage_event_stays_for_a_client_that_asked(http):
    async with running_sim(FAST) as replica, running_gateway([replica.url]) as gateway:
        _, text = await ask(http, gateway.url, {**STREAM, "stream_options": {"include_usage": True}})
    assert events(text)[-2]["usage"]["completion_tokens"] == 20


async def test_tokens_and_times_of_streams_are_counted_exactly(http):
    async with running_sim(FAST) as replica, running_gateway([replica.url]) as gateway:
        await ask(http, gateway.url, STREAM)
        await ask(http, gateway.url, CHAT)
        assert await metric(http, gateway.url, "llm_gateway_output_tokens_total{") == 40
        assert await metric(http, gateway.url, "llm_gateway_prompt_tokens_total{") > 0
        assert await metric(http, gateway.url, "llm_gateway_time_to_first_token_seconds_count{") == 1
        assert await metric(http, gateway.url, "llm_gateway_time_per_output_token_seconds_count{") == 1


async def test_a_usage_event_that_shares_a_chunk_with_others_is_taken_out_alone(http):
    token = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
    script = [EVENT_STREAM + chunk(token + usage + b"data: [DONE]\n\n") + LAST_CHUNK]
    async with scripted_replica(script) as replica, running_gateway([replica.url]) as gateway:
        _, text = await ask(http, gateway.url, STREAM)
        assert text.encode() == token + b"data: [DONE]\n\n"
        assert await metric(http, gateway.url, "llm_gateway_prompt_tokens_total{") == 3


async def test_a_usage_event_cut_in_two_reads_is_still_taken_out(http):
    usage = chunk(b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n')
    rest = chunk(b"data: [DONE]\n\n") + LAST_CHUNK
    script = [EVENT_STREAM + usage[:30], 0.05, usage[30:] + rest]
    async with scripted_replica(script) as replica, running_gateway([replica.url]) as gateway:
        assert await ask(http, gateway.url, STREAM) == (200, "data: [DONE]\n\n")


async def test_the_clients_key_and_hop_by_hop_headers_stay_with_the_gateway(http):
    script = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"]
    headers = {"Authorization": "Bearer secret", "Connection": "keep-alive, X-Private", "X-Private": "1", "TE": "gzip"}
    async with scripted_replica(script) as replica, running_gateway([replica.url]) as gateway:
        async with http.post(f"{gateway.url}/v1/chat/completions", json=CHAT, headers=headers) as response:
            await response.read()
        head = replica.requests[0].partition(b"\r\n\r\n")[0].lower()
        assert b"secret" not in bytes(gateway.log)
    assert not any(name in head for name in (b"authorization", b"x-private", b"\r\nte:"))
    assert b"x-request-id: req-" in head


async def test_the_body_reaches_the_replica_byte_for_byte(http):
    body = b'{ "model":"sim", "messages" : [],\n "unknown": {"\xc3\xa9": 1e3} }'
    script = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"]
    headers = {"content-type": "application/json"}
    async with scripted_replica(script) as replica, running_gateway([replica.url]) as gateway:
        async with http.post(f"{gateway.url}/v1/chat/completions", data=body, headers=headers) as response:
            await response.read()
    assert replica.requests[0].endswith(b"\r\n\r\n" + body)


@pytest.mark.parametrize("fault", ["refuse", "garbage", "status:503", "status:502"])
async def test_a_replica_that_fails_before_its_first_byte_is_replaced_unnoticed(http, fault):
    async with running_sim(FAST, fault) as bad, running_sim(FAST) as good:
        async with running_gateway([bad.url, good.url]) as gateway:
            answers = [await ask(http, gateway.url, body) for body in [CHAT, STREAM] * 4]
            assert {status for status, _ in answers} == {200}
            assert await metric(http, gateway.url, ATTEMPTS_FAILED) > 0


async def test_a_stream_that_dies_before_its_first_token_is_started_elsewhere(http):
    script = [EVENT_STREAM, 0.05, None]
    async with scripted_replica(script) as bad, running_sim(FAST) as good:
        async with running_gateway([bad.url, good.url]) as gateway:
            texts = {text_of((await ask(http, gateway.url, STREAM))[1]) for _ in range(4)}
    assert len(texts) == 1
    assert bad.requests


@pytest.mark.parametrize("fault", ["cut:5", "badchunk:5"])
async def test_a_stream_cut_in_the_middle_ends_with_an_honest_error_event(http, fault):
    async with running_sim(FAST, fault) as replica, running_gateway([replica.url], resume=False) as gateway:
        status, text = await ask(http, gateway.url, STREAM)
        last = events(text)[-1]
        assert status == 200
        assert last["error"]["code"] == "stream_cut"
        assert await metric(http, gateway.url, ATTEMPTS_CUT) == 1


async def test_a_whole_answer_cut_in_the_middle_is_seen_as_cut(http):
    script = [b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"half":', None]
    async with scripted_replica(script) as replica, running_gateway([replica.url]) as gateway:
        with pytest.raises(aiohttp.ClientPayloadError):
            await ask(http, gateway.url, CHAT)


async def test_a_silent_replica_is_given_up_after_its_time(http):
    async with running_sim(FAST, "hang") as replica:
        async with running_gateway([replica.url], response_timeout_s=0.3, attempts=1) as gateway:
            status, text = await ask(http, gateway.url, CHAT)
    assert (status, json.loads(text)["error"]["code"]) == (504, "replica_timeout")


async def test_bytes_behind_an_answer_reach_nobody(http):
    script = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"]
    async with scripted_replica(script) as replica, running_gateway([replica.url]) as gateway:
        assert [await ask(http, gateway.url, CHAT) for _ in range(3)] == [(200, "{}")] * 3


async def test_a_keep_alive_connection_that_the_replica_closed_costs_no_request(http):
    script = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", None]
    async with scripted_replica(script) as replica, running_gateway([replica.url]) as gateway:
        answers = [await ask(http, gateway.url, CHAT) for _ in range(20)]
    assert answers == [(200, "{}")] * 20


async def test_load_is_spread_over_the_replicas(http):
    options = SimOptions(ttft_s=0.2, itl_s=0.001)
    async with running_sim(options) as one, running_sim(options) as two:
        async with running_gateway([one.url, two.url]) as gateway:
            asks = [asyncio.create_task(ask(http, gateway.url, CHAT)) for _ in range(20)]
            while gateway.server.status()["in_flight"] < 20:
                await asyncio.sleep(0.005)
            assert [row["in_flight"] for row in gateway.endpoints()] == [10, 10]
            assert {status for status, _ in await asyncio.gather(*asks)} == {200}
            assert [row["in_flight"] for row in gateway.endpoints()] == [0, 0]


async def test_a_client_that_leaves_frees_the_replica(http):
    async with running_sim(SimOptions(ttft_s=0, itl_s=0.05)) as replica, running_gateway([replica.url]) as gateway:
        response = await http.post(f"{gateway.url}/v1/chat/completions", json={**STREAM, "max_tokens": 2000})
        await response.content.readany()
        assert replica.unfinished == 1
        response.close()
        async with asyncio.timeout(10):
            while replica.unfinished or gateway.server.status()["in_flight"]:
                await asyncio.sleep(0.01)
        assert await metric(http, gateway.url, "llm_gateway_requests_cancelled_total{") == 1


async def test_a_client_that_reads_slowly_holds_the_replica_back_and_loses_nothing(http):
    event = b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % (b"x" * 60_000)
    script = [EVENT_STREAM, *[chunk(event)] * 200, chunk(b"data: [DONE]\n\n") + LAST_CHUNK]
    async with scripted_replica(script) as replica, running_gateway([replica.url]) as gateway:
        async with http.post(f"{gateway.url}/v1/chat/completions", json=STREAM) as response:
            await asyncio.sleep(0.5)
            assert len(await response.read()) == 200 * len(event) + len(b"data: [DONE]\n\n")


async def test_no_ready_replica_is_503_with_retry_after(http):
    async with running_gateway(["http://127.0.0.1:9"], ready=0, hold_timeout_s=0) as gateway:
        async with http.post(f"{gateway.url}/v1/chat/completions", json=CHAT) as response:
            assert response.status == 503
            assert response.headers["retry-after"]
        async with http.get(f"{gateway.url}/ready") as response:
            assert response.status == 503


async def test_an_unhealthy_replica_is_left_out_and_taken_back(http):
    async with running_sim(FAST) as replica, running_gateway([replica.url]) as gateway:
        await http.post(f"{replica.url}/sim/faults", json={"fault": "unhealthy"})
        await gateway.until_ready(0)
        await http.delete(f"{replica.url}/sim/faults")
        await gateway.until_ready(1)


async def test_open_streams_finish_during_a_drain_and_new_requests_are_refused(http):
    options = SimOptions(ttft_s=0, itl_s=0.02)
    async with running_sim(options) as replica, running_gateway([replica.url]) as gateway:
        streams = [asyncio.create_task(ask(http, gateway.url, STREAM)) for _ in range(10)]
        while gateway.server.status()["in_flight"] < 10:
            await asyncio.sleep(0.01)
        drain = asyncio.create_task(gateway.server.drain())
        await asyncio.sleep(0.05)
        async with http.get(f"{gateway.url}/ready") as response:
            assert response.status == 503
        assert (await ask(http, gateway.url, CHAT))[0] == 503
        assert all(text.endswith("data: [DONE]\n\n") for _, text in await asyncio.gather(*streams))
        assert await drain


async def test_a_drain_ends_at_its_deadline(http):
    async with running_sim(SimOptions(ttft_s=60)) as replica:
        async with running_gateway([replica.url], drain_timeout_s=0.2) as gateway:
            stuck = asyncio.create_task(ask(http, gateway.url, CHAT))
            while gateway.server.status()["in_flight"] < 1:
                await asyncio.sleep(0.01)
            assert not await gateway.server.drain()
            with pytest.raises(aiohttp.ClientError):
                await stuck


async def test_endpoints_are_replaced_by_the_admin_api(http):
    async with running_sim(FAST) as one, running_sim(FAST) as two, running_gateway([one.url]) as gateway:
        body = {"endpoints": [{"name": "new", "url": two.url, "model": "sim", "revision": "r2"}]}
        async with http.put(f"{gateway.admin_url}/admin/endpoints", json=body) as response:
            assert response.status == 200
        await gateway.until_ready(1)
        async with http.post(f"{gateway.url}/v1/chat/completions", json=CHAT) as response:
            assert response.headers["x-inferdock-revision"] == "r2"


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b'{"endpoints": 5}',
        b'{"endpoints": [{"name": "a"}]}',
        b'{"endpoints": [{"name": "a", "url": "ftp://x", "model": "m"}]}',
        b'{"endpoints": [{"name": "a", "url": "http://h:99999", "model": "m"}]}',
        b'{"endpoints": [], "more": 1}',
    ],
)
async def test_the_admin_api_refuses_what_it_does_not_understand(http, body):
    async with running_sim(FAST) as replica, running_gateway([replica.url]) as gateway:
        async with http.put(f"{gateway.admin_url}/admin/endpoints", data=body) as response:
            assert response.status == 400
        assert [row["state"] for row in gateway.endpoints()] == ["ready"]


async def test_the_admin_api_takes_nothing_from_browsers(http):
    async with running_sim(FAST) as replica, running_gateway([replica.url]) as gateway:
        for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
            async with http.get(f"{gateway.admin_url}/admin/status", headers=headers) as response:
                assert response.status == 403


async def test_the_log_has_a_line_per_request_and_no_text_of_it(http):
    async with running_sim(FAST) as replica, running_gateway([replica.url]) as gateway:
        body = {**CHAT, "messages": [{"role": "user", "content": "a very private question"}]}
        await ask(http, gateway.url, body)
    lines = [json.loads(line) for line in bytes(gateway.log).splitlines()]
    (line,) = [line for line in lines if line["event"] == "request"]
    assert (line["status"], line["outcome"], line["output_tokens"], line["attempts"]) == (200, "answered", 20, 1)
    assert b"private" not in bytes(gateway.log)


async def test_two_models_are_told_apart(http):
    async with running_sim(FAST) as one, running_sim(SimOptions(model="other", ttft_s=0)) as two:
        async with running_gateway([one.url]) as gateway:
            both = [*specs([one.url]), *specs([two.url], "other", "r9")]
            renamed = [type(s)(f"{s.model}-0", s.host, s.port, s.model, s.revision) for s in both]
            gateway.server.replace_endpoints(renamed)
            await gateway.until_ready(2)
            async with http.get(f"{gateway.url}/v1/models") as response:
                assert [card["id"] for card in (await response.json())["data"]] == ["sim", "other"]
            assert (await ask(http, gateway.url, {**CHAT, "model": "other"}))[0] == 200
            status, text = await ask(http, gateway.url, {"messages": CHAT["messages"]})
            assert (status, json.loads(text)["error"]["code"]) == (400, "model_missing")
