"""What is noted of each request when it is over: figures, its line in the log, its trace, what its key has used.

Called once per request, so it is written for speed: cells and constant parts of lines are looked up by one key, and
the line is put together as bytes. A line never holds prompts, answers or keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from inferdock.gateway.metrics import GatewayMetrics
from inferdock.keys.key import Key
from inferdock.telemetry.logs import EventLog
from inferdock.telemetry.tracing import RequestFacts, Tracing

if TYPE_CHECKING:
    from inferdock.gateway.exchange import Exchange

_ENCODE = msgspec.json.Encoder().encode
_MAX_KNOWN = 4096
"""Constant parts of lines that are remembered; there is one per replica and route, and one per key."""

_LINE = (
    b'{"ts":%.3f,"level":"info","event":"request","request_id":"%b",%b,%b,"status":%d,"outcome":"%b","attempts":%d,'
    b'"resumes":%d,"stream":%b,"duration_s":%.6f,"queued_s":%.6f,"ttft_s":%b,"prompt_tokens":%b,"output_tokens":%d}\n'
)


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
        self._where: dict[tuple[str, str, str | None, str], bytes] = {}
        self._who: dict[str, bytes] = {}

    def close(self, exchange: Exchange) -> None:
        """Note a request that has ended."""
        cells = self._metrics.cells(exchange.model, exchange.revision)
        received_at = exchange.request.received_at
        duration_s = exchange.ended_at - received_at
        usage, output_tokens = exchange.counts
        status = exchange.answer.status
        prompt_tokens = usage.prompt_tokens if usage is not None else 0
        cells.answered(exchange.route, status).value += 1
        cells.duration.observe(duration_s)
        cells.output_tokens.value += output_tokens
        cells.prompt_tokens.value += prompt_tokens
        ttft_s = -1.0
        if exchange.fields.stream and exchange.first_byte_at and status == 200:
            ttft_s = exchange.first_byte_at - received_at
            cells.ttft.observe(ttft_s)
            if output_tokens > 1 and exchange.outcome == "answered":
                cells.tpot.observe((duration_s - ttft_s) / (output_tokens - 1))
        if exchange.key.limited:
            if usage is not None or exchange.outcome == "refused":
                exchange.admission.used_tokens(prompt_tokens + output_tokens, self._clock())
            exchange.admission.release()
        if self.log_requests:
            self._write_line(exchange, duration_s, ttft_s, prompt_tokens if usage is not None else -1, output_tokens)
        trace = exchange.trace
        if trace is not None and trace.sampled:
            self._tracing.end(trace, _facts(exchange, ttft_s))

    def _write_line(
        self, exchange: Exchange, duration_s: float, ttft_s: float, prompt_tokens: int, output_tokens: int
    ) -> None:
        """Negative numbers stand for unknown ones."""
        where = (exchange.model, exchange.revision, exchange.endpoint_name, exchange.route)
        self._log.line(
            "info",
            _LINE
            % (
                self._wall_clock(),
                exchange.request_id,  # checked by the pipeline: needs no escapes
                self._who.get(exchange.key.id) or self._know_key(exchange.key),
                self._where.get(where) or self._know_place(where),
                exchange.status,
                exchange.outcome.encode(),
                exchange.attempts,
                exchange.resumes,
                b"true" if exchange.fields.stream else b"false",
                duration_s,
                exchange.queued_s,
                b"null" if ttft_s < 0 else b"%.6f" % ttft_s,
                b"null" if prompt_tokens < 0 else b"%d" % prompt_tokens,
                output_tokens,
            ),
        )

    def _know_key(self, key: Key) -> bytes:
        return _remember(self._who, key.id, {"key": key.id or None, "tenant": key.tenant or None})

    def _know_place(self, where: tuple[str, str, str | None, str]) -> bytes:
        model, revision, endpoint, route = where
        fields = {"model": model, "revision": revision, "endpoint": endpoint, "route": route}
        return _remember(self._where, where, fields)


K = TypeVar("K")


def _remember(known: dict[K, bytes], key: K, fields: dict[str, str | None]) -> bytes:
    if len(known) >= _MAX_KNOWN:
        known.clear()
    part = known[key] = _ENCODE(fields)[1:-1]
    return part


def _facts(exchange: Exchange, ttft_s: float) -> RequestFacts:
    usage, output_tokens = exchange.counts
    return RequestFacts(
        method=exchange.request.method.decode(),
        route=exchange.route,
        started_at=exchange.request.received_at,
        ended_at=exchange.ended_at,
        status=exchange.status,
        outcome=exchange.outcome,
        request_id=exchange.request_id.decode(),
        model=exchange.model,
        revision=exchange.revision,
        endpoint=exchange.endpoint_name or "",
        stream=bool(exchange.fields.stream),
        resumes=exchange.resumes,
        prompt_tokens=usage.prompt_tokens if usage is not None else None,
        output_tokens=output_tokens,
        ttft_s=None if ttft_s < 0 else ttft_s,
    )
