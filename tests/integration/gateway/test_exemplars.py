"""Exemplars lead from a latency to its trace: in OpenMetrics only, from all workers, to a real Prometheus."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_classic

from inferdock.config.settings import TracingSettings
from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from inferdock.telemetry import names as n
from tests.support.gateway import running_gateway
from tests.support.prometheus import MISSING, REASON, job, running_prometheus
from tests.support.workers import chat, running_workers

pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="needs the extra otel")
from tests.support.collector import Collector, running_collector

FAST = SimOptions(ttft_s=0, itl_s=0)
OPENMETRICS = "application/openmetrics-text"
PROMETHEUS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = "00-1bf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


@pytest.fixture
def collector():
    with running_collector() as running:
        yield running


def traced(collector: Collector) -> TracingSettings:
    return TracingSettings(enabled=True, endpoint=collector.url, sample_ratio=1)


async def ask(url: str, count: int = 1, traceparent: str = "") -> None:
    """Each on a connection of its own, so that all workers get some."""
    for _ in range(count):
        async with aiohttp.ClientSession(headers={"traceparent": traceparent} if traceparent else {}) as http:
            async with http.post(f"{url}/v1/chat/completions", json=chat(3)) as response:
                assert response.status == 200
                await response.read()


async def scrape(url: str, accept: str) -> tuple[str, str]:
    async with aiohttp.ClientSession(headers={"accept": accept}) as http, http.get(f"{url}/metrics") as response:
        return response.headers["content-type"], await response.text()


def exemplars(text: str) -> dict[str, set[str]]:
    """Trace ids by the histogram's name; every value must lie in its bucket."""
    found: dict[str, set[str]] = {}
    for family in read_openmetrics(text):
        for sample in family.samples:
            if sample.exemplar is not None:
                assert sample.exemplar.value <= float(sample.labels["le"])
                found.setdefault(family.name, set()).add(sample.exemplar.labels["trace_id"])
    return found


async def test_latencies_carry_the_trace_ids_that_the_collector_gets(collector):
    async with running_sim(FAST) as replica, running_gateway([replica.url], tracing=traced(collector)) as gateway:
        await ask(gateway.url, traceparent=SAMPLED)
        await ask(gateway.url, 2)
        kind, text = await scrape(gateway.url, PROMETHEUS)
        _, of_admin = await scrape(gateway.admin_url, PROMETHEUS)
        await gateway.server.drain()
    assert kind.startswith(f"{OPENMETRICS}; version=1.0.0")
    assert text.endswith("# EOF\n")
    found = exemplars(text)
    assert set(found) == {n.TTFT, n.DURATION}
    sent = {span.trace_id.hex() for span in collector.spans}
    assert found[n.TTFT] | found[n.DURATION] <= sent
    assert exemplars(of_admin) == found


async def test_the_older_format_has_the_same_numbers_and_no_exemplars(collector):
    async with running_sim(FAST) as replica, running_gateway([replica.url], tracing=traced(collector)) as gateway:
        await ask(gateway.url, 2)
        for accept in ("", "*/*", "text/plain", f"text/plain,{OPENMETRICS};q=0.5", f"{OPENMETRICS};q=0"):
            kind, text = await scrape(gateway.url, accept)
            assert kind.startswith("text/plain; version=0.0.4")
            assert "trace_id" not in text
            assert "# EOF" not in text
        _, newer = await scrape(gateway.url, OPENMETRICS)
    assert counts(read_classic(text)) == counts(read_openmetrics(newer))


def counts(families) -> dict[tuple, float]:
    return {
        (one.name, *sorted(one.labels.items())): one.value
        for family in families
        for one in family.samples
        if one.name in (f"{n.TTFT}_bucket", f"{n.DURATION}_bucket", n.OUTPUT_TOKENS)
    }


@pytest.mark.parametrize("case", ["off", "not sampled by the client", "share of nothing"])
async def test_what_is_not_traced_leaves_no_exemplar(collector, case):
    settings = traced(collector)
    if case == "off":
        settings = TracingSettings()
    elif case == "share of nothing":
        settings = TracingSettings(enabled=True, endpoint=collector.url, sample_ratio=0)
    parent = UNSAMPLED if case == "not sampled by the client" else ""
    async with running_sim(FAST) as replica, running_gateway([replica.url], tracing=settings) as gateway:
        await ask(gateway.url, 2, parent)
        _, text = await scrape(gateway.url, OPENMETRICS)
    assert f'{n.DURATION}_count{{model="sim",revision="r1"}} 2.0' in text
    assert exemplars(text) == {}


async def test_exemplars_of_all_workers_are_in_each_ones_answer(collector):
    async with running_sim(FAST) as replica, running_workers([replica.url], tracing=traced(collector)) as gateway:
        await ask(gateway.url, 20)
        answers = [await scrape(gateway.url, OPENMETRICS) for _ in range(4)]
        _, classic = await scrape(gateway.url, "text/plain")
        async with asyncio.timeout(20):
            while len({span.trace_id for span in collector.spans}) < 20:
                await asyncio.sleep(0.05)
    sent = {span.trace_id.hex() for span in collector.spans}
    for kind, text in answers:
        assert kind.startswith(OPENMETRICS)
        found = exemplars(text)
        assert set(found) == {n.TTFT, n.DURATION}
        assert found[n.TTFT] | found[n.DURATION] <= sent
    assert "trace_id" not in classic


@pytest.mark.skipif(MISSING, reason=REASON)
async def test_prometheus_gives_the_trace_id_that_the_collector_got(collector, tmp_path: Path):
    async with running_sim(FAST) as replica, running_gateway([replica.url], tracing=traced(collector)) as gateway:
        await ask(gateway.url, traceparent=SAMPLED)
        jobs = [job("gateway", gateway.url)]
        with running_prometheus(tmp_path, jobs, rules=False, features="exemplar-storage") as prometheus:
            for name in (n.TTFT, n.DURATION):
                assert await stored(prometheus, f"{name}_bucket") == {SAMPLED[3:35]}
        await gateway.server.drain()
    assert {span.trace_id.hex() for span in collector.spans} == {SAMPLED[3:35]}


async def stored(prometheus: str, query: str) -> set[str]:
    """Trace ids of the exemplars that it has, once it has any."""
    asked = {"query": query, "start": "0", "end": "4102444800"}
    async with aiohttp.ClientSession() as http, asyncio.timeout(30):
        while True:
            try:
                async with http.get(f"{prometheus}/api/v1/query_exemplars", params=asked) as response:
                    rows = (await response.json())["data"] if response.status == 200 else []
            except aiohttp.ClientError:
                rows = []
            if rows:
                return {one["labels"]["trace_id"] for row in rows for one in row["exemplars"]}
            await asyncio.sleep(0.2)
