"""The simulated replica over HTTP: answers, resume, cancel, each fault, shutdown."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from inferdock.domain.errors import ResourceError
from inferdock.sim.options import SimOptions
from inferdock.sim.server import SimServer
from inferdock.sim.testing import running_sim

FAST = SimOptions(ttft_s=0, itl_s=0.001)
ENDLESS = SimOptions(ttft_s=0, itl_s=0.01, max_model_len=100_000)
TEXT = {"prompt": "hello", "max_tokens": 12, "temperature": 0, "ignore_eos": True}
CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 6, "temperature": 0, "ignore_eos": True}


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


async def complete(http: aiohttp.ClientSession, replica: SimServer, **fields: object) -> dict:
    async with http.post(f"{replica.url}/v1/completions", json={**TEXT, **fields}) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def stream(http: aiohttp.ClientSession, replica: SimServer, **fields: object) -> list:
    async with http.post(f"{replica.url}/v1/completions", json={**TEXT, "stream": True, **fields}) as response:
        text = await response.text()
    events = [event.removeprefix("data: ") for event in text.split("\n\n") if event]
    return [event if event == "[DONE]" else json.loads(event) for event in events]


def said(events: list) -> str:
    return "".join(e["choices"][0]["text"] for e in events if e != "[DONE]" and e["choices"])


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_stream_says_what_the_whole_answer_says(http):
    async with running_sim(FAST) as replica:
        whole = await complete(http, replica)
        events = await stream(http, replica)
    assert said(events) == whole["choices"][0]["text"]
    assert events[-1] == "[DONE]"


@pytest.mark.parametrize("place", [1, 5, 11])
async def test_another_replica_continues_an_answer_from_its_token_ids(http, place):
    async with running_sim(FAST) as one, running_sim(FAST) as two:
        choice = (await complete(http, one, return_token_ids=True))["choices"][0]
        prompt, tokens = choice["prompt_token_ids"], choice["token_ids"]
        rest = await complete(http, two, prompt=prompt + tokens[:place], max_tokens=12 - place, return_token_ids=True)
    assert rest["choices"][0]["token_ids"] == tokens[place:]


async def test_a_chat_answer_continues_as_a_completion_of_its_token_ids(http):
    async with running_sim(FAST) as replica:
        async with http.post(f"{replica.url}/v1/chat/completions", json={**CHAT, "return_token_ids": True}) as response:
            chat = await response.json()
        tokens = chat["choices"][0]["token_ids"]
        rest = await complete(http, replica, prompt=chat["prompt_token_ids"] + tokens[:2], max_tokens=4)
    assert chat["choices"][0]["message"]["content"].endswith(rest["choices"][0]["text"])


async def test_the_first_token_is_sent_before_the_second_exists(http):
    async with running_sim(SimOptions(ttft_s=0, itl_s=3600)) as replica:
        body = {**CHAT, "stream": True}
        async with http.post(f"{replica.url}/v1/chat/completions", json=body) as response:
            lines = [await response.content.readline() for _ in range(3)]
    assert json.loads(lines[2].removeprefix(b"data: "))["choices"][0]["delta"]["content"]


async def test_usage_counts_the_end_token_as_the_engine_does(http):
    async with running_sim(FAST) as replica:
        answer = await complete(http, replica, ignore_eos=False, max_tokens=4000, return_token_ids=True)
    choice = answer["choices"][0]
    assert (choice["finish_reason"], choice["token_ids"][-1]) == ("stop", 1)
    assert answer["usage"]["completion_tokens"] == len(choice["token_ids"])


async def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(http):
    async with running_sim(FAST) as replica:
        text = (await complete(http, replica))["choices"][0]["text"]
        word = text.split()[5]
        events = await stream(http, replica, stop=[word])
    last = events[-2]["choices"][0]
    assert said(events) == text[: text.index(word)]
    assert (last["finish_reason"], last["stop_reason"]) == ("stop", word)


@pytest.mark.parametrize("max_tokens", range(1, 9))
async def test_no_text_is_lost_to_a_stop_string_that_never_comes(http, max_tokens):
    fields = {"ignore_eos": False, "max_tokens": max_tokens * 40, "prompt": f"hello {max_tokens}"}
    async with running_sim(FAST) as replica:
        free = await complete(http, replica, **fields)
        assert said(await stream(http, replica, stop=["never said"], **fields)) == free["choices"][0]["text"]


async def test_sampled_choices_differ_and_a_seed_repeats_them(http):
    fields = {"temperature": 1, "n": 2, "seed": 0}
    async with running_sim(FAST) as replica:
        first, again = [(await complete(http, replica, **fields))["choices"] for _ in range(2)]
    assert first[0]["text"] != first[1]["text"]
    assert [choice["text"] for choice in first] == [choice["text"] for choice in again]


@pytest.mark.parametrize("streamed", [True, False])
async def test_echo_repeats_the_prompt_once(http, streamed):
    async with running_sim(FAST) as replica:
        if streamed:
            text = said(await stream(http, replica, echo=True))
        else:
            text = (await complete(http, replica, echo=True))["choices"][0]["text"]
        assert text == "hello" + (await complete(http, replica))["choices"][0]["text"]


async def test_tokenize_and_detokenize_are_inverse(http):
    async with running_sim(FAST) as replica:
        async with http.post(f"{replica.url}/tokenize", json={"prompt": "größer than €5"}) as response:
            tokens = (await response.json())["tokens"]
        async with http.post(f"{replica.url}/detokenize", json={"tokens": tokens}) as response:
            assert await response.json() == {"prompt": "größer than €5"}


async def test_an_odd_request_id_and_an_unpaired_surrogate_do_no_harm(http):
    async with running_sim(FAST) as replica:
        body = b'{"prompt": "\\ud800", "max_tokens": 2, "echo": true, "model": "sim"}'
        headers = {"content-type": "application/json", "x-request-id": "ü-1"}
        async with http.post(f"{replica.url}/v1/completions", data=body, headers=headers) as response:
            assert response.status == 200
            assert (await response.json())["id"] == "cmpl-ü-1"


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_goes_away_frees_its_place(http, streamed):
    async with running_sim(ENDLESS) as replica:
        asking = asyncio.create_task(stream(http, replica, max_tokens=90_000, stream=streamed))
        await until(lambda: replica.unfinished == 1)
        asking.cancel()
        await until(lambda: replica.unfinished == 0)


# -- Faults -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("fault", ["refuse", "garbage", "cut:2"])
async def test_faults_that_break_the_connection_are_errors_for_the_client(http, fault, streamed):
    async with running_sim(FAST, fault) as replica:
        with pytest.raises((aiohttp.ClientError, ValueError)):
            await stream(http, replica, stream=streamed)


async def raw(replica: SimServer, **fields: object) -> bytes:
    """All bytes of an answer until the replica closes the connection."""
    body = json.dumps({**TEXT, **fields}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n")
    writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
    try:
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()


async def test_a_refused_connection_is_reset():
    async with running_sim(FAST, "refuse") as replica:
        with pytest.raises(ConnectionResetError):
            await raw(replica)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_bad_chunk_breaks_the_framing_and_the_connection_is_closed(streamed):
    async with running_sim(FAST, "badchunk:2") as replica:
        got = await raw(replica, stream=streamed)
    assert b"transfer-encoding: chunked" in got.lower()
    assert got.endswith(b"\r\nzz\r\nnot a chunk\r\n")


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("fault", ["hang", "hang:2"])
async def test_a_hanging_replica_says_no_more(http, fault, streamed):
    async with running_sim(FAST, fault) as replica:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await stream(http, replica, stream=streamed)


async def test_a_cut_stream_has_its_first_tokens_and_ends_in_the_middle_of_a_chunk():
    async with running_sim(FAST, "cut:3") as replica:
        got = await raw(replica, stream=True)
    assert got.count(b'"text"') == 3
    assert got.endswith(b"\r\n1f4\r\ndata: {half")


async def test_one_event_that_is_not_json_is_put_into_the_stream(http):
    async with running_sim(FAST, "badjson:2") as replica:
        async with http.post(f"{replica.url}/v1/completions", json={**TEXT, "stream": True}) as response:
            events = (await response.text()).split("\n\n")
    assert [place for place, event in enumerate(events) if event == "data: {not json"] == [2]
    assert events[-2] == "data: [DONE]"


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_a_status_fault_answers_with_an_error_body(http, status):
    async with running_sim(FAST, f"status:{status}x1") as replica:
        async with http.post(f"{replica.url}/v1/completions", json=TEXT) as response:
            assert response.status == status
            assert (await response.json())["error"]["code"] == status
        assert (await complete(http, replica))["choices"]


async def test_a_slow_replica_takes_longer_and_says_the_same(http):
    async with running_sim(FAST) as quick, running_sim(SimOptions(ttft_s=0, itl_s=0.005), "slow:4") as slow:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        answers = [(await complete(http, replica))["choices"][0]["text"] for replica in (slow, quick)]
    assert answers[0] == answers[1]
    assert loop.time() - begun >= 11 * 0.02 * 0.9


async def test_an_unhealthy_replica_fails_its_health_check_and_still_answers(http):
    async with running_sim(FAST, "unhealthy") as replica:
        async with http.get(f"{replica.url}/health") as response:
            assert response.status == 503
        assert (await complete(http, replica))["choices"]


async def test_faults_are_armed_listed_and_cleared_while_it_runs(http):
    async with running_sim(FAST) as replica:
        faults = f"{replica.url}/sim/faults"
        async with http.post(faults, json={"fault": "status:503@2x1"}) as response:
            armed = (await response.json())["armed"]
        assert armed == [{"kind": "status", "value": 503.0, "skip": 1, "left": 1, "chance": 1.0}]
        async with http.delete(faults) as response:
            assert (await response.json())["armed"] == []


@pytest.mark.parametrize("body", [b'{"fault": "explode"}', b"{}", b"[]", b"nothing"])
async def test_a_wrong_fault_is_refused_while_it_runs(http, body):
    async with running_sim(FAST) as replica:
        async with http.post(f"{replica.url}/sim/faults", data=body) as response:
            assert response.status == 400
            assert "kinds are refuse" in (await response.json())["error"]
        assert replica.faults.armed == []


# -- Start and stop ---------------------------------------------------------------------------------------------


async def test_a_taken_port_is_a_resource_error(http):
    async with running_sim(FAST) as replica:
        with pytest.raises(ResourceError, match="cannot listen"):
            await SimServer(SimOptions(port=replica.port)).start()


async def test_it_does_not_listen_before_it_has_started(http):
    server = SimServer(SimOptions(startup_s=3600))
    starting = asyncio.create_task(server.start())
    await asyncio.sleep(0.01)
    assert server.port == 0
    starting.cancel()


async def test_stop_lets_open_streams_finish_within_the_timeout(http):
    server = SimServer(SimOptions(ttft_s=0, itl_s=0.02, shutdown_timeout_s=30))
    await server.start()
    asking = asyncio.create_task(stream(http, server))
    await until(lambda: server.unfinished == 1)
    await server.stop()
    events = await asking
    assert events[-2]["choices"][0]["finish_reason"] == "length"
    assert len(events) == 13


@pytest.mark.parametrize("timeout_s", [0, 0.05])
async def test_stop_aborts_what_takes_too_long_and_says_so_as_the_engine_does(http, timeout_s):
    server = SimServer(SimOptions(ttft_s=0, itl_s=0.01, max_model_len=100_000, shutdown_timeout_s=timeout_s))
    await server.start()
    asking = asyncio.create_task(stream(http, server, max_tokens=90_000))
    await until(lambda: server.unfinished == 1)
    await asyncio.sleep(0.05)
    await server.stop()
    events = await asking
    assert (events[-2]["choices"][0]["finish_reason"], events[-1]) == ("abort", "[DONE]")


async def test_a_stopping_replica_takes_no_new_request(http):
    server = SimServer(SimOptions(ttft_s=0, itl_s=0.02, shutdown_timeout_s=30))
    await server.start()
    asking = asyncio.create_task(stream(http, server))
    await until(lambda: server.unfinished == 1)
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0)
    async with http.post(f"{server.url}/v1/completions", json=TEXT) as response:
        assert response.status == 503
    await asyncio.gather(stopping, asking)
