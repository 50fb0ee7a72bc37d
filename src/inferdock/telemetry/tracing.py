"""Distributed traces of requests, by option: W3C Trace Context in and out, one call when a request is over.

A request costs three numbers while it is under way (:class:`Trace`). What became of it is told once, as plain values
(:class:`RequestFacts`); spans are made of them in the exporter's thread (``telemetry.otel``, the only module that
imports OpenTelemetry; loaded when tracing is on). Facts hold ids, names, numbers and outcomes: never prompts, answers
or keys.

How the gateway uses it::

    trace = tracing.begin(request.header(b"traceparent"))
    ...                                     # per attempt, when trace is not None:
    header = trace.upstream_header()        # send this `traceparent` in place of the client's
    ...                                     # at the attempt's end, when trace.sampled:
    trace.attempt_ended(AttemptFacts(...))
    ...                                     # at the end of the request, when trace.sampled:
    tracing.end(trace, RequestFacts(...))

Without a trace (None) the client's ``traceparent`` and ``tracestate`` go to the replica as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Protocol

import msgspec

from inferdock.config.extras import load_extra

if TYPE_CHECKING:  # gateway workers do without the settings' library
    from inferdock.config.settings import TracingSettings

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE = b"0" * 32
_NO_SPAN = b"0" * 16
SAMPLED = 0x01
RANDOM = 0x02
"""Flag of W3C Trace Context, level 2: the trace id is random. Handed on as it came; other bits are cleared."""
_LOW_64 = (1 << 64) - 1


class AttemptFacts(msgspec.Struct, frozen=True, gc=False):
    """One attempt on one replica.

    Attributes:
        endpoint: the replica's name.
        host, port: its address.
        started_at, ended_at: seconds on the gateway's clock.
        status: HTTP status of its answer; 0 without one.
        outcome: how it ended: `answered`, `failed`, `cut`, `cancelled`, `stale`.
        resumes: it went on with a stream that another replica had begun.
    """

    endpoint: str
    host: str
    port: int
    started_at: float
    ended_at: float
    status: int
    outcome: str
    resumes: bool = False


class RequestFacts(msgspec.Struct, frozen=True, gc=False):
    """One request from its first byte to the end of its answer.

    Attributes:
        method, route: of the request; the route is one of few known paths, or `other`.
        started_at, ended_at: seconds on the gateway's clock.
        status: HTTP status that the client got.
        outcome: `answered`, `failed`, `refused`, `cut`, `cancelled`.
        request_id: the id in the request log.
        model, revision, endpoint: what served it; "" where nothing did.
        stream: the client asked for a stream.
        resumes: how often the stream went on at another replica.
        prompt_tokens, output_tokens: as the engine counted; None when it did not say.
        ttft_s: request received to first byte of a stream, at the gateway.
    """

    method: str
    route: str
    started_at: float
    ended_at: float
    status: int
    outcome: str
    request_id: str
    model: str = ""
    revision: str = ""
    endpoint: str = ""
    stream: bool = False
    resumes: int = 0
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    ttft_s: float | None = None


class Trace:
    """Our place in a trace: the server span of one request, and the client spans of its attempts.

    Attempts follow each other, so their span ids are the server span's plus 1, 2, and so on.

    Attributes:
        trace_id, parent_id: lower-case hexadecimal; the parent is empty in a trace that begins here.
        span_id: of the server span.
        sampled: whether it will be recorded.
        continues: the client's trace goes on; where it does not, its ``tracestate`` must not be sent either.
        attempts: number of the span, and what was told of it.
    """

    __slots__ = ("_flags", "_open", "_spans", "attempts", "parent_id", "sampled", "span_id", "trace_id")

    def __init__(self, trace_id: bytes, parent_id: bytes, span_id: int, flags: int) -> None:
        self.trace_id = trace_id
        self.parent_id = parent_id
        self.span_id = span_id
        self.sampled = bool(flags & SAMPLED)
        self.attempts: list[tuple[int, AttemptFacts]] = []
        self._flags = flags
        self._spans = 0
        self._open = False

    @property
    def continues(self) -> bool:
        """See the class."""
        return bool(self.parent_id)

    def upstream_header(self) -> bytes:
        """Value of ``traceparent`` for the attempt that begins now."""
        self._spans += 1
        self._open = True
        return b"00-%b-%016x-%02x" % (self.trace_id, self.span_id + self._spans, self._flags)

    def attempt_ended(self, facts: AttemptFacts) -> None:
        """Note an attempt; one that never got as far as sending has had no header and gets its number here."""
        if not self._open:
            self._spans += 1
        self._open = False
        self.attempts.append((self._spans, facts))


class Tracing(Protocol):
    """What the gateway knows of tracing."""

    @property
    def exported(self) -> int:
        """Finished requests that the collector took."""

    @property
    def dropped(self) -> int:
        """Finished requests for which the queue had no room, or that shutdown left no time for."""

    @property
    def failed(self) -> int:
        """Finished requests that the collector did not take."""

    def begin(self, traceparent: bytes | None) -> Trace | None:
        """A trace for a request; None when the client's headers shall go on as they are."""

    def end(self, trace: Trace, facts: RequestFacts) -> None:
        """The request is over. Never blocks, never raises."""

    async def close(self) -> None:
        """Send what is left, within the time that the settings give."""


class NoTracing:
    """Tracing that is off."""

    exported = dropped = failed = 0

    def begin(self, traceparent: bytes | None) -> None:
        """No trace of ours; the client's goes through."""

    def end(self, trace: Trace, facts: RequestFacts) -> None:
        """Nothing to record."""

    async def close(self) -> None:
        """Nothing to send."""


class Sampler:
    """Begins traces: the parent's decision holds, else a share of the trace ids is taken.

    Make it in the process that uses it: processes forked after it was made would share its random ids.
    """

    def __init__(self, ratio: float, bits: Callable[[int], int] | None = None) -> None:
        """``ratio``: share of the traces that begin here to be sampled, 0-1; ``bits``: gives so many random bits."""
        self._bound = round(ratio * (1 << 64))
        self._bits = bits or Random().getrandbits  # seeded by the operating system

    def begin(self, traceparent: bytes | None) -> Trace | None:
        """Continue the client's trace if it is sampled, leave it alone if it is not, begin one if there is none."""
        parent = parse_traceparent(traceparent) if traceparent is not None else None
        span_id = self._bits(63) + 1  # never 0, and room above for the attempts
        if parent is not None:
            trace_id, parent_id, flags = parent
            return Trace(trace_id, parent_id, span_id, flags) if flags & SAMPLED else None
        number = self._bits(128) or 1
        # The rule of OpenTelemetry's TraceIdRatioBased, so that others of the same ratio decide alike.
        return Trace(b"%032x" % number, b"", span_id, SAMPLED if number & _LOW_64 < self._bound else 0)


def parse_traceparent(value: bytes) -> tuple[bytes, bytes, int] | None:
    """Trace id, parent id and flags of a ``traceparent`` (W3C Trace Context); None when it is malformed."""
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return None
    version, trace_id, parent_id, flags, more = match.groups()
    if trace_id == _NO_TRACE or parent_id == _NO_SPAN or version == b"ff" or (more and version == b"00"):
        return None
    return trace_id, parent_id, int(flags, 16) & (SAMPLED | RANDOM)


def make_tracing(settings: TracingSettings, *, tell: Callable[[str, str], None] = lambda level, text: None) -> Tracing:
    """Tracing as configured; to be called in the process that serves, after any fork.

    Args:
        settings: the group ``tracing``.
        tell: called with a level and a sentence when the collector stops taking spans, and when it takes them again;
            from the exporter's thread.

    Raises:
        ConfigError: tracing is on, and OpenTelemetry is not installed or not configured rightly.
    """
    if not settings.enabled:
        return NoTracing()
    sentence = "`tracing.enabled` is on, but the Python package {package} is not installed."
    otel = load_extra("inferdock.telemetry.otel", extra="otel", sentence=sentence)
    made: Tracing = otel.make(settings, tell=tell)
    return made
