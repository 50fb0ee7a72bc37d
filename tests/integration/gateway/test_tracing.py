"""Traces through the gateway: a real collector's protocol on one side, the replica's headers on the other."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web

from inferdock.config.settings import TracingSettings
from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from tests.integration.gateway.test_resume import STREAM
from tests.support.gateway import running_gateway
from tests.support.scripted_replica import scripted_replica

trace_service = pytest.importorskip(
    "opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason="needs the extra otel"
)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FAST = SimOptions(ttft_s=0, itl_s=0.002)


@pytest.fixture
async def collector():
    """An OTLP/HTTP receiver; gives its URL and the spans that came."""
    spans: list = []

    async def take(request: web.Request) -> web.Response:
        message = trace_service.ExportTraceServiceRequest.FromString(await request.read())
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                spans.extend(scope.spans)
        return web.Response(body=trace_service.ExportTraceServiceResponse().SerializeToString())

    app = web.Application()
    app.add_routes([web.post("/v1/traces", take)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces", spans
    await runner.cleanup()


async def test_a_resumed_stream_is_one_trace_with_a_span_for_each_attempt(collector):
    url, spans = collector
    tracing = TracingSettings(enabled=True, endpoint=url)
    async with running_sim(FAST, "cut:5") as bad, running_sim(FAST) as good, aiohttp.ClientSession() as http:
        async with running_gateway([bad.url, good.url], tracing=tracing) as gateway:
            for _ in range(2):
                headers = {"traceparent": PARENT}
                async with http.post(f"{gateway.url}/v1/chat/completions", json=STREAM, headers=headers) as response:
                    await response.read()
            await gateway.server.drain()
    assert {span.trace_id.hex() for span in spans} == {PARENT[3:35]}
    servers = [span for span in spans if span.parent_span_id.hex() == PARENT[36:52]]
    assert len(servers) == 2
    attempts = [span for span in spans if span not in servers]
    assert len(attempts) in (3, 4)  # the second request may meet the bad replica too
    texts = str(spans)
    assert "harbour" not in texts  # the prompt


async def test_the_replica_gets_our_span_as_its_parent(collector):
    url, _ = collector
    script = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"]
    tracing = TracingSettings(enabled=True, endpoint=url)
    async with scripted_replica(script) as replica, aiohttp.ClientSession() as http:
        async with running_gateway([replica.url], tracing=tracing) as gateway:
            headers = {"traceparent": PARENT, "tracestate": "a=1"}
            async with http.post(f"{gateway.url}/v1/chat/completions", json=STREAM, headers=headers) as response:
                await response.read()
    head = replica.requests[0].partition(b"\r\n\r\n")[0].decode().lower()
    assert f"traceparent: 00-{PARENT[3:35]}-" in head
    assert PARENT not in head
    assert "tracestate: a=1" in head


async def test_without_tracing_the_clients_headers_go_through():
    script = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"]
    async with scripted_replica(script) as replica, running_gateway([replica.url]) as gateway:
        async with aiohttp.ClientSession() as http:
            headers = {"traceparent": PARENT}
            async with http.post(f"{gateway.url}/v1/chat/completions", json=STREAM, headers=headers) as response:
                await response.read()
    assert PARENT.encode() in replica.requests[0]


async def test_a_collector_that_is_not_there_costs_no_request():
    tracing = TracingSettings(enabled=True, endpoint="http://127.0.0.1:9/v1/traces")
    async with running_sim(FAST) as replica, aiohttp.ClientSession() as http:
        async with running_gateway([replica.url], tracing=tracing) as gateway:
            asked = [http.post(f"{gateway.url}/v1/chat/completions", json=STREAM) for _ in range(8)]
            statuses = [response.status for response in await asyncio.gather(*asked)]
    assert statuses == [200] * 8
