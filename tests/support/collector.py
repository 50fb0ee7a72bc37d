"""An OpenTelemetry collector in this process: takes OTLP over HTTP and keeps the spans that it decodes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    """What has been received.

    Attributes:
        status: what it answers.
        slow_s: wait before it answers.
        requests: decoded bodies, in order.
    """

    url: str = ""
    status: int = 200
    slow_s: float = 0.0
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)

    @property
    def spans(self) -> list[Span]:
        """Every span received."""
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    async def handle(self, request: web.Request) -> web.Response:
        """Take one batch."""
        body = await request.read()
        await asyncio.sleep(self.slow_s)
        if self.status == 200:
            self.requests.append(ExportTraceServiceRequest.FromString(body))
        return web.Response(status=self.status, content_type="application/x-protobuf")


@contextlib.contextmanager
def running_collector() -> Iterator[Collector]:
    """Serve a :class:`Collector` on 127.0.0.1, in a thread: the exporter blocks while it sends."""
    collector, loop = Collector(), asyncio.new_event_loop()
    started = threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/traces", collector.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield collector
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
