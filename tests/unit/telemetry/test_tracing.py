"""Traces: context in and out, spans of finished requests, and an exporter that can do no harm."""

import asyncio
import importlib
import logging
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.semconv import attributes as stable
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from inferdock.config.settings import TracingSettings
from inferdock.domain.errors import ConfigError
from inferdock.telemetry.otel import OtelTracing
from inferdock.telemetry.tracing import (
    AttemptFacts,
    NoTracing,
    RequestFacts,
    Sampler,
    Trace,
    make_tracing,
    parse_traceparent,
)
from tests.support.collector import running_collector

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ALL = TracingSettings(enabled=True, sample_ratio=1.0, flush_interval_s=60, shutdown_timeout_s=10)


def facts(**changes) -> RequestFacts:
    made = {
        "method": "POST",
        "route": "/v1/chat/completions",
        "started_at": 100.0,
        "ended_at": 102.5,
        "status": 200,
        "outcome": "answered",
        "request_id": "req-1",
        "model": "demo",
        "revision": "r1",
        "endpoint": "replica-0",
        "stream": True,
        "prompt_tokens": 12,
        "output_tokens": 64,
        "ttft_s": 0.25,
    }
    return RequestFacts(**(made | changes))


def attempt(**changes) -> AttemptFacts:
    made = {
        "endpoint": "replica-0",
        "host": "10.0.0.1",
        "port": 8000,
        "started_at": 100.1,
        "ended_at": 102.5,
        "status": 200,
        "outcome": "answered",
    }
    return AttemptFacts(**(made | changes))


async def spans_of(
    request: RequestFacts, *attempts: AttemptFacts, traceparent: bytes | None = None
) -> list[ReadableSpan]:
    """What is exported for one request: the server span, then one span per attempt."""
    memory = InMemorySpanExporter()
    tracing = OtelTracing(
        memory, settings=ALL, resource=Resource({}), clock=lambda: 103.0, wall_ns=lambda: 1_003 * 10**9
    )
    trace = tracing.begin(traceparent)
    assert trace is not None
    for one in attempts:
        trace.upstream_header()
        trace.attempt_ended(one)
    tracing.end(trace, request)
    await tracing.close()
    return list(memory.get_finished_spans())


# -- Context -------------------------------------------------------------------------------------------------


def test_a_sampled_trace_of_the_client_goes_on():
    trace = Sampler(0.0).begin(PARENT)
    assert trace is not None
    assert (trace.sampled, trace.continues) == (True, True)
    version, trace_id, span_id, flags = trace.upstream_header().split(b"-")
    assert (version, trace_id, flags) == (b"00", PARENT[3:35], b"01")
    assert span_id != PARENT[36:52]


def test_a_trace_that_the_client_does_not_sample_is_left_alone():
    assert Sampler(1.0).begin(PARENT[:-1] + b"0") is None


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_without_a_parent_a_trace_begins_and_its_replica_learns_the_decision(ratio):
    trace = Sampler(ratio).begin(None)
    assert trace is not None
    assert (trace.sampled, trace.continues) == (ratio == 1.0, False)
    assert trace.upstream_header().endswith(b"-01" if ratio else b"-00")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"garbage",
        b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01",
        b"00-0af7651916cd43dd8448eb211c80319c-" + b"0" * 16 + b"-01",
        b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        PARENT.upper(),
        PARENT + b"-more",
        PARENT + b"\n",
        b"01" + PARENT[2:] + b"more",
        PARENT + b", " + PARENT,
    ],
)
def test_a_malformed_parent_is_ignored_and_replaced(value):
    assert parse_traceparent(value) is None
    trace = Sampler(1.0).begin(value)
    assert trace is not None
    assert not trace.continues
    assert parse_traceparent(trace.upstream_header()) is not None


def test_a_parent_of_a_later_version_is_read_as_far_as_we_know_it():
    assert parse_traceparent(b"01" + PARENT[2:] + b"-more") == parse_traceparent(PARENT)


@given(st.integers(0, 255))
def test_only_the_flags_that_we_know_are_handed_on(flags):
    trace = Sampler(0.0).begin(PARENT[:-2] + b"%02x" % flags)
    assert (trace is not None) == bool(flags & 1)
    if trace is not None:
        assert int(trace.upstream_header()[-2:], 16) == flags & 3


@given(st.binary(max_size=80))
def test_no_bytes_whatever_break_the_parser(value):
    parse_traceparent(value)


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8), st.integers(0, 3))
def test_parents_are_read_as_opentelemetry_reads_them(trace_id, span_id, flags):
    value = f"00-{trace_id.hex()}-{span_id.hex()}-{flags:02x}"
    theirs = TraceContextTextMapPropagator().extract({"traceparent": value})
    ours = parse_traceparent(value.encode())
    assert (ours is not None) == bool(theirs)


@given(st.integers(1, 2**128 - 1), st.floats(0, 1))
def test_the_ratio_decides_as_opentelemetry_s_sampler_does(number, ratio):
    sampler = Sampler(ratio, lambda bits: number if bits == 128 else 1)
    theirs = TraceIdRatioBased(ratio).should_sample(None, number, "x").decision.is_sampled()
    assert sampler.begin(None).sampled is theirs


def test_each_attempt_has_a_span_of_its_own():
    trace = Sampler(1.0).begin(None)
    assert len({trace.upstream_header() for _ in range(5)}) == 5


def test_off_means_that_nothing_happens():
    tracing = make_tracing(TracingSettings())
    assert isinstance(tracing, NoTracing)
    assert tracing.begin(PARENT) is None
    asyncio.run(tracing.close())


def test_opentelemetry_that_is_not_installed_is_named_with_the_cure(monkeypatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name}", name="opentelemetry.sdk")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"pip install 'inferdock\[otel\]'"):
        make_tracing(ALL)


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://collector", ""])
def test_an_endpoint_that_is_no_url_is_refused(endpoint):
    with pytest.raises(ConfigError, match=r"tracing\.endpoint"):
        make_tracing(ALL.model_copy(update={"endpoint": endpoint}))


def test_a_wrong_variable_of_opentelemetry_is_named(monkeypatch):
    monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER", "nobody")
    with pytest.raises(ConfigError, match=r"nobody.*OTEL_\*"):
        make_tracing(ALL)


# -- Spans ---------------------------------------------------------------------------------------------------


async def test_a_request_is_a_server_span_with_what_the_log_says():
    (span,) = await spans_of(facts())
    assert (span.name, span.kind, span.parent) == ("POST /v1/chat/completions", SpanKind.SERVER, None)
    assert (span.start_time, span.end_time) == (1000 * 10**9, 1002_500_000_000)
    assert dict(span.attributes) == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "url.path": "/v1/chat/completions",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "demo",
        "gen_ai.request.stream": True,
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 64,
        "gen_ai.response.time_to_first_chunk": 0.25,
        "inferdock.request_id": "req-1",
        "inferdock.revision": "r1",
        "inferdock.endpoint": "replica-0",
        "inferdock.outcome": "answered",
        "inferdock.attempts": 0,
        "inferdock.resumes": 0,
    }


async def test_each_attempt_is_a_client_span_below_it():
    failed = attempt(endpoint="replica-1", host="fd00::1", status=0, outcome="failed")
    server, first, second = await spans_of(facts(resumes=1), failed, attempt(resumes=True))
    assert [span.kind for span in (first, second)] == [SpanKind.CLIENT] * 2
    assert {span.parent.span_id for span in (first, second)} == {server.context.span_id}
    assert first.attributes["url.full"] == "http://[fd00::1]:8000/v1/chat/completions"
    assert first.attributes["error.type"] == "failed"
    assert "http.response.status_code" not in first.attributes
    assert (second.attributes["http.request.resend_count"], second.attributes["inferdock.resumed"]) == (1, True)
    assert (server.attributes["inferdock.attempts"], server.attributes["inferdock.resumes"]) == (2, 1)


async def test_the_spans_stand_where_the_headers_said():
    memory = InMemorySpanExporter()
    tracing = OtelTracing(memory, settings=ALL, resource=Resource({}))
    trace = tracing.begin(PARENT)
    headers = []
    for outcome in ("refused before sending", "stale", "answered"):
        if outcome != "refused before sending":
            headers.append(trace.upstream_header())
        trace.attempt_ended(attempt(outcome=outcome))
    tracing.end(trace, facts())
    await tracing.close()
    server, *attempts = memory.get_finished_spans()
    assert (server.parent.span_id, server.parent.is_remote) == (0xB7AD6B7169203331, True)
    assert {span.context.trace_id for span in (server, *attempts)} == {0x0AF7651916CD43DD8448EB211C80319C}
    assert len({span.context.span_id for span in (server, *attempts)}) == 4
    assert [b"%016x" % span.context.span_id for span in attempts[1:]] == [header[36:52] for header in headers]


@pytest.mark.parametrize(
    ("status", "outcome", "error", "is_error"),
    [
        (200, "answered", None, False),
        (400, "answered", None, False),
        (429, "refused", None, False),
        (503, "refused", "503", True),
        (502, "failed", "502", True),
        (200, "cut", "cut", True),
        (499, "cancelled", "cancelled", False),
        (200, "cancelled", "cancelled", False),
    ],
)
async def test_a_server_span_is_an_error_when_it_is_ours(status, outcome, error, is_error):
    (span,) = await spans_of(facts(status=status, outcome=outcome))
    assert span.attributes.get("error.type") == error
    assert (span.status.status_code is StatusCode.ERROR) == is_error
    assert span.status.description is None


@pytest.mark.parametrize(
    ("status", "outcome", "error", "is_error"),
    [(200, "answered", None, False), (404, "answered", "404", True), (0, "failed", "failed", True),
     (200, "cut", "cut", True), (200, "cancelled", "cancelled", False)],
)  # fmt: skip
async def test_a_client_span_is_an_error_from_status_400(status, outcome, error, is_error):
    _, span = await spans_of(facts(), attempt(status=status, outcome=outcome))
    assert span.attributes.get("error.type") == error
    assert (span.status.status_code is StatusCode.ERROR) == is_error


async def test_what_only_the_client_knows_stays_out():
    (span,) = await spans_of(
        facts(method="BREW", route="other", model="", endpoint="", prompt_tokens=None, ttft_s=None)
    )
    assert span.name == "HTTP"
    assert span.attributes["http.request.method"] == "_OTHER"
    assert not {"http.route", "url.path", "gen_ai.request.model", "gen_ai.operation.name"} & set(span.attributes)


async def test_an_end_before_the_start_is_no_negative_time():
    (span,) = await spans_of(facts(ended_at=99.0))
    assert span.end_time == span.start_time


async def test_every_name_is_one_of_the_conventions_or_begins_with_ours():
    # The package keeps its modules of conventions in development under a private name.
    gen_ai = importlib.import_module("opentelemetry.semconv._incubating.attributes.gen_ai_attributes")
    modules = [
        importlib.import_module(f"{stable.__name__}.{name}_attributes") for name in ("http", "url", "server", "error")
    ]
    incubating = importlib.import_module("opentelemetry.semconv._incubating.attributes.http_attributes")
    known = {
        value for module in (gen_ai, incubating, *modules) for value in vars(module).values() if isinstance(value, str)
    }
    for span in await spans_of(facts(status=500), attempt(status=500), attempt()):
        assert {name for name in span.attributes if not name.startswith("inferdock.")} <= known


# -- Exporting -----------------------------------------------------------------------------------------------


class Stuck(SpanExporter):
    """An exporter that waits until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.entered = threading.Event()

    def export(self, spans) -> SpanExportResult:
        """Wait."""
        self.entered.set()
        self.go.wait(30)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing."""


class Broken(SpanExporter):
    """An exporter that raises, as long as ``broken``."""

    broken = True

    def export(self, spans) -> SpanExportResult:
        """Raise."""
        if self.broken:
            raise RuntimeError("secret")
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing."""


def finish(tracing: OtelTracing, count: int = 1) -> None:
    for _ in range(count):
        trace = tracing.begin(None)
        assert trace is not None
        tracing.end(trace, facts())


async def test_a_full_queue_drops_counts_and_does_not_block():
    stuck = Stuck()
    settings = ALL.model_copy(update={"queue_size": 10, "flush_interval_s": 0.001})
    tracing = OtelTracing(stuck, settings=settings, resource=Resource({}))
    finish(tracing)
    assert stuck.entered.wait(10)
    finish(tracing, 25)
    assert tracing.dropped == 15
    stuck.go.set()
    await tracing.close()
    assert (tracing.exported, tracing.dropped, tracing.failed) == (11, 15, 0)


async def test_shutdown_keeps_its_deadline_when_the_exporter_hangs():
    stuck = Stuck()
    settings = ALL.model_copy(update={"shutdown_timeout_s": 0.1, "flush_interval_s": 0.001})
    tracing = OtelTracing(stuck, settings=settings, resource=Resource({}))
    finish(tracing)
    assert stuck.entered.wait(10)
    finish(tracing, 3)
    started = time.monotonic()
    await tracing.close()
    assert time.monotonic() - started < 10
    assert tracing.dropped == 3
    stuck.go.set()


async def test_after_shutdown_requests_are_dropped_and_counted():
    tracing = OtelTracing(InMemorySpanExporter(), settings=ALL, resource=Resource({}))
    await tracing.close()
    await tracing.close()
    finish(tracing)
    assert tracing.dropped == 1


async def test_an_exporter_that_raises_is_told_once_and_again_when_it_works():
    told: list[tuple[str, str]] = []
    exporter = Broken()
    settings = ALL.model_copy(update={"flush_interval_s": 0.001})
    tracing = OtelTracing(exporter, settings=settings, resource=Resource({}), tell=lambda *what: told.append(what))
    for count in range(1, 4):
        finish(tracing)
        await until(lambda count=count: tracing.failed == count)
    exporter.broken = False
    finish(tracing)
    await tracing.close()
    assert [level for level, _ in told] == ["warning", "info"]
    assert "secret" not in str(told)
    assert (tracing.failed, tracing.exported) == (3, 1)


async def test_what_is_not_sampled_never_reaches_the_queue():
    memory = InMemorySpanExporter()
    tracing = OtelTracing(memory, settings=ALL, resource=Resource({}))
    tracing.end(Trace(b"1" * 32, b"", 1, 0), facts())
    await tracing.close()
    assert memory.get_finished_spans() == ()


async def test_a_collector_gets_the_spans_over_http():
    with running_collector() as collector:
        tracing = make_tracing(ALL.model_copy(update={"endpoint": collector.url, "service_name": "gw"}))
        trace = tracing.begin(PARENT)
        assert trace is not None
        header = trace.upstream_header()
        trace.attempt_ended(attempt())
        tracing.end(trace, facts(prompt_tokens=0))
        await tracing.close()
    server, client = collector.spans
    assert (tracing.exported, server.name) == (1, "POST /v1/chat/completions")
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (PARENT[3:35].decode(), PARENT[36:52].decode())
    assert (client.span_id.hex(), client.parent_span_id) == (header[36:52].decode(), server.span_id)
    names = {one.key: one.value.string_value for one in collector.requests[0].resource_spans[0].resource.attributes}
    assert names["service.name"] == "gw"
    assert {one.key: one.value.int_value for one in server.attributes}["gen_ai.usage.output_tokens"] == 64


@pytest.mark.parametrize("status", [400, 500, 503])
async def test_a_collector_that_refuses_costs_spans_and_one_line(status, root_log):
    told: list[tuple[str, str]] = []
    with running_collector() as collector:
        collector.status = status
        settings = ALL.model_copy(update={"endpoint": collector.url, "export_timeout_s": 0.2})
        tracing = make_tracing(settings, tell=lambda *what: told.append(what))
        finish(tracing, 5)
        await tracing.close()
    assert tracing.failed == 5
    assert [level for level, _ in told] == ["warning"]
    assert root_log == []


async def test_a_collector_that_is_not_there_costs_spans_and_nothing_else(unused_tcp_port):
    settings = ALL.model_copy(
        update={"endpoint": f"http://127.0.0.1:{unused_tcp_port}/v1/traces", "export_timeout_s": 0.2}
    )
    tracing = make_tracing(settings)
    finish(tracing, 5)
    await tracing.close()
    assert (tracing.exported, tracing.failed) == (0, 5)


@pytest.fixture
def root_log():
    """Records that reach the root logger, from where they would be printed."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger().addHandler(handler)
    yield records
    logging.getLogger().removeHandler(handler)


async def until(holds) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.001)


def test_tracing_that_is_off_loads_no_opentelemetry():
    code = """
import sys
from inferdock.config.settings import TracingSettings
from inferdock.telemetry.tracing import make_tracing
make_tracing(TracingSettings())
print(*sys.modules)
"""
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not any(name.startswith("opentelemetry") for name in loaded)
