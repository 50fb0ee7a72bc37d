"""Shadow traffic: copies reach the other revision, clients never notice, differences are counted by kind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from inferdock.config.settings import CacheSettings, KeysSettings
from inferdock.domain.endpoint import EndpointSpec
from inferdock.keys.store import KeyFile
from inferdock.release.judging.readings import counts_of
from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from inferdock.telemetry.scrape import RevisionFigures, read_figures
from inferdock.wire.http1 import LAST_CHUNK, chunk
from tests.integration.gateway.test_relay import CHAT, FAST, STREAM, ask
from tests.support.gateway import RunningGateway, running_gateway, specs
from tests.support.scripted_replica import EVENT_STREAM, scripted_replica
from tests.support.workers import running_workers

OTHER = SimOptions(ttft_s=0, itl_s=0.001, weights=1)
GREEDY = CHAT | {"temperature": 0}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


def both(stable: str, canary: str, model: str = "sim") -> list[EndpointSpec]:
    (first,) = specs([stable], model, "r1")
    (second,) = specs([canary], model, "r2")
    return [first, EndpointSpec("canary-0", second.host, second.port, model, "r2")]


async def put_traffic(http: aiohttp.ClientSession, admin_url: str, **more: object) -> tuple[int, dict]:
    body = {"model": "sim", "weights": {"r1": 1, "r2": 0}} | more
    async with http.put(f"{admin_url}/admin/traffic", json=body) as response:
        return response.status, await response.json()


@contextlib.asynccontextmanager
async def shadowed(
    http: aiohttp.ClientSession, stable: str, canary: str, share: float = 1.0, model: str = "sim", **settings: object
) -> AsyncIterator[RunningGateway]:
    """A gateway whose requests go to r1, and a share of them to r2 as well."""
    async with running_gateway([], **settings) as gateway:
        gateway.server.replace_endpoints(both(stable, canary, model))
        await gateway.until_ready(2)
        shadow = {"revision": "r2", "share": share}
        status, _ = await put_traffic(http, gateway.admin_url, model=model, shadow=shadow)
        assert status == 200
        yield gateway


async def figures(http: aiohttp.ClientSession, url: str, revision: str = "r2", model: str = "sim") -> RevisionFigures:
    async with http.get(f"{url}/metrics") as response:
        return read_figures(await response.text(), model).get(revision) or RevisionFigures()


async def settled(http: aiohttp.ClientSession, url: str, count: int, model: str = "sim") -> RevisionFigures:
    """The figures once so many copies have ended, and all that were answered are compared."""
    async with asyncio.timeout(120):
        while True:
            found = await figures(http, url, model=model)
            shadow = found.shadow
            done = shadow.by_outcome.get("answered", 0) == sum(shadow.by_kind.values())
            if sum(shadow.by_outcome.values()) >= count and done:
                return found
            await asyncio.sleep(0.02)


CASES = {"stream": STREAM, "whole": GREEDY, "seed": STREAM | {"temperature": 0.8, "seed": 3}}


@pytest.mark.parametrize("case", CASES)
async def test_answers_of_the_same_model_are_equal(http, case):
    async with running_sim(FAST) as stable, running_sim(FAST) as canary:
        async with shadowed(http, stable.url, canary.url) as gateway:
            answers = {(await ask(http, gateway.url, CASES[case]))[0] for _ in range(5)}
            found = await settled(http, gateway.url, 5)
    assert answers == {200}
    assert (found.shadow.by_outcome, found.shadow.by_kind) == ({"answered": 5}, {"equal": 5})


async def test_answers_of_another_model_differ_and_never_reach_the_client(http):
    async with running_sim(FAST) as stable, running_sim(OTHER) as canary:
        async with running_gateway([stable.url]) as alone:
            _, expected = await ask(http, alone.url, STREAM)
        async with shadowed(http, stable.url, canary.url) as gateway:
            for _ in range(4):
                async with http.post(f"{gateway.url}/v1/chat/completions", json=STREAM) as response:
                    assert response.headers["x-inferdock-revision"] == "r1"
                    assert contents(await response.text()) == contents(expected)
            found = await settled(http, gateway.url, 4)
    counts = counts_of(found)
    assert counts.shadow.differing == 4
    assert counts.shadow.ttft.total == counts.shadow.tpot.total == 4


def contents_of(text: str) -> str:
    return "".join(filter(None, contents(text)))


def contents(text: str) -> list[str]:
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    return [choice["delta"].get("content") for event in events for choice in event["choices"]]


async def test_copies_are_in_no_figure_of_clients_requests(http):
    async with running_sim(FAST) as stable, running_sim(FAST, "status:500") as canary:
        async with shadowed(http, stable.url, canary.url) as gateway:
            for _ in range(6):
                await ask(http, gateway.url, STREAM)
            found = await settled(http, gateway.url, 6)
            stable_found = await figures(http, gateway.url, "r1")
    counts = counts_of(found)
    assert (counts.shadow.failed, counts.shadow.answered) == (6, 0)
    assert (counts.requests, counts.errors, counts.attempts, counts.failures) == (0, 0, 0, 0)
    assert counts.ttft.total == 0
    assert stable_found.by_status == {200: 6}


async def test_a_share_is_copied_evenly(http):
    async with running_sim(FAST) as stable, running_sim(FAST) as canary:
        async with shadowed(http, stable.url, canary.url, share=0.1) as gateway:
            for _ in range(50):
                await ask(http, gateway.url, GREEDY)
            found = await settled(http, gateway.url, 5)
    assert sum(found.shadow.by_outcome.values()) == 5


async def test_a_sampled_answer_is_only_checked_for_its_status(http):
    async with running_sim(FAST) as stable, running_sim(OTHER) as canary:
        async with shadowed(http, stable.url, canary.url) as gateway:
            await ask(http, gateway.url, STREAM | {"temperature": 0.7})
            found = await settled(http, gateway.url, 1)
    assert found.shadow.by_kind == {"not_compared": 1}


REFUSED = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"


async def test_a_copy_that_is_refused_differs_by_its_status(http):
    async with running_sim(FAST) as stable, scripted_replica([REFUSED]) as canary:
        async with shadowed(http, stable.url, canary.url) as gateway:
            await ask(http, gateway.url, STREAM | {"temperature": 0.7})
            found = await settled(http, gateway.url, 1)
    assert found.shadow.by_kind == {"status": 1}


@pytest.mark.parametrize("fault", ["cut:3", "garbage", "refuse", "badchunk:2", "badjson:2", "status:503"])
async def test_a_copy_is_never_tried_again_and_no_client_notices(http, fault):
    async with running_sim(FAST) as stable, running_sim(FAST, fault) as canary:
        async with shadowed(http, stable.url, canary.url) as gateway:
            answers = [await ask(http, gateway.url, STREAM) for _ in range(3)]
            found = await settled(http, gateway.url, 3)
            rows = {row["name"]: row for row in gateway.endpoints()}
    assert {status for status, _ in answers} == {200}
    assert all(text.rstrip().endswith("[DONE]") for _, text in answers)
    assert found.shadow.by_outcome == {"failed": 3}
    assert rows["canary-0"]["in_flight"] == 0


async def test_a_copy_says_what_it_is_and_carries_no_key(http):
    answer = EVENT_STREAM + chunk(b"data: [DONE]\n\n") + LAST_CHUNK
    async with running_sim(FAST) as stable, scripted_replica([answer]) as canary:
        async with shadowed(http, stable.url, canary.url) as gateway:
            headers = {"Authorization": "Bearer secret", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
            async with http.post(f"{gateway.url}/v1/chat/completions", json=STREAM, headers=headers) as response:
                request_id = response.headers["x-request-id"].encode()
                await response.read()
            await settled(http, gateway.url, 1)
            log = bytes(gateway.log)
    head, _, body = canary.requests[0].partition(b"\r\n\r\n")
    assert b"x-inferdock-shadow: 1" in head
    assert b"x-request-id: " + request_id + b"-shadow" in head
    assert b"secret" not in head
    assert b"traceparent" not in head.lower()
    assert json.loads(body)["messages"] == STREAM["messages"]
    assert b"hello" not in log


async def test_a_hanging_shadow_costs_the_client_nothing_and_ends_with_its_revision(http):
    async with running_sim(FAST) as stable, running_sim(FAST, "hang") as canary:
        async with shadowed(http, stable.url, canary.url) as gateway:
            for _ in range(5):
                await ask(http, gateway.url, STREAM)
            assert {row["name"]: row["in_flight"] for row in gateway.endpoints()}["canary-0"] == 5
            gateway.server.replace_endpoints(both(stable.url, canary.url)[:1])
            found = await settled(http, gateway.url, 5)
    assert found.shadow.by_outcome == {"given_up": 5}


async def test_a_shadow_that_is_taken_back_gives_its_copies_up(http):
    async with running_sim(FAST) as stable, running_sim(FAST, "hang") as canary:
        async with shadowed(http, stable.url, canary.url) as gateway:
            await ask(http, gateway.url, STREAM)
            await put_traffic(http, gateway.admin_url)
            found = await settled(http, gateway.url, 1)
            await ask(http, gateway.url, STREAM)
            after = await figures(http, gateway.url)
    assert found.shadow.by_outcome == after.shadow.by_outcome == {"given_up": 1}


async def test_a_drain_waits_for_no_copy(http):
    async with running_sim(FAST) as stable, running_sim(FAST, "hang") as canary:
        async with shadowed(http, stable.url, canary.url, drain_timeout_s=120.0) as gateway:
            await ask(http, gateway.url, STREAM)
            async with asyncio.timeout(60):
                assert await gateway.server.drain()


async def test_more_copies_than_allowed_are_not_sent(http):
    async with running_sim(FAST) as stable, running_sim(FAST, "hang") as canary:
        async with shadowed(http, stable.url, canary.url, max_shadows=2) as gateway:
            for _ in range(6):
                await ask(http, gateway.url, STREAM)
            found = await figures(http, gateway.url)
            held = {row["name"]: row["in_flight"] for row in gateway.endpoints()}
    assert found.shadow.by_outcome == {"busy": 4}
    assert held["canary-0"] == 2


async def test_copies_leave_half_of_a_replicas_room_to_clients(http):
    async with running_sim(FAST) as stable, running_sim(FAST, "hang") as canary:
        async with shadowed(http, stable.url, canary.url, max_in_flight_per_replica=6) as gateway:
            for _ in range(6):
                await ask(http, gateway.url, STREAM)
            held = {row["name"]: row["in_flight"] for row in gateway.endpoints()}
    assert held["canary-0"] == 3


async def test_without_a_ready_replica_nothing_is_sent(http):
    async with running_sim(FAST) as stable, running_sim(FAST, "unhealthy") as canary:
        async with running_gateway([]) as gateway:
            gateway.server.replace_endpoints(both(stable.url, canary.url))
            await gateway.until_ready(1)
            await put_traffic(http, gateway.admin_url, shadow={"revision": "r2", "share": 1})
            await ask(http, gateway.url, STREAM)
            found = await settled(http, gateway.url, 1)
    assert found.shadow.by_outcome == {"absent": 1}


async def test_large_requests_and_other_routes_are_not_copied(http):
    large = STREAM | {"messages": [{"role": "user", "content": "a " * 200_000}], "max_tokens": 1}
    async with running_sim(FAST) as stable, running_sim(FAST) as canary:
        async with shadowed(http, stable.url, canary.url) as gateway:
            await ask(http, gateway.url, large)
            async with http.post(f"{gateway.url}/v1/embeddings", json={"model": "sim", "input": "x"}) as response:
                await response.read()
            found = await settled(http, gateway.url, 1)
    assert found.shadow.by_outcome == {"too_large": 1}


async def test_requests_that_the_shadow_revision_answered_itself_are_not_copied(http):
    async with running_sim(FAST) as stable, running_sim(FAST) as canary:
        async with shadowed(http, stable.url, canary.url) as gateway:
            shadow = {"revision": "r2", "share": 1}
            await put_traffic(http, gateway.admin_url, weights={"r1": 1, "r2": 1}, shadow=shadow)
            for _ in range(6):
                await ask(http, gateway.url, STREAM)
            found = await settled(http, gateway.url, 6)
    assert found.shadow.by_outcome == {"answered": 3, "skipped": 3}


async def test_without_weights_copies_go_on(http):
    async with running_sim(FAST) as stable, running_sim(FAST) as canary:
        async with shadowed(http, stable.url, canary.url) as gateway:
            status, shown = await put_traffic(
                http, gateway.admin_url, weights={}, shadow={"revision": "r2", "share": 1}
            )
            for _ in range(8):
                await ask(http, gateway.url, STREAM)
            found = await settled(http, gateway.url, 8)
    assert (status, shown["traffic"]["sim"]) == (200, {"weights": {}, "shadow": {"revision": "r2", "share": 1.0}})
    assert found.shadow.by_outcome["answered"] > 0


async def test_a_stream_that_was_resumed_is_compared_whole(http):
    async with running_sim(FAST, "cut:5x1") as one, running_sim(FAST) as two, running_sim(FAST) as canary:
        async with running_gateway([]) as gateway:
            stable = specs([one.url, two.url], revision="r1")
            gateway.server.replace_endpoints([*stable, both(one.url, canary.url)[1]])
            await gateway.until_ready(3)
            await put_traffic(http, gateway.admin_url, shadow={"revision": "r2", "share": 1})
            for _ in range(4):
                await ask(http, gateway.url, STREAM)
            found = await settled(http, gateway.url, 4)
    assert found.shadow.by_kind == {"equal": 4}


async def test_a_client_that_leaves_takes_its_copy_with_it(http):
    long = STREAM | {"max_tokens": 3000}
    async with running_sim(SimOptions(ttft_s=0, itl_s=0.05)) as stable, running_sim(FAST) as canary:
        async with shadowed(http, stable.url, canary.url) as gateway:
            async with http.post(f"{gateway.url}/v1/chat/completions", json=long) as response:
                await response.content.readany()
            found = await settled(http, gateway.url, 1)
    assert found.shadow.by_outcome == {"skipped": 1}


async def test_what_the_cache_answers_is_not_copied_and_what_a_copy_says_is_not_cached(http):
    cache = CacheSettings(enabled=True, semantic=False)
    async with running_sim(FAST) as stable, running_sim(OTHER) as canary:
        async with shadowed(http, stable.url, canary.url, cache=cache) as gateway:
            texts = {contents_of((await ask(http, gateway.url, STREAM))[1]) for _ in range(5)}
            found = await settled(http, gateway.url, 1)
            async with http.get(f"{gateway.url}/metrics") as response:
                lines = (await response.text()).splitlines()
    hits = [line for line in lines if line.startswith("llm_cache_hits_total")]
    assert len(texts) == 1
    assert found.shadow.by_outcome == {"answered": 1}
    assert sum(float(line.rpartition(" ")[2]) for line in hits) == 4


async def test_a_limited_key_pays_for_no_copy(http, tmp_path):
    file = tmp_path / "keys.jsonl"
    _, text = KeyFile(file).create(name="test", now=time.time(), requests_per_minute=4)
    keys = KeysSettings(check="always", file=file)
    async with running_sim(FAST) as stable, running_sim(FAST) as canary:
        async with shadowed(http, stable.url, canary.url, keys=keys) as gateway:
            url, headers = f"{gateway.url}/v1/chat/completions", {"x-api-key": text}
            for count in range(1, 5):
                async with http.post(url, json=STREAM, headers=headers) as response:
                    assert (response.status, await response.text() != "") == (200, True)
                await settled(http, gateway.url, count)


async def test_tokens_of_copies_are_nobodys(http):
    async with running_sim(FAST) as stable, running_sim(FAST) as canary:
        async with shadowed(http, stable.url, canary.url) as gateway:
            await ask(http, gateway.url, STREAM)
            await settled(http, gateway.url, 1)
            async with http.get(f"{gateway.url}/metrics") as response:
                lines = (await response.text()).splitlines()
    counted = [line for line in lines if line.startswith("llm_gateway_output_tokens_total{")]
    assert [line.rpartition(" ")[2] for line in counted] == ["20.0"]


@pytest.mark.parametrize(
    "shadow",
    [{"revision": "r2", "share": 0}, {"revision": "r2", "share": 1.5}, {"revision": "", "share": 1}, {"share": 1}, 7],
    ids=["nothing", "too much", "nobody", "no revision", "no object"],
)
async def test_a_shadow_that_makes_no_sense_changes_nothing(http, shadow):
    async with running_sim(FAST) as stable, running_sim(FAST) as canary:
        async with shadowed(http, stable.url, canary.url, share=0.5) as gateway:
            status, _ = await put_traffic(http, gateway.admin_url, weights={"r2": 1}, shadow=shadow)
            traffic = gateway.server.status()["traffic"]["sim"]
    assert status == 400
    assert traffic == {"weights": {"r1": 1.0, "r2": 0.0}, "shadow": {"revision": "r2", "share": 0.5}}


async def test_all_workers_copy_and_count_together(http):
    async with running_sim(FAST) as stable, running_sim(OTHER) as canary:
        async with running_workers([]) as gateway:
            gateway.parent.replace_endpoints(both(stable.url, canary.url))
            await gateway.until(lambda status: [row["state"] for row in status["endpoints"]] == ["ready"] * 2)
            _, shown = await put_traffic(http, gateway.admin_url, shadow={"revision": "r2", "share": 0.5})
            assert shown["traffic"]["sim"]["shadow"] == {"revision": "r2", "share": 0.5}
            await asyncio.sleep(0.3)
            for _ in range(20):
                async with http.post(
                    f"{gateway.url}/v1/chat/completions", json=STREAM, headers={"connection": "close"}
                ) as response:
                    await response.read()
            found = await settled(http, gateway.url, 9)
            gateway.kill(0)
            await gateway.until(lambda status: any(worker["deaths"] for worker in status["workers"]))
            await gateway.until_whole()
            before = sum((await figures(http, gateway.url)).shadow.by_outcome.values())
            for _ in range(20):
                async with http.post(
                    f"{gateway.url}/v1/chat/completions", json=STREAM, headers={"connection": "close"}
                ) as response:
                    await response.read()
            await settled(http, gateway.url, before + 9)
    counts = counts_of(found)
    assert counts.shadow.dropped == 0
    assert counts.shadow.differing == counts.shadow.answered
