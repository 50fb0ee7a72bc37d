"""One copy of a request on its way to a shadow revision: one attempt, never repeated, its answer only read."""

from __future__ import annotations

from collections.abc import Callable

from inferdock.balance.endpoints import Endpoint, Lease
from inferdock.gateway.attempt import Attempt, shadow_head
from inferdock.gateway.shadow.order import Order
from inferdock.gateway.shadow.said import Said
from inferdock.gateway.shadow.witness import MAX_ANSWER_BYTES, Witness
from inferdock.gateway.upstream import UpstreamPool
from inferdock.wire.http1 import ResponseHead
from inferdock.wire.openai import Usage, find_usage


class Copy:
    """``Owner`` of an attempt.

    Attributes:
        witness: has the client's answer.
        status: of the copy's answer, 0 without one.
        said: what it says.
        began_at, first_byte_at, ended_at: clock times, in seconds; 0 before.
    """

    paused = False

    __slots__ = (
        "_attempt",
        "_bytes",
        "_head",
        "_now",
        "_over",
        "_silence_s",
        "_usage",
        "began_at",
        "ended_at",
        "first_byte_at",
        "said",
        "status",
        "witness",
    )

    def __init__(
        self,
        witness: Witness,
        lease: Lease,
        pool: UpstreamPool,
        *,
        now: Callable[[], float],
        over: Callable[[Copy, str], None],
    ) -> None:
        """Nothing is sent yet; ``over`` is called once, with an outcome of the metrics."""
        self._now = now
        self._over = over
        self._head: ResponseHead | None = None
        self._bytes = 0
        self._silence_s = 0.0
        self._usage: Usage | None = None
        self.witness = witness
        self.status = 0
        self.said = Said(stream=False)
        self.began_at = now()
        self.first_byte_at = self.ended_at = 0.0
        self._attempt = Attempt(self, pool, lease, self.began_at)

    @property
    def endpoint(self) -> Endpoint:
        """Where it was sent."""
        return self._attempt.endpoint

    @property
    def order(self) -> Order:
        """What it was made of."""
        return self.witness.order

    @property
    def tokens(self) -> int:
        """Output tokens, as exactly as is known."""
        return self._usage.completion_tokens if self._usage is not None else self.said.events

    def send(self, silence_s: float, *, fresh: bool = False) -> None:
        """Begin; an answer that is silent for so long has failed. ``fresh``: over a connection of its own."""
        self._silence_s = silence_s
        order = self.order
        head = shadow_head(order.head, self.endpoint, order.request_id, order.body)
        self._attempt.begin(head, order.body, silence_s=silence_s, bodiless=False, in_pieces=False, fresh=fresh)

    def give_up(self, outcome: str) -> None:
        """Stop the replica's work."""
        self._attempt.abort()
        self._end(outcome)

    def _end(self, outcome: str) -> None:
        if not self.ended_at:
            self.ended_at = self._now()
            self._attempt.end()
            self._over(self, outcome)

    # -- Owner -----------------------------------------------------------------------------------------------

    def attempt_refused(self, reason: str) -> None:
        """The replica took no connection."""
        self._end("failed")

    def response_head(self, head: ResponseHead) -> None:
        """The head is complete."""
        self._head = head
        self.status = head.status
        self.said = Said(stream=head.event_stream)

    def response_body(self, data: bytes, payloads: list[tuple[int, int]]) -> None:
        """Read what it says."""
        head = self._head
        assert head is not None
        self.first_byte_at = self.first_byte_at or self._now()
        body = b"".join([data[start:end] for start, end in payloads]) if head.chunked else data
        self._bytes += len(body)
        if self._bytes > MAX_ANSWER_BYTES:
            self.give_up("too_large")
            return
        if b'"usage"' in body:
            self._usage = find_usage(body) or self._usage
        if self.status < 400:
            self.said.feed(body)

    def response_done(self) -> None:
        """The answer is complete."""
        if self.status < 400:
            self.said.end()
        broken = self.status >= 500 or (self.status < 400 and self.order.stream and bool(self.said.problem))
        self._end("failed" if broken else "answered")

    def response_whole(self, head: ResponseHead, body: bytes) -> None:
        """The whole answer came at once."""
        self.response_head(head)
        self.response_body(body, [])
        if not self.ended_at:
            self.response_done()

    def response_failed(self, reason: str, *, stale: bool) -> None:
        """The answer will never be complete; on a connection that had been closed before, it was never asked for."""
        if stale:
            self.began_at = self._now()
            self.send(self._silence_s, fresh=True)
        else:
            self._end("failed")
