"""One client whose answer comes from the cache or from a generation that it shares with others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from inferdock.cache.entry import StoredAnswer
from inferdock.cache.replay import events, json_body, paced
from inferdock.domain.errors import RequestError
from inferdock.gateway.answer import Answer
from inferdock.gateway.ask import Ask
from inferdock.gateway.http_server import Request
from inferdock.gateway.limits import Admission
from inferdock.keys.key import Key
from inferdock.telemetry.tracing import Trace
from inferdock.wire.http1 import LAST_CHUNK, ResponseHead, chunk
from inferdock.wire.openai import RequestFields, Usage

STREAM_HEAD = ResponseHead(
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked"
)
JSON_HEAD = ResponseHead(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 0")
MISS = b"x-inferdock-cache: miss\r\n"


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """An event of a stream, or bytes of a body.

    Attributes:
        data: as it is written, without chunk framing.
        usage_only: the event says nothing but the usage, which not every client has asked for.
    """

    data: bytes
    usage_only: bool = False


class Source(Protocol):
    """What a rider rides on (``flight.Flight``)."""

    def left(self, rider: Rider) -> None:
        """Its client has gone."""

    def caught_up(self, rider: Rider) -> None:
        """Its client, who read slowly, has everything."""


class Owner(Protocol):
    """Who keeps the books (``door.Door``)."""

    loop: asyncio.AbstractEventLoop

    def now(self) -> float:
        """Seconds on a monotonic clock."""

    def wall(self) -> float:
        """Seconds since 1970."""

    def closed(self, rider: Rider) -> None:
        """The request has ended; note it."""


class Rider:
    """A client's side of a cached or shared answer; has what the books want to know of a request.

    Attributes:
        ask: the request.
        cursor: parts of the shared answer that have been written.
        paused: the client reads slowly.
        outcome: "" while it goes on.
        cache: ``hit``, ``miss`` or ``shared``, for the log.
    """

    __slots__ = (
        "_owner",
        "_pieces",
        "_timer",
        "admission",
        "answer",
        "ask",
        "attempts",
        "cache",
        "cursor",
        "ended_at",
        "endpoint_name",
        "fields",
        "first_byte_at",
        "key",
        "model",
        "outcome",
        "paused",
        "request",
        "request_id",
        "resumes",
        "revision",
        "route",
        "sent_at",
        "source",
        "tokens",
        "trace",
        "usage",
    )

    def __init__(self, owner: Owner, ask: Ask) -> None:
        self._owner = owner
        self._pieces: Iterator[bytes] = iter(())
        self._timer: asyncio.TimerHandle | None = None
        self.source: Source | None = None
        self.ask = ask
        self.answer: Answer = ask.answer
        self.request: Request = ask.request
        self.request_id = ask.request_id
        self.route = ask.route
        self.model = ask.model
        self.fields: RequestFields = ask.fields
        self.key: Key = ask.key
        self.admission: Admission = ask.admission
        self.trace: Trace | None = ask.trace
        self.cursor = 0
        self.paused = False
        self.outcome = ""
        self.cache = "miss"
        self.revision = ""
        self.endpoint_name: str | None = None
        self.attempts = self.resumes = 0
        self.usage: Usage | None = None
        self.tokens = 0
        self.sent_at = self.first_byte_at = self.ended_at = 0.0
        ask.answer.listen(self)

    # -- What the books read ---------------------------------------------------------------------------------

    @property
    def status(self) -> int:
        """HTTP status that the client got, 499 when it left before."""
        return self.answer.status

    @property
    def counts(self) -> tuple[Usage | None, int]:
        """Token counts of the answer, and output tokens sent to the client."""
        return self.usage, self.tokens

    @property
    def queued_s(self) -> float:
        """Seconds from the request's last byte until a replica was free; 0 when none was needed."""
        return max(0.0, self.sent_at - self.request.received_at) if self.sent_at else 0.0

    # -- What it asked for -----------------------------------------------------------------------------------

    @property
    def stream(self) -> bool:
        """The client wants events."""
        return bool(self.fields.stream)

    @property
    def wants_usage(self) -> bool:
        """The client wants the event that only carries usage."""
        options = self.fields.stream_options
        return options is not None and options.include_usage is True

    # -- A stored answer -------------------------------------------------------------------------------------

    def replay(self, answer: StoredAnswer, revision: str, lines: bytes, tokens_per_s: float | None = None) -> None:
        """Answer with a stored answer and end.

        Args:
            answer: what to say.
            revision: that said it.
            lines: for the head; they say where the answer comes from.
            tokens_per_s: pace of a stream, None for at once.
        """
        now = self._owner.now()
        self.revision = revision
        self.usage = Usage(answer.prompt_tokens, answer.output_tokens)
        self.tokens = answer.output_tokens
        self.first_byte_at = now
        overhead_ms = (now - self.request.received_at) * 1e3
        lines = b"%bx-inferdock-revision: %b\r\nx-inferdock-overhead-ms: %.3f\r\n" % (
            lines,
            revision.encode(),
            overhead_ms,
        )
        created = int(self._owner.wall())
        if not self.stream:
            body = json_body(answer, request_id=self.request_id, created=created)
            self._whole(JSON_HEAD.sized(len(body)), body, lines)
        elif tokens_per_s is None:
            made = events(answer, request_id=self.request_id, created=created, include_usage=self.wants_usage)
            self._whole(STREAM_HEAD, b"".join(made), lines)
        else:
            pieces = paced(answer, request_id=self.request_id, created=created, include_usage=self.wants_usage)
            self._pieces = iter(pieces)
            self.answer.begin(STREAM_HEAD, self._framed(next(self._pieces)), framed_by_us=True, extra=lines)
            self._pace(answer.output_tokens / tokens_per_s / max(1, len(pieces)))

    def _whole(self, head: ResponseHead, body: bytes, lines: bytes) -> None:
        framed = head.event_stream
        self.answer.begin(head, self._framed(body) if framed else body, framed_by_us=framed, extra=lines)
        self.complete(framed=framed)

    def _pace(self, gap_s: float) -> None:
        """Write the next piece after each gap; while the client reads slowly, look again."""
        self._timer = self._owner.loop.call_later(gap_s, self._next_piece, gap_s)

    def _next_piece(self, gap_s: float) -> None:
        if not self.paused:
            piece = next(self._pieces, None)
            if piece is None:
                self._end("answered")
                self.answer.finish(self._last())
                return
            self.answer.write(self._framed(piece))
        self._pace(gap_s)

    # -- A shared answer -------------------------------------------------------------------------------------

    def begin(self, head: ResponseHead, parts: Sequence[AnswerPart], extra: bytes) -> None:
        """Write the head and the parts that are there."""
        self.first_byte_at = self._owner.now()
        framed = head.event_stream or head.length is None
        self.answer.begin(head, self._taken(parts, framed=framed), framed_by_us=framed, extra=extra)

    def more(self, parts: Sequence[AnswerPart], *, framed: bool) -> None:
        """Write further parts."""
        data = self._taken(parts, framed=framed)
        if data:
            self.answer.write(data)

    def _taken(self, parts: Sequence[AnswerPart], *, framed: bool) -> bytes:
        self.cursor += len(parts)
        hide = self.stream and not self.wants_usage
        data = b"".join([part.data for part in parts if not (hide and part.usage_only)])
        return self._framed(data) if framed else data

    def beat(self) -> None:
        """Keep the client's connection alive while it waits for a stream."""
        if self.stream and self.answer.takes_beats and not self.paused:
            self.answer.beat()

    def complete(self, *, framed: bool) -> None:
        """All parts are written."""
        self._end("answered")
        self.answer.finish(self._last() if framed else b"")

    def refuse(self, error: RequestError) -> None:
        """There is no answer."""
        self._end("refused", status=error.status)
        self.answer.refuse(error, bodiless=False)

    def cut(self, error: RequestError) -> None:
        """The rest of the answer is lost."""
        if not self.answer.begun:
            self.refuse(error)
            return
        self._end("cut")
        self.answer.cut(error, readable=not self.paused)

    def _framed(self, data: bytes) -> bytes:
        return chunk(data) if data and self.answer.chunked else data

    def _last(self) -> bytes:
        return LAST_CHUNK if self.answer.chunked else b""

    # -- Listener: what the client does ----------------------------------------------------------------------

    def client_gone(self) -> None:
        """Nobody reads any more."""
        if self.outcome:
            return
        self._end("cancelled", status=499)
        if self.source is not None:
            self.source.left(self)

    def pause(self) -> None:
        """The client reads slowly: parts wait in the shared answer."""
        self.paused = True

    def resume(self) -> None:
        """The client reads again."""
        self.paused = False
        if self.source is not None and not self.outcome:
            self.source.caught_up(self)

    def _end(self, outcome: str, *, status: int = 0) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.outcome = outcome
        self.answer.status = self.answer.status or status
        self.ended_at = self._owner.now()
        self._owner.closed(self)
