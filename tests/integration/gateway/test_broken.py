"""What breaks after a good status counts against the revision, and so does what the gateway made good elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest

from inferdock.domain.endpoint import EndpointSpec
from inferdock.domain.verdict import Verdict
from inferdock.release.judging.analysis import judge
from inferdock.release.judging.figures import Counts
from inferdock.release.judging.readings import counts_of
from inferdock.release.steps import Limits
from inferdock.sim.testing import running_sim
from inferdock.telemetry.scrape import read_figures
from inferdock.wire.http1 import chunk
from tests.integration.gateway.test_relay import FAST, STREAM, ask
from tests.support.gateway import RunningGateway, running_gateway, specs
from tests.support.scripted_replica import EVENT_STREAM, scripted_replica


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def counted(http: aiohttp.ClientSession, gateway: RunningGateway) -> Counts:
    async with http.get(f"{gateway.url}/metrics") as response:
        figures = read_figures(await response.text(), "sim")
    return counts_of(figures["r1"]) if "r1" in figures else Counts()


@pytest.mark.parametrize("fault", ["cut:5", "badchunk:5"])
async def test_a_stream_that_breaks_is_an_error_although_its_status_was_200(http, fault):
    async with running_sim(FAST, f"{fault}x1") as replica, running_gateway([replica.url], resume=False) as gateway:
        status, _ = await ask(http, gateway.url, STREAM)
        await ask(http, gateway.url, STREAM)
        counts = await counted(http, gateway)
    assert status == 200
    assert (counts.requests, counts.errors, counts.attempts, counts.failures) == (2, 1, 2, 1)


async def test_a_stream_that_was_saved_is_no_error_but_a_failed_attempt(http):
    async with running_sim(FAST, "cut:5x1") as bad, running_sim(FAST) as good:
        async with running_gateway([bad.url, good.url]) as gateway:
            for _ in range(4):
                await ask(http, gateway.url, STREAM)
            counts = await counted(http, gateway)
    assert (counts.requests, counts.errors, counts.attempts, counts.failures) == (4, 0, 5, 1)


async def test_an_answer_without_events_that_is_cut_is_an_error(http):
    script = [b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"half":', None]
    async with scripted_replica(script) as replica, running_gateway([replica.url]) as gateway:
        with pytest.raises(aiohttp.ClientError):
            await ask(http, gateway.url, STREAM | {"stream": False})
        counts = await counted(http, gateway)
    assert (counts.requests, counts.errors, counts.failures) == (1, 1, 1)


async def test_a_stream_that_leaves_a_replica_which_is_taken_out_blames_nobody(http):
    slow = STREAM | {"max_tokens": 400}
    async with running_sim(FAST) as one, running_sim(FAST) as other:
        async with running_gateway([one.url, other.url], replica_drain_timeout_s=0.0) as gateway:
            answers = [asyncio.create_task(ask(http, gateway.url, slow)) for _ in range(4)]
            async with asyncio.timeout(20):
                while sum(row["in_flight"] for row in gateway.endpoints()) < 4:
                    await asyncio.sleep(0.005)
            await asyncio.sleep(0.1)
            gateway.server.replace_endpoints(specs([other.url]))
            assert {status for status, _ in await asyncio.gather(*answers)} == {200}
            counts = await counted(http, gateway)
    assert (counts.requests, counts.errors, counts.failures) == (4, 0, 0)


async def test_a_client_that_leaves_is_no_failure(http):
    script = [EVENT_STREAM + chunk(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'), 30.0]
    async with scripted_replica(script) as replica, running_gateway([replica.url]) as gateway:
        async with http.post(f"{gateway.url}/v1/chat/completions", json=STREAM) as response:
            await response.content.readany()
        async with asyncio.timeout(20):
            while gateway.endpoints()[0]["in_flight"]:
                await asyncio.sleep(0.01)
        counts = await counted(http, gateway)
    assert (counts.errors, counts.attempts, counts.failures) == (0, 0, 0)


async def test_a_request_that_got_heartbeats_and_then_no_answer_is_an_error(http):
    script = [1.5, b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\n{}"]
    async with scripted_replica(script) as replica:
        async with running_gateway([replica.url], heartbeat_s=0.05, max_in_flight_per_replica=1) as gateway:
            first = asyncio.create_task(ask(http, gateway.url, STREAM))
            await asyncio.sleep(0.1)
            _, text = await ask(http, gateway.url, STREAM)
            await first
            counts = await counted(http, gateway)
    assert "refused_by_replica" in text
    assert (counts.requests, counts.errors) == (2, 2)


async def test_a_canary_whose_replicas_break_streams_fails_although_no_client_saw_an_error(http):
    limits = Limits(ttft_p95_s=None, tpot_p50_s=None, ttft_ratio=None, tpot_ratio=None)
    async with running_sim(FAST) as stable, running_sim(FAST, "cut:5%40") as one, running_sim(FAST, "cut:5%40") as two:
        async with running_gateway([], resume_attempts=10) as gateway:
            canary = [
                EndpointSpec(f"canary-{n}", spec.host, spec.port, "sim", "r2")
                for n, spec in enumerate(specs([one.url, two.url]))
            ]
            gateway.server.replace_endpoints([*specs([stable.url]), *canary])
            await gateway.until_ready(3)
            gateway.server.set_traffic("sim", {"r1": 1, "r2": 1})
            answers = [await ask(http, gateway.url, STREAM) for _ in range(60)]
            async with http.get(f"{gateway.url}/metrics") as response:
                found = {name: counts_of(one) for name, one in read_figures(await response.text(), "sim").items()}
    assert all(status == 200 and text.rstrip().endswith("[DONE]") for status, text in answers)
    assert found["r2"].errors == 0
    assert judge(found["r1"], None, limits).verdict is not Verdict.FAIL
    assert judge(found["r2"], found["r1"], limits).verdict is Verdict.FAIL
