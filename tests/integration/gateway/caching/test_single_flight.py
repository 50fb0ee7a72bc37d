"""Clients that ask the same at the same time share one generation, however they come and go."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from inferdock.domain.endpoint import EndpointSpec
from inferdock.sim.options import SimOptions
from tests.integration.gateway.caching.support import EXACT_ONLY, chat_body, platform
from tests.support.scripted_replica import EVENT_STREAM, scripted_replica

SLOW = SimOptions(ttft_s=0.1, itl_s=0.02)


async def test_fifty_equal_streams_are_one_generation() -> None:
    async with platform(options=SLOW) as p:
        got = await asyncio.gather(*(p.post(chat_body(stream=True)) for _ in range(50)))
        assert p.upstream == 1
        assert len({g.text for g in got}) == 1
        assert sorted(g.cache for g in got) == ["hit flight"] * 49 + ["miss"]


async def test_followers_get_the_stream_as_it_is_produced() -> None:
    async with platform(options=SimOptions(ttft_s=0.05, itl_s=0.05)) as p:
        loop = asyncio.get_running_loop()

        async def first_and_last() -> tuple[float, float]:
            url = p.gateway.url + "/v1/chat/completions"
            async with p.http.post(url, json=chat_body(stream=True, max_tokens=20)) as response:
                times = [loop.time() async for _ in response.content.iter_any()]
            return times[0], times[-1]

        leader = asyncio.create_task(first_and_last())
        await asyncio.sleep(0.3)
        follower = asyncio.create_task(first_and_last())
        led, followed = await leader, await follower
        assert followed[0] < led[1] - 0.3  # long before the answer was complete
        assert p.upstream == 1


async def test_bodies_ride_on_streams_and_streams_do_not_wait_for_bodies() -> None:
    async with platform(options=SLOW) as p:
        stream = asyncio.create_task(p.post(chat_body(stream=True)))
        await asyncio.sleep(0.05)
        body = asyncio.create_task(p.post(chat_body()))
        assert (await body).text == (await stream).text
        assert p.upstream == 1
    async with platform(options=SLOW) as p:
        body = asyncio.create_task(p.post(chat_body()))
        await asyncio.sleep(0.05)
        stream = asyncio.create_task(p.post(chat_body(stream=True)))
        assert (await body).text == (await stream).text
        assert p.upstream == 2


async def test_the_first_client_may_leave_and_the_others_get_everything() -> None:
    async with platform(options=SLOW) as p:
        first = asyncio.create_task(p.post(chat_body(stream=True)))
        await asyncio.sleep(0.05)
        rest = [asyncio.create_task(p.post(chat_body(stream=True))) for _ in range(5)]
        await asyncio.sleep(0.12)
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        got = await asyncio.gather(*rest)
        assert len({g.text for g in got}) == 1
        assert p.upstream == 1
        assert (await p.post(chat_body())).cache == "hit exact"


async def test_when_the_last_client_leaves_the_replica_stops() -> None:
    async with platform(options=SimOptions(ttft_s=0.05, itl_s=0.05)) as p:
        tasks = [asyncio.create_task(p.post(chat_body(stream=True, max_tokens=200))) for _ in range(3)]
        await asyncio.sleep(0.3)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(5):
            while p.sim.unfinished:
                await asyncio.sleep(0.02)
        assert (await p.admin())["entries"] == 0
        assert (await p.post(chat_body(stream=True, max_tokens=5))).status == 200


async def test_an_error_of_the_replica_reaches_all_and_is_not_stored() -> None:
    async with platform(options=SLOW) as p:
        got = await asyncio.gather(*(p.post(chat_body(max_tokens=10**9)) for _ in range(5)))
        assert {g.status for g in got} == {400}
        assert len({g.data["error"]["message"] for g in got}) == 1
        assert (await p.admin())["entries"] == 0


async def test_no_cache_asks_anew_even_while_others_wait() -> None:
    async with platform(options=SLOW) as p:
        first = asyncio.create_task(p.post(chat_body(stream=True)))
        await asyncio.sleep(0.05)
        fresh = asyncio.create_task(p.post(chat_body(stream=True), cache_control="no-cache"))
        assert (await first).text == (await fresh).text
        assert p.upstream == 2


async def test_a_slow_reader_does_not_hold_up_the_others() -> None:
    long = SimOptions(ttft_s=0.01, itl_s=0.0, max_model_len=60_000)
    async with platform(EXACT_ONLY, long) as p:
        url = p.gateway.url + "/v1/chat/completions"
        body = chat_body(stream=True, max_tokens=6000)
        slow = await p.http.post(url, json=body)  # reads no further than its head
        quick = await p.post(body)
        assert quick.text
        rest = await slow.read()
        assert rest.endswith(b"data: [DONE]\n\n")
        assert p.upstream == 1


@pytest.mark.parametrize("http10", [False, True], ids=["http-1.1", "http-1.0"])
async def test_a_client_of_http_1_0_gets_its_body(http10: bool) -> None:
    async with platform() as p:
        data = json.dumps(chat_body()).encode()
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", p.gateway.server.port)
            version = b"1.0" if http10 else b"1.1"
            writer.write(
                b"POST /v1/chat/completions HTTP/%b\r\nHost: x\r\nConnection: close\r\n"
                b"Content-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (version, len(data), data)
            )
            raw = await reader.read()
            writer.close()
            assert raw.startswith(b"HTTP/1.1 200 OK")
            assert b"transfer-encoding" not in raw
            assert json.loads(raw.partition(b"\r\n\r\n")[2])["choices"]


async def test_a_stream_that_is_cut_is_cut_for_all_and_not_stored() -> None:
    event = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"half"},"finish_reason":null}]}\n\n'
    script = [EVENT_STREAM, b"%x\r\n%b\r\n" % (len(event), event), 0.3, None]
    async with scripted_replica(script) as replica, platform(resume=False, attempts=1) as p:
        port = int(replica.url.rpartition(":")[2])
        p.gateway.server.replace_endpoints([EndpointSpec("replica-0", "127.0.0.1", port, "sim", "r1")])
        await p.gateway.until_ready(1)
        url = p.gateway.url + "/v1/chat/completions"

        async def read() -> bytes:
            async with p.http.post(url, json=chat_body(stream=True)) as response:
                return await response.read()

        got = await asyncio.gather(*(read() for _ in range(3)))
        assert all(b"half" in raw and b"stream_cut" in raw and b"[DONE]" not in raw for raw in got)
        assert len(replica.requests) == 1
        assert (await p.admin())["entries"] == 0


async def test_a_client_that_goes_at_the_last_event_has_its_answer_stored() -> None:
    """As the official client does: the end of the body may come after ``[DONE]``."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "sim"}
    delta = {"index": 0, "delta": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    events = [{**head, "choices": [delta]}, {**head, "choices": [], "usage": usage}]
    data = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"
    script = [EVENT_STREAM, b"%x\r\n%b\r\n" % (len(data), data), 0.3, b"0\r\n\r\n"]
    async with scripted_replica(script) as replica, platform() as p:
        port = int(replica.url.rpartition(":")[2])
        p.gateway.server.replace_endpoints([EndpointSpec("replica-0", "127.0.0.1", port, "sim", "r1")])
        await p.gateway.until_ready(1)
        response = await p.http.post(p.gateway.url + "/v1/chat/completions", json=chat_body(stream=True))
        while b"[DONE]" not in await response.content.readany():
            pass
        response.close()
        await asyncio.sleep(0.5)
        assert (await p.post(chat_body())).cache == "hit exact"
        assert len(replica.requests) == 1


async def test_a_hurry_of_one_client_is_not_for_the_others() -> None:
    async with platform(options=SimOptions(ttft_s=2.0, itl_s=0.001)) as p:
        patient = asyncio.create_task(p.post(chat_body()))
        await asyncio.sleep(0.1)
        hurried = await p.post(chat_body(), x_inferdock_timeout_ms="500")
        assert (hurried.status, hurried.data["error"]["code"]) == (503, "queue_timeout")
        assert (await patient).status == 200
        assert p.upstream == 1
