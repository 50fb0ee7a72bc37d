"""One look-up and one generation for all clients who ask the same at the same time (single flight).

::

    looking -> generating -> over
        '-> hit -> over

The flight belongs to nobody: each rider may leave, and the replica's work is given up with the last one. A rider that
the shared answer cannot serve (it wants JSON of a stream that could not be put together) gets an exchange of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from inferdock.cache.entry import StoredAnswer
from inferdock.cache.recorder import StreamRecorder, record_body
from inferdock.domain.errors import RequestError
from inferdock.gateway.caching.ask import Ask
from inferdock.gateway.caching.broadcast import Broadcast
from inferdock.gateway.caching.plan import Plan
from inferdock.gateway.caching.rider import MISS, Rider
from inferdock.gateway.exchange import Exchange

SHARED = b"x-inferdock-cache: hit\r\nx-inferdock-cache-tier: flight\r\nage: 0\r\n"


class Pilot(Protocol):
    """What a flight uses of the door (``door.Door``)."""

    def now(self) -> float:
        """Seconds on a monotonic clock."""

    def depart(self, flight: Flight, ask: Ask) -> Exchange:
        """Begin the generation."""

    def land(self, flight: Flight, answer: StoredAnswer | None) -> None:
        """The flight is over; ``answer`` may be stored."""

    def go_alone(self, rider: Rider) -> None:
        """Give the rider an exchange of its own."""


class Flight:
    """See the module's first lines.

    Attributes:
        ask: the first rider's request.
        plan: what the first rider asked; equal in all that matters for those who join.
        stream: the answer comes as events.
        riders: who waits for the answer.
        exchange: the generation, None while it is being looked up.
        began_at: when the generation began, in seconds of the pilot's clock.
        over: nobody can join any more.
    """

    def __init__(self, pilot: Pilot, plan: Plan, ask: Ask) -> None:
        self._pilot = pilot
        self.ask = ask
        self._recorder = StreamRecorder(plan.request.kind, max_bytes=plan.policy.max_answer_bytes)
        self._body = bytearray()
        self.plan = plan
        self.stream = bool(ask.fields.stream)
        self.riders: list[Rider] = []
        self.exchange: Exchange | None = None
        self.began_at = 0.0
        self.over = False
        self.leader: Rider | None = None
        self.vector: bytes | None = None
        self.finder: Callable[[], None] | None = None
        self.broadcast = Broadcast(
            self.riders,
            max_bytes=2 * plan.policy.max_answer_bytes + 64 * 1024,
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

    def generate(self) -> None:
        """Nothing was found: ask a replica."""
        if self.over or self.exchange is not None:
            return
        self.began_at = self._pilot.now()
        self.exchange = self._pilot.depart(self, self.ask)

    def resolve(self, serve: Callable[[Rider], None]) -> None:
        """An answer was found: ``serve`` gives it to each rider and ends it."""
        if self.over:
            return
        self.over = True
        for rider in tuple(self.riders):
            serve(rider)
        self._pilot.land(self, None)

    def refuse(self, error: RequestError) -> None:
        """The gateway ends."""
        if not self.over and self.exchange is None:
            self.broadcast.refuse(error, bodiless=False)
            self._land(None)

    def exchange_over(self, exchange: Exchange) -> None:
        """The replica's part has ended, well or not."""
        for rider in self.riders:
            self._inform(rider)
        if exchange.outcome in ("cancelled", "refused", "cut"):
            self._land(None)

    def _complete(self) -> None:
        """The replica has said everything: riders get the rest and their end."""
        exchange, head = self.exchange, self.broadcast.head
        assert exchange is not None
        assert head is not None
        answer = self._answer() if exchange.outcome == "answered" and head.status == 200 else None
        self.over = True
        usage, tokens = exchange.counts
        for rider in tuple(self.riders):
            rider.usage, rider.tokens = usage, tokens
            if not self.broadcast.suits(rider):
                self._finish_otherwise(rider, answer)
                continue
            self.broadcast.serve(rider, even_paused=True)
            if not rider.first_byte_at:
                self.broadcast.begin_empty(rider)
            rider.complete(framed=self.broadcast.framed)
        self._land(answer)

    def _finish_otherwise(self, rider: Rider, answer: StoredAnswer | None) -> None:
        """A client that wants JSON shared a stream."""
        if answer is None:
            rider.source = None
            self._pilot.go_alone(rider)
        else:
            rider.replay(answer, rider.revision, self._lines(rider))

    def _answer(self) -> StoredAnswer | None:
        if not self.broadcast.kept_whole:
            return None
        if self.broadcast.head is not None and self.broadcast.head.event_stream:
            return self._recorder.answer()
        return record_body(self.plan.request.kind, bytes(self._body))

    def _record(self, part: bytes) -> None:
        head = self.broadcast.head
        if head is not None and head.event_stream:
            self._recorder.feed(part)
        else:
            self._body += part

    def _land(self, answer: StoredAnswer | None) -> None:
        self.over = True
        self._pilot.land(self, answer)

    # -- Riders ----------------------------------------------------------------------------------------------

    def _lines(self, rider: Rider) -> bytes:
        self._inform(rider)
        return MISS if rider is self.leader else SHARED

    def _inform(self, rider: Rider) -> None:
        """What the books say about where the answer came from."""
        exchange = self.exchange
        if exchange is None:
            return
        rider.revision = exchange.revision
        rider.endpoint_name = exchange.endpoint_name
        if rider is self.leader:
            rider.attempts, rider.resumes, rider.sent_at = exchange.attempts, exchange.resumes, exchange.sent_at

    def left(self, rider: Rider) -> None:
        """A client has gone; with the last one the replica's work ends."""
        if rider in self.riders:
            self.riders.remove(rider)
        if self.riders or self.over:
            return
        if self.exchange is None:
            self._land(None)
        else:
            self.broadcast.leave()

    def caught_up(self, rider: Rider) -> None:
        """A client that read slowly reads again."""
        if not self.over:
            self.broadcast.caught_up(rider)
