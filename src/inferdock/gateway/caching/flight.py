"""One look-up and one generation for all clients who ask the same at the same time (single flight).

::

    looking -> generating -> over
      |  '---> following another process's generation -> over
      '-> hit -> over                '- its leader is lost -> generating or following again

The flight belongs to nobody: each rider may leave, and the replica's work is given up with the last one. A rider that
the shared answer cannot serve (it wants JSON of a stream that could not be put together) gets an exchange of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from inferdock.cache.entry import StoredAnswer
from inferdock.cache.recorder import StreamRecorder, record_body
from inferdock.domain.errors import RequestError
from inferdock.gateway.ask import Ask
from inferdock.gateway.caching.broadcast import Broadcast
from inferdock.gateway.caching.plan import Plan
from inferdock.gateway.caching.rider import MISS, STREAM_HEAD, Rider
from inferdock.gateway.exchange import Exchange
from inferdock.wire.openai import Usage

SHARED = b"x-inferdock-cache: hit\r\nx-inferdock-cache-tier: flight\r\nage: 0\r\n"
_UNKEPT = 64 * 1024  # framing of a stream whose answer is just small enough to be stored


class Pilot(Protocol):
    """What a flight uses of the door (``door.Door``)."""

    def now(self) -> float:
        """Seconds on a monotonic clock."""

    def depart(self, flight: Flight, ask: Ask) -> Exchange:
        """Begin the generation."""

    def land(self, flight: Flight, answer: StoredAnswer | None) -> asyncio.Task[None] | None:
        """The flight is over; ``answer`` may be stored. Returns what gives it to other processes, None without any."""

    def go_alone(self, rider: Rider) -> None:
        """Give the rider an exchange of its own."""


class Leading(Protocol):
    """Tells other processes of the answer (``redis_lead.Lead``)."""

    def publish(self, piece: bytes) -> None: ...
    def done(self, ok: bool) -> None: ...


class Flight:
    """See the module's first lines.

    Attributes:
        ask: the first rider's request.
        plan: what it asked; equal in all that matters for those who join.
        stream: the answer comes as events.
        riders: who waits for the answer.
        leader: the first rider.
        exchange: the generation, None while it is being looked up, or is another process's.
        began_at: when the generation began, in seconds of the pilot's clock.
        vector: of the text, where one was made.
        task: looks up, or follows; cancelled when nobody is left.
        over: nobody can join any more.
    """

    def __init__(self, pilot: Pilot, plan: Plan, ask: Ask) -> None:
        self._pilot = pilot
        self._recorder = StreamRecorder(plan.request.kind, max_bytes=plan.policy.max_answer_bytes)
        self._body = bytearray()
        self._leading: Leading | None = None
        self._revision = ""
        self.ask = ask
        self.plan = plan
        self.stream = bool(ask.fields.stream)
        self.riders: list[Rider] = []
        self.leader: Rider | None = None
        self.exchange: Exchange | None = None
        self.began_at = 0.0
        self.vector: bytes | None = None
        self.task: asyncio.Task[None] | None = None
        self.over = False
        self.broadcast = Broadcast(
            self.riders,
            max_bytes=2 * plan.policy.max_answer_bytes + _UNKEPT,
            part_taken=self._record,
            finished=self._complete,
            lines=self._lines,
        )

    @property
    def joinable(self) -> bool:
        """Another client may still get the whole answer."""
        return not self.over and self.broadcast.kept_whole and self.broadcast.status in (0, 200)

    def join(self, rider: Rider) -> None:
        """Take a client on board, and give it what there is."""
        if self.leader is None:
            self.leader = rider
        else:
            rider.cache = "shared"
        rider.source = self
        self.riders.append(rider)
        self.broadcast.serve(rider)

    # -- Life ------------------------------------------------------------------------------------------------

    def generate(self, leading: Leading | None = None) -> None:
        """Nothing was found: ask a replica; ``leading`` tells other processes of the answer."""
        if self.over or self.exchange is not None:
            if leading is not None:
                leading.done(False)
            return
        self._leading = leading
        if leading is not None and self.stream:
            for event in self.broadcast.events:
                leading.publish(event)
        self.began_at = self._pilot.now()
        self.exchange = self._pilot.depart(self, self.ask)

    def resolve(self, serve: Callable[[Rider], None]) -> None:
        """An answer was found: ``serve`` gives it to each rider and ends it."""
        if self.over:
            return
        self.over = True
        for rider in tuple(self.riders):
            serve(rider)
        self._land(None)

    def refuse(self, error: RequestError) -> None:
        """The gateway ends, and there is no exchange that could say so."""
        if not self.over and self.exchange is None:
            self.broadcast.refuse(error, bodiless=False)
            self._abandon()

    def exchange_over(self, exchange: Exchange) -> None:
        """The replica's part has ended, well or not."""
        for rider in self.riders:
            self._inform(rider)
        if exchange.outcome in ("cancelled", "refused", "cut"):
            self._land(None)

    def _complete(self) -> None:
        """Everything has been said: riders get the rest and their end."""
        exchange, head = self.exchange, self.broadcast.head
        assert head is not None
        whole = head.status == 200 and (exchange is None or exchange.outcome == "answered")
        answer = self._answer() if whole else None
        self.over = True
        usage, tokens = exchange.counts if exchange is not None else _counts(answer)
        for rider in tuple(self.riders):
            rider.usage, rider.tokens = usage, tokens
            if not self.broadcast.suits(rider):
                self._finish_otherwise(rider, answer)
                continue
            self.broadcast.serve(rider, even_paused=True)
            if not rider.first_byte_at:
                self.broadcast.begin_empty(rider)
            rider.complete(framed=self.broadcast.framed)
        self._land(answer if exchange is not None else None, whole=whole)

    def _finish_otherwise(self, rider: Rider, answer: StoredAnswer | None) -> None:
        """A client that wants JSON shared a stream."""
        if answer is None:
            rider.source = None
            self._pilot.go_alone(rider)
        else:
            lines = self._lines(rider)
            rider.replay(answer, rider.revision, lines)

    def _answer(self) -> StoredAnswer | None:
        if not self.broadcast.kept_whole:
            return None
        if self.broadcast.head is not None and self.broadcast.head.event_stream:
            return self._recorder.answer()
        limit = self.plan.policy.max_answer_bytes
        return record_body(self.plan.request.kind, bytes(self._body), max_bytes=limit)

    def _record(self, part: bytes) -> None:
        head = self.broadcast.head
        if head is not None and head.event_stream:
            self._recorder.feed(part)
            if self._leading is not None:
                self._leading.publish(part)
        else:
            self._body += part

    def _land(self, answer: StoredAnswer | None, *, whole: bool = False) -> None:
        self.over = True
        leading, self._leading = self._leading, None
        storing = self._pilot.land(self, answer)
        if leading is None:
            return
        good = whole and self.broadcast.kept_whole and (self.stream or answer is not None)
        if storing is None:
            leading.done(good)
        else:  # a stream is with its followers; a body they find in the store, once it is there
            storing.add_done_callback(lambda _: leading.done(good))

    def _abandon(self) -> None:
        if self.task is not None:
            self.task.cancel()
        self._land(None)

    # -- Another process generates ---------------------------------------------------------------------------

    @property
    def untouched(self) -> bool:
        """No client has anything of an answer."""
        return self.broadcast.head is None

    def follow(self, revision: str) -> None:
        """A stream of another process begins, for the first time or anew."""
        self._revision = revision
        if self.broadcast.head is None:
            line = b"x-inferdock-revision: %b\r\n" % revision.encode()
            self.broadcast.begin(STREAM_HEAD, b"", framed_by_us=True, extra=line)

    def follow_event(self, event: bytes) -> None:
        """Its next event."""
        self.broadcast.write(event)

    def followed(self) -> None:
        """It is complete."""
        self.broadcast.finish()

    def lost(self) -> bool:
        """The other process is lost; whether the stream can go on with another generation."""
        if self.untouched:
            return True
        going = self.broadcast.go_on(
            self.plan.request.kind, text=self._recorder.text, reasoning=self._recorder.reasoning
        )
        if not going:
            message = "The answer was cut: the gateway that generated it is gone."
            self.broadcast.cut(RequestError(502, message, kind="server_error", code="stream_cut"), readable=True)
            self._land(None)
        return going

    # -- Riders ----------------------------------------------------------------------------------------------

    def _lines(self, rider: Rider) -> bytes:
        self._inform(rider)
        return MISS if rider is self.leader and self.exchange is not None else SHARED

    def _inform(self, rider: Rider) -> None:
        """What the books say about where the answer came from."""
        exchange = self.exchange
        if exchange is None:
            rider.revision = self._revision
            rider.cache = "shared"
            return
        rider.revision = exchange.revision
        rider.endpoint_name = exchange.endpoint_name
        if rider is self.leader:
            rider.cache = "miss"
            rider.attempts, rider.resumes, rider.sent_at = exchange.attempts, exchange.resumes, exchange.sent_at

    def left(self, rider: Rider) -> None:
        """A client has gone; with the last one the replica's work ends."""
        if rider in self.riders:
            self.riders.remove(rider)
        if self.riders or self.over:
            return
        if self.exchange is None:
            self._abandon()
        elif not self._recorder.complete:  # clients may go at the last event, when only the end of the body is missing
            self.broadcast.leave()

    def caught_up(self, rider: Rider) -> None:
        """A client that read slowly reads again."""
        if not self.over:
            self.broadcast.caught_up(rider)


def _counts(answer: StoredAnswer | None) -> tuple[Usage | None, int]:
    if answer is None:
        return None, 0
    return Usage(answer.prompt_tokens, answer.output_tokens), answer.output_tokens
