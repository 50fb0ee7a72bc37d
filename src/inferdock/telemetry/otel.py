"""Spans of finished requests, sent in batches by OpenTelemetry's SDK. The only module that imports OpenTelemetry.

Loaded by ``telemetry.tracing.make_tracing`` when tracing is on; needs the extra `otel`. The event loop only puts facts
into the queue of the SDK's batch processor; spans are made, encoded and sent in its thread.

Attributes follow the semantic conventions for HTTP spans (stable) and for generative AI (in development); our own
begin with ``inferdock.``:

- server span, one per request: ``http.request.method``, ``http.route``, ``url.path``, ``url.scheme``,
  ``http.response.status_code``, ``error.type``, ``gen_ai.operation.name``, ``gen_ai.provider.name``,
  ``gen_ai.request.model``, ``gen_ai.request.stream``, ``gen_ai.usage.input_tokens``, ``gen_ai.usage.output_tokens``,
  ``gen_ai.response.time_to_first_chunk`` (seconds since the request was received), ``inferdock.request_id``,
  ``inferdock.revision``, ``inferdock.endpoint``, ``inferdock.outcome``, ``inferdock.attempts``, ``inferdock.resumes``;
- client span, one per attempt: ``http.request.method``, ``url.full``, ``server.address``, ``server.port``,
  ``http.response.status_code``, ``http.request.resend_count``, ``error.type``, ``inferdock.endpoint``,
  ``inferdock.outcome``, ``inferdock.resumed``.

A path that is no known route is the client's own text and stays out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from inferdock import __version__
from inferdock.domain.errors import ConfigError
from inferdock.telemetry.tracing import AttemptFacts, RequestFacts, Sampler, Trace

if TYPE_CHECKING:  # gateway workers do without the settings' library
    from inferdock.config.settings import TracingSettings

SCHEMA_URL = "https://opentelemetry.io/schemas/1.41.1"
MAX_BATCH_REQUESTS = 256
"""Requests per batch, of about 1 KB each; larger batches save nothing more."""
SWITCH_INTERVAL_S = 0.0005
"""How long the exporter's thread may keep the event loop waiting for Python's global lock (the default is 0.005)."""
KNOWN_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET, _ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)

Attributes = dict[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished request in the batch processor's queue, where it passes for a span: only ``context`` is looked at."""

    context: ClassVar[SpanContext] = SpanContext(1, 1, is_remote=False, trace_flags=_SAMPLED)
    trace: Trace
    facts: RequestFacts
    epoch_ns: int
    """What the gateway's clock is behind the time of day."""


class OtelTracing:
    """Tracing by OpenTelemetry (see ``telemetry.tracing.Tracing``)."""

    def __init__(
        self,
        exporter: SpanExporter,
        *,
        settings: TracingSettings,
        resource: Resource,
        tell: Callable[[str, str], None] = lambda level, text: None,
        clock: Callable[[], float] = time.perf_counter,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """``clock`` is the one that the times in facts are of."""
        self.begin = Sampler(settings.sample_ratio).begin
        self.dropped = 0
        self._queue_size = settings.queue_size
        self._shutdown_timeout_s = settings.shutdown_timeout_s
        self._clock = clock
        self._wall_ns = wall_ns
        self._queued = 0
        self._closed = False
        self._writer = SpanWriter(exporter, resource, tell)
        self._processor = BatchSpanProcessor(
            self._writer,
            max_queue_size=settings.queue_size,
            schedule_delay_millis=settings.flush_interval_s * 1e3,
            max_export_batch_size=min(MAX_BATCH_REQUESTS, settings.queue_size),
        )

    @property
    def exported(self) -> int:
        """Requests sent."""
        return self._writer.exported

    @property
    def failed(self) -> int:
        """Requests that the collector did not take."""
        return self._writer.failed

    def end(self, trace: Trace, facts: RequestFacts) -> None:
        """Queue a finished request; dropped and counted when the queue is full."""
        if not trace.sampled:
            return
        if self._closed or self._queued - self._writer.taken >= self._queue_size:
            self.dropped += 1
            return
        self._queued += 1
        epoch_ns = self._wall_ns() - int(self._clock() * 1e9)
        self._processor.on_end(cast(ReadableSpan, Finished(trace, facts, epoch_ns)))

    async def close(self) -> None:
        """Send what is left; what is not sent in time is dropped."""
        if self._closed:
            return
        self._closed = True
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]  # as the SDK has it
            with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(done.set)

        # A thread of our own: the SDK waits up to 30 s, and the loop's pool would make the process wait with it.
        threading.Thread(target=shut_down, name="otel-shutdown", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._shutdown_timeout_s):
                await done.wait()
        self.dropped += self._queued - self._writer.taken


class SpanWriter(SpanExporter):
    """Makes spans of finished requests and hands them to the real exporter. Runs in the batch processor's thread.

    Attributes:
        taken: requests taken from the queue.
        exported, failed: of these, the sent and the lost ones.
    """

    def __init__(self, exporter: SpanExporter, resource: Resource, tell: Callable[[str, str], None]) -> None:
        self._exporter = exporter
        self._resource = resource
        self._scope = InstrumentationScope("inferdock.gateway", __version__, SCHEMA_URL)
        self._tell = tell
        self._works = True
        self.taken = 0
        self.exported = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export a batch; a failure costs the batch and is told when it is the first in a row."""
        batch = cast(Sequence[Finished], spans)
        self.taken += len(batch)
        try:
            made = [span for finished in batch for span in spans_of(finished, self._resource, self._scope)]
            result = self._exporter.export(made)
        except Exception as exc:  # whatever an exporter does, requests go on
            return self._count(len(batch), works=False, why=f": {type(exc).__name__}")
        return self._count(len(batch), works=result is SpanExportResult.SUCCESS)

    def _count(self, requests: int, *, works: bool, why: str = "") -> SpanExportResult:
        if works:
            self.exported += requests
        else:
            self.failed += requests
        if works is not self._works:
            self._works = works
            if works:
                self._tell("info", "the collector takes spans again")
            else:
                self._tell("warning", f"the collector does not take spans; they are dropped{why}")
        return SpanExportResult.SUCCESS if works else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Close the real exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is held here."""
        return True


def spans_of(finished: Finished, resource: Resource, scope: InstrumentationScope) -> list[ReadableSpan]:
    """The server span of a request, then the client spans of its attempts."""
    trace, facts = finished.trace, finished.facts
    method = facts.method if facts.method in KNOWN_METHODS else "_OTHER"
    verb = "HTTP" if method == "_OTHER" else method
    route = facts.route if facts.route.startswith("/") else ""
    trace_id = int(trace.trace_id, 16)
    server = _context(trace_id, trace.span_id)

    def span(
        context: SpanContext,
        above: SpanContext | None,
        told: RequestFacts | AttemptFacts,
        attributes: Attributes,
        status: Status,
    ) -> ReadableSpan:
        start = finished.epoch_ns + int(told.started_at * 1e9)
        return ReadableSpan(
            f"{verb} {route}" if route else verb,
            context,
            above,
            resource,
            attributes,
            kind=SpanKind.SERVER if told is facts else SpanKind.CLIENT,
            status=status,
            start_time=start,
            end_time=max(start, finished.epoch_ns + int(told.ended_at * 1e9)),
            instrumentation_scope=scope,
        )

    parent = _context(trace_id, int(trace.parent_id, 16), is_remote=True) if trace.parent_id else None
    spans = [span(server, parent, facts, _of_request(facts, method, route, len(trace.attempts)), _server_status(facts))]
    for index, (number, attempt) in enumerate(trace.attempts):
        attributes = _of_attempt(attempt, method, route, index)
        failed = "error.type" in attributes and attempt.outcome != "cancelled"
        context = _context(trace_id, trace.span_id + number)
        spans.append(span(context, server, attempt, attributes, _ERROR if failed else _UNSET))
    return spans


def _context(trace_id: int, span_id: int, *, is_remote: bool = False) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=is_remote, trace_flags=_SAMPLED)


def _of_request(facts: RequestFacts, method: str, route: str, attempts: int) -> Attributes:
    made: Attributes = {
        "http.request.method": method,
        "url.scheme": "http",
        "http.response.status_code": facts.status,
        "inferdock.request_id": facts.request_id,
        "inferdock.outcome": facts.outcome,
        "inferdock.attempts": attempts,
        "inferdock.resumes": facts.resumes,
    }
    error = _error_type(facts.status, facts.outcome, from_status=500)
    optional: dict[str, AttributeValue | None] = {
        "http.route": route or None,
        "url.path": route or None,
        "error.type": error or None,
        "inferdock.revision": facts.revision or None,
        "inferdock.endpoint": facts.endpoint or None,
        "gen_ai.request.model": facts.model or None,
        "gen_ai.usage.input_tokens": facts.prompt_tokens,
        "gen_ai.usage.output_tokens": facts.output_tokens,
        "gen_ai.response.time_to_first_chunk": facts.ttft_s,
    }
    made.update({name: value for name, value in optional.items() if value is not None})
    if operation := OPERATIONS.get(route):
        made.update({"gen_ai.operation.name": operation, "gen_ai.provider.name": "vllm"})
        if facts.stream:  # absent means false
            made["gen_ai.request.stream"] = True
    return made


def _of_attempt(facts: AttemptFacts, method: str, route: str, index: int) -> Attributes:
    host = f"[{facts.host}]" if ":" in facts.host else facts.host
    made: Attributes = {
        "http.request.method": method,
        "url.full": f"http://{host}:{facts.port}{route}",
        "server.address": facts.host,
        "server.port": facts.port,
        "inferdock.endpoint": facts.endpoint,
        "inferdock.outcome": facts.outcome,
        "inferdock.resumed": facts.resumes,
    }
    if facts.status:
        made["http.response.status_code"] = facts.status
    if index:
        made["http.request.resend_count"] = index
    if error := _error_type(facts.status, facts.outcome, from_status=400):
        made["error.type"] = error
    return made


def _error_type(status: int, outcome: str, *, from_status: int) -> str:
    """The status where it tells the error, else how it ended; "" without an error."""
    if status >= from_status and status != 499:
        return str(status)
    return "" if outcome in ("answered", "refused") else outcome


def _server_status(facts: RequestFacts) -> Status:
    """The client's mistakes and its leaving are no errors of ours."""
    return _ERROR if facts.status >= 500 or facts.outcome in ("failed", "cut") else _UNSET


def make(settings: TracingSettings, *, tell: Callable[[str, str], None]) -> OtelTracing:
    """Tracing over OTLP/HTTP.

    Raises:
        ConfigError: the endpoint is no URL, or a variable of OpenTelemetry's has a wrong value.
    """
    # The SDK complains through `logging` whenever a batch fails; `tell` says it once, in our own log.
    quiet = logging.getLogger("opentelemetry")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    if settings.endpoint is not None and urlsplit(settings.endpoint).scheme not in ("http", "https"):
        raise ConfigError(
            f"`tracing.endpoint` is wrong: {settings.endpoint[:200]}.", cure="Write http://collector:4318/v1/traces."
        )
    sys.setswitchinterval(min(SWITCH_INTERVAL_S, sys.getswitchinterval()))
    try:
        exporter = OTLPSpanExporter(endpoint=settings.endpoint, timeout=settings.export_timeout_s)
    except (ValueError, OSError, RuntimeError, ImportError) as exc:
        raise ConfigError(
            f"Traces cannot be sent as OpenTelemetry's variables say: {exc}.", cure="Look at OTEL_* in the environment."
        ) from exc
    resource = Resource.create(
        {
            "service.name": settings.service_name,
            "service.version": __version__,
            "service.instance.id": f"{os.uname().nodename}-{os.getpid()}",
        }
    )
    return OtelTracing(exporter, settings=settings, resource=resource, tell=tell)
