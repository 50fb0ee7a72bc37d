"""What is noted of each request when it is over: figures, its line in the log, its trace, what its key has used.

Called once per request, so it is written for speed: cells and constant parts of lines are looked up by one key, and
the line is put together as bytes. A line never holds prompts, answers or keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import msgspec

from inferdock.gateway.http_server import Request
from inferdock.gateway.limits import Admission
from inferdock.gateway.metrics import GatewayMetrics
from inferdock.keys.key import Key
from inferdock.telemetry.logs import EventLog
from inferdock.telemetry.tracing import RequestFacts, Trace, Tracing
from inferdock.wire.openai import RequestFields, Usage

_ENCODE = msgspec.json.Encoder().encode
_MAX_KNOWN = 4096
"""Constant parts of lines that are remembered; there is one per replica and route, and one per key."""

_LINE = (
    b'{"ts":%.3f,"level":"info","event":"request","request_id":"%b",%b,%b,"status":%d,"outcome":"%b","attempts":%d,'
    b'"resumes":%d,"stream":%b,"duration_s":%.6f,"queued_s":%.6f,"ttft_s":%b,"prompt_tokens":%b,"output_tokens":%d}\n'
)


class Record(Protocol):
    """What is known of a request that has ended (an ``Exchange``, or a ``Rider`` of the response cache)."""

    @property
    def request(self) -> Request: ...
    @property
    def request_id(self) -> bytes: ...
    @property
    def route(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def fields(self) -> RequestFields: ...
    @property
    def key(self) -> Key: ...
    @property
    def admission(self) -> Admission: ...
    @property
    def trace(self) -> Trace | None: ...
    @property
    def cache(self) -> str:
        """What the response cache did: ``hit``, ``shared``, ``miss``, or "" where it was not asked."""

    @property
    def outcome(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def attempts(self) -> int: ...
    @property
    def resumes(self) -> int: ...
    @property
    def endpoint_name(self) -> str | None: ...
    @property
    def counts(self) -> tuple[Usage | None, int]: ...
    @property
    def queued_s(self) -> float: ...
    @property
    def first_byte_at(self) -> float: ...
    @property
    def ended_at(self) -> float: ...


class Books:
    """Keeps them for one process.

    Attributes:
        log_requests: write a line for each request.
    """

    def __init__(
        self,
        *,
        metrics: GatewayMetrics,
        log: EventLog,
        tracing: Tracing,
        log_requests: bool,
        clock: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.log_requests = log_requests
        self._metrics = metrics
        self._log = log
        self._tracing = tracing
        self._clock = clock
        self._wall_clock = wall_clock
        self._where: dict[tuple[str, str, str | None, str, str], bytes] = {}
        self._who: dict[str, bytes] = {}

    def close(self, record: Record) -> None:
        """Note a request that has ended."""
        cells = self._metrics.cells(record.model, record.revision)
        received_at = record.request.received_at
        duration_s = record.ended_at - received_at
        usage, output_tokens = record.counts
        status = record.status
        prompt_tokens = usage.prompt_tokens if usage is not None else 0
        cells.answered(record.route, status).value += 1
        cells.duration.observe(duration_s)
        cells.output_tokens.value += output_tokens
        cells.prompt_tokens.value += prompt_tokens
        spared = record.cache in ("hit", "shared")  # no engine has read or written anything
        tenant = (record.key.tenant or record.key.id) if self._metrics.by_tenant else ""
        read, written = cells.of_tenant(tenant, spared)
        read.value += prompt_tokens
        written.value += output_tokens
        if usage is not None and usage.cached_tokens is not None and not spared:
            cells.cached_of_tenant(tenant).value += min(usage.cached_tokens, prompt_tokens)
        ttft_s = -1.0
        if record.fields.stream and record.first_byte_at and status == 200:
            ttft_s = record.first_byte_at - received_at
            cells.ttft.observe(ttft_s)
            if output_tokens > 1 and record.outcome == "answered":
                cells.tpot.observe((duration_s - ttft_s) / (output_tokens - 1))
        if record.key.limited:
            if spared:
                record.admission.used_tokens(0, self._clock())
            elif usage is not None or record.outcome == "refused":
                record.admission.used_tokens(prompt_tokens + output_tokens, self._clock())
            record.admission.release()
        if self.log_requests:
            self._write_line(record, duration_s, ttft_s, prompt_tokens if usage is not None else -1, output_tokens)
        trace = record.trace
        if trace is not None and trace.sampled:
            trace_id, at = trace.trace_id.decode(), self._wall_clock()
            cells.duration.exemplify(duration_s, trace_id, at)
            if ttft_s >= 0:
                cells.ttft.exemplify(ttft_s, trace_id, at)
            self._tracing.end(trace, _facts(record, ttft_s))

    def _write_line(
        self, record: Record, duration_s: float, ttft_s: float, prompt_tokens: int, output_tokens: int
    ) -> None:
        """Negative numbers stand for unknown ones."""
        where = (record.model, record.revision, record.endpoint_name, record.route, record.cache)
        self._log.line(
            "info",
            _LINE
            % (
                self._wall_clock(),
                record.request_id,  # checked by the pipeline: needs no escapes
                self._who.get(record.key.id) or self._know_key(record.key),
                self._where.get(where) or self._know_place(where),
                record.status,
                record.outcome.encode(),
                record.attempts,
                record.resumes,
                b"true" if record.fields.stream else b"false",
                duration_s,
                record.queued_s,
                b"null" if ttft_s < 0 else b"%.6f" % ttft_s,
                b"null" if prompt_tokens < 0 else b"%d" % prompt_tokens,
                output_tokens,
            ),
        )

    def _know_key(self, key: Key) -> bytes:
        return _remember(self._who, key.id, {"key": key.id or None, "tenant": key.tenant or None})

    def _know_place(self, where: tuple[str, str, str | None, str, str]) -> bytes:
        model, revision, endpoint, route, cache = where
        fields = {"model": model, "revision": revision, "endpoint": endpoint, "route": route}
        if cache:
            fields["cache"] = cache
        return _remember(self._where, where, fields)


K = TypeVar("K")


def _remember(known: dict[K, bytes], key: K, fields: dict[str, str | None]) -> bytes:
    if len(known) >= _MAX_KNOWN:
        known.clear()
    part = known[key] = _ENCODE(fields)[1:-1]
    return part


def _facts(record: Record, ttft_s: float) -> RequestFacts:
    usage, output_tokens = record.counts
    return RequestFacts(
        method=record.request.method.decode(),
        route=record.route,
        started_at=record.request.received_at,
        ended_at=record.ended_at,
        status=record.status,
        outcome=record.outcome,
        request_id=record.request_id.decode(),
        model=record.model,
        revision=record.revision,
        endpoint=record.endpoint_name or "",
        stream=bool(record.fields.stream),
        resumes=record.resumes,
        prompt_tokens=usage.prompt_tokens if usage is not None else None,
        output_tokens=output_tokens,
        ttft_s=None if ttft_s < 0 else ttft_s,
    )
