"""One client request from its place in the queue to its last byte: attempts on replicas, bytes back.

An exchange is a :class:`~inferdock.gateway.waiting_room.Waiter`, the
:class:`~inferdock.gateway.upstream.Receiver` of a replica's response and the
:class:`~inferdock.gateway.http_server.Listener` of its client. Its states, in order::

    seeking -> (connecting) -> waiting -> relaying -> over
       ^-----------------------'             |
       |    failed before the first byte     |
       '-------------------------------------'
            lost after it: goes on elsewhere (followed streams only)

The head is held back until the first body bytes arrive, so that a replica that dies between its head and its first
token can still be replaced without the client noticing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol

from inferdock.balance.endpoints import Endpoint, EndpointSet, Lease
from inferdock.balance.wanted import Wanted
from inferdock.domain.errors import RequestError
from inferdock.gateway.answer import Outlet
from inferdock.gateway.ask import Ask
from inferdock.gateway.attempt import Attempt, upstream_head
from inferdock.gateway.metrics import GatewayMetrics, RevisionCells
from inferdock.gateway.relay import BodyRelay, EventRelay, FollowedStream, Relay
from inferdock.gateway.rest_request import RestRequest
from inferdock.gateway.upstream import NOT_READ, SILENT, UpstreamPool
from inferdock.gateway.waiting_room import FRONT, WaitingRoom
from inferdock.wire.continuation import Continuation, ResumeMode
from inferdock.wire.http1 import ResponseHead
from inferdock.wire.openai import RequestFields, Usage

if TYPE_CHECKING:
    from inferdock.config.settings import GatewaySettings

_RETRIED_STATUS = frozenset({502, 503})
_MAX_ERROR_BYTES = 64 * 1024


class Surroundings(Protocol):
    """What an exchange uses of the gateway (``pipeline.Pipeline``)."""

    endpoints: EndpointSet
    pool: UpstreamPool
    metrics: GatewayMetrics
    room: WaitingRoom

    @property
    def settings(self) -> GatewaySettings: ...

    def now(self) -> float:
        """Seconds on a monotonic clock."""

    def may_retry(self, model: str) -> bool:
        """Pay for one retry; False when the budget is used up."""

    def endpoint_failed(self, endpoint: Endpoint, *, refused: bool) -> None:
        """An attempt on the endpoint failed; ``refused``: it did not even take the connection."""

    def endpoint_answered(self, endpoint: Endpoint) -> None:
        """An attempt on the endpoint succeeded."""


class Exchange:
    """One request on its way. ``start`` is called once; everything else is called back."""

    cache = ""

    __slots__ = (
        "_around",
        "_attempt",
        "_avoid",
        "_body",
        "_cells",
        "_drop_usage",
        "_failures",
        "_head",
        "_last_bytes_at",
        "_over",
        "_relay",
        "_rest",
        "_resuming",
        "_target",
        "admission",
        "answer",
        "attempts",
        "deadline",
        "ended_at",
        "fields",
        "first_byte_at",
        "key",
        "model",
        "outcome",
        "paused",
        "priority",
        "request",
        "request_id",
        "resume_mode",
        "resumes",
        "revision",
        "route",
        "sent_at",
        "trace",
        "wanted",
    )

    def __init__(
        self,
        around: Surroundings,
        ask: Ask,
        answer: Outlet,
        fields: RequestFields,
        body: bytes,
        drop_usage: bool,
        resume_mode: ResumeMode,
        over: Callable[[Exchange], None],
    ) -> None:
        """Nothing is sent yet.

        Args:
            around: the gateway.
            ask: the request.
            answer: where the answer goes.
            fields, body: as the replica gets them.
            drop_usage: we asked for the usage event, the client did not.
            resume_mode: how a stream goes on elsewhere.
            over: called once, when the exchange has ended.
        """
        self._around = around
        self._over = over
        request = ask.request
        self._target = request.target
        self._body = body
        self._drop_usage = drop_usage
        self._avoid: list[Endpoint] = []
        self._attempt: Attempt | None = None
        self._head: ResponseHead | None = None
        self._relay: Relay | None = None
        self._cells: RevisionCells | None = None
        self._rest: RestRequest | None = None
        self._resuming = False
        self._failures = 0
        self._last_bytes_at = 0.0
        self.answer = answer
        self.paused = False
        self.request = request
        self.request_id = ask.request_id
        self.route = ask.route
        self.model = ask.model
        self.fields = fields
        self.resume_mode = resume_mode
        self.wanted = ask.wanted
        self.priority = ask.priority
        self.deadline = ask.deadline
        self.admission = ask.admission
        self.key = ask.key
        self.trace = ask.trace
        self.revision = ""
        self.attempts = 0
        self.resumes = 0
        self.outcome = ""
        self.sent_at = 0.0
        self.first_byte_at = 0.0
        self.ended_at = 0.0

    # -- What the log and the metrics read -------------------------------------------------------------------

    @property
    def endpoint_name(self) -> str | None:
        """Endpoint of the last attempt, None when there was none."""
        return self._attempt.endpoint.spec.name if self._attempt is not None else None

    @property
    def endpoint(self) -> Endpoint | None:
        """Endpoint of the last attempt."""
        return self._attempt.endpoint if self._attempt is not None else None

    @property
    def status(self) -> int:
        """HTTP status that the client got, 499 when it left before."""
        return self.answer.status

    @property
    def counts(self) -> tuple[Usage | None, int]:
        """Token counts as the engine reports them, and output tokens sent to the client."""
        relay = self._relay
        return (relay.usage, relay.tokens) if relay is not None else (None, 0)

    @property
    def queued_s(self) -> float:
        """Seconds from the request's last byte until a replica was free; 0 when none was."""
        return max(0.0, self.sent_at - self.request.received_at) if self.sent_at else 0.0

    @property
    def avoided(self) -> Collection[Endpoint]:
        """Endpoints that already failed this request."""
        return self._avoid

    # -- Seeking a replica -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin the first attempt."""
        self.answer.listen(self)
        self._last_bytes_at = self.request.received_at
        self._seek()

    def _seek(self) -> None:
        try:
            lease = self._around.room.enter(self)
        except RequestError as error:
            self.turned_away(error)
        else:
            if lease is not None:
                self.granted(lease)

    def granted(self, lease: Lease) -> None:
        """A replica is free: send it the request, or ask it for the rest of the answer."""
        now = self._around.now()
        self.attempts += 1
        self._last_bytes_at = now
        self.sent_at = self.sent_at or now
        attempt = self._attempt = Attempt(self, self._around.pool, lease, now)
        self.revision = attempt.endpoint.spec.revision
        if self._resuming:
            assert isinstance(self._relay, FollowedStream)
            self._rest = RestRequest(self, self._relay, self._around.pool, self.model)
            self._rest.make(attempt.endpoint)
        else:
            self._ask(attempt)

    def _ask(self, attempt: Attempt) -> None:
        request_id = self.request_id + b"-resume-%d" % self.attempts if self._resuming else self.request_id
        head = upstream_head(self.request, self._target, attempt.endpoint, request_id, self._body, self.trace)
        attempt.begin(
            head,
            self._body,
            silence_s=self._around.settings.response_timeout_s,
            bodiless=self.request.method == b"HEAD",
            in_pieces=self._resuming,
        )

    def turned_away(self, error: RequestError) -> None:
        """There is no replica for this request."""
        self._around.metrics.turned_away.cell(self.model, error.code or "error").value += 1
        if self._resuming:
            self._around.metrics.resumes.cell(self.model, "failed").value += 1
            self._cut(error.message)
            return
        if self.answer.begun:
            self._count_broken()
        self._end("refused", status=error.status)
        self.answer.refuse(error, bodiless=self.request.method == b"HEAD")

    def beat(self, now: float) -> None:
        """Still waiting: keep the client's connection alive once in a while."""
        if not self.fields.stream or not self.answer.takes_beats or self.paused:
            return
        if now - self._last_bytes_at >= self._around.settings.heartbeat_s:
            self._last_bytes_at = now
            self.answer.beat()

    def attempt_refused(self, reason: str) -> None:
        """The replica took no connection."""
        self._attempt_failed(reason, refused=True)

    def _attempt_failed(self, reason: str, *, refused: bool = False) -> None:
        """Nothing of this attempt has reached the client: try another replica, or say what happened."""
        attempt = self._attempt
        assert attempt is not None
        self._release("failed")
        self._avoid.append(attempt.endpoint)
        self._around.endpoint_failed(attempt.endpoint, refused=refused)
        if self._resuming:
            self._seek_rest(reason)
        elif reason is SILENT:
            message = f"The replica gave no answer within {self._around.settings.response_timeout_s:g} s."
            self.turned_away(RequestError(504, message, kind="server_error", code="replica_timeout"))
        else:
            self._try_again(reason)

    def _try_again(self, reason: str) -> None:
        if self.attempts < self._around.settings.attempts and self._around.may_retry(self.model):
            self._seek()
        else:
            self.turned_away(
                RequestError(502, f"No replica could answer: {reason}.", kind="server_error", code="bad_gateway")
            )

    # -- Receiver: what the replica sends --------------------------------------------------------------------

    def response_head(self, head: ResponseHead) -> None:
        """Hold the head until the body begins; give up on a replica that says it cannot serve."""
        if self._attempt is not None:
            self._attempt.status = head.status
        if self._resuming:
            if head.status != 200 or not head.event_stream:
                self._give_up_attempt(f"the replica answered {head.status}")
                return
            assert isinstance(self._relay, FollowedStream)
            self._relay.chunked = head.chunked
        elif head.status in _RETRIED_STATUS and self._may_try_others():
            self._give_up_attempt(f"the replica answered {head.status}")
        else:
            self._head = head
            self._relay = self._relay_for(head)

    def _give_up_attempt(self, reason: str) -> None:
        assert self._attempt is not None
        self._attempt.abort()
        self._attempt_failed(reason)

    def _may_try_others(self) -> bool:
        if self.attempts >= self._around.settings.attempts:
            return False
        tried = {*self._avoid, self.endpoint}
        return any(e not in tried for e in self._around.endpoints.of_model(self.model))

    def _relay_for(self, response: ResponseHead) -> Relay:
        http10 = not self.answer.chunked
        if not response.event_stream:
            return BodyRelay(response, http10=http10)
        if self.resume_mode is ResumeMode.NONE or response.status != 200:
            return EventRelay(response, http10=http10, drop_usage=self._drop_usage)
        followed = FollowedStream(
            mode=self.resume_mode,
            fields=self.fields,
            path=self.request.path,
            body=self._body,
            http10=http10,
            drop_usage=self._drop_usage,
        )
        followed.chunked = response.chunked
        return followed

    def response_body(self, data: bytes, payloads: list[tuple[int, int]]) -> None:
        """Forward bytes."""
        relay, response = self._relay, self._head
        assert relay is not None
        assert response is not None
        out = relay.take(data, payloads)
        if out:
            if self._resuming:
                self._resumed()
            if response.event_stream:
                self._mark_tokens()
            if self.first_byte_at:
                self.answer.write(out)
            else:
                self._begin(response, out)
        if relay.broken:
            self._lose(relay.broken)
        elif self.resumes and isinstance(relay, FollowedStream) and relay.ended:
            self._complete_early()

    def _mark_tokens(self) -> None:
        now = self._around.now()
        if self._cells is not None:
            self._cells.itl.observe(now - self._last_bytes_at)
        self._last_bytes_at = now

    def _begin(self, response: ResponseHead, data: bytes) -> None:
        self.first_byte_at = self._around.now()
        self._cells = self._around.metrics.cells(self.model, self.revision)
        if self.answer.begun and not response.event_stream:
            self._error_as_event(response, data)
            return
        overhead_ms = (self.sent_at - self.request.received_at) * 1e3
        extra = b"x-inferdock-revision: %b\r\nx-inferdock-overhead-ms: %.3f\r\n" % (self.revision.encode(), overhead_ms)
        self.answer.begin(response, data, framed_by_us=isinstance(self._relay, FollowedStream), extra=extra)

    def _error_as_event(self, response: ResponseHead, data: bytes) -> None:
        """The replica refuses a request whose client has been sent heartbeats: the error becomes an event."""
        if self._attempt is not None:
            self._attempt.abort()
        self._release("answered")
        if response.status >= 500:
            self._count_broken()
        self._end("refused")
        shown = data[:_MAX_ERROR_BYTES].decode("utf-8", "replace")
        error = RequestError(response.status, f"The replica refused the request: {shown}", code="refused_by_replica")
        self.answer.cut(error, readable=True)

    def response_whole(self, head: ResponseHead, body: bytes) -> None:
        """The whole answer came at once: the usual case of an answer that is no stream."""
        attempt = self._attempt
        assert attempt is not None
        attempt.status = head.status
        self._relay = BodyRelay(head, http10=not self.answer.chunked, whole=body)
        self._begin(head, body)
        self._complete(head, b"")

    def response_done(self) -> None:
        """The answer is complete."""
        response, relay = self._head, self._relay
        assert response is not None
        assert relay is not None
        last = relay.end()
        if relay.broken:
            self._lose(relay.broken)
            return
        if not self.first_byte_at:
            self._begin(response, b"")
        self._complete(response, last)

    def _complete(self, response: ResponseHead, last: bytes) -> None:
        """The replica has said all it had to say; ``last`` is what the client still gets."""
        if self.outcome:  # its error became an event
            return
        attempt = self._attempt
        assert attempt is not None
        good = response.status < 500
        self._release("answered")
        if good:
            self._around.endpoint_answered(attempt.endpoint)
        self._end("answered" if good else "failed")
        self.answer.finish(last)

    def response_failed(self, reason: str, *, stale: bool) -> None:
        """The attempt is lost: retry while the client has seen nothing, else go on elsewhere or end honestly."""
        if self.first_byte_at and not self._resuming:
            self._lose(reason)
        elif stale:
            self._release("stale")
            self.attempts -= 1
            self._seek()
        else:
            self._attempt_failed(reason)

    # -- Going on at another replica -------------------------------------------------------------------------

    def migrate(self, reason: str) -> None:
        """Leave the replica, which is to go away, if the answer can go on elsewhere now."""
        if self._may_move() and self._around.endpoints.has_ready(self.model, self.revision):
            self._lose(reason, blame=False)

    def check_time(self, now: float) -> None:
        """Called about once a second: a followed stream that has fallen silent is moved."""
        limit_s = self._around.settings.stall_timeout_s
        if now - self._last_bytes_at > limit_s and not self.paused and self._may_move():
            self._lose(f"the replica was silent for {limit_s:g} s")

    def _may_move(self) -> bool:
        return (
            self.first_byte_at > 0
            and isinstance(self._relay, FollowedStream)
            and not self._relay.why_not()
            and self._attempt is not None
            and self._attempt.connection is not None
        )

    def _lose(self, reason: str, *, blame: bool = True) -> None:
        """Bytes have been sent, and the replica will send no more."""
        attempt, relay = self._attempt, self._relay
        assert attempt is not None
        attempt.abort()
        if reason is NOT_READ:
            self._release("cancelled")
            self._cut(reason)
            return
        self._release("moved" if not blame else "cut" if self.first_byte_at else "failed")
        if blame:
            self._around.endpoint_failed(attempt.endpoint, refused=False)
        self._avoid = [attempt.endpoint]
        if not self.first_byte_at:  # nothing but heartbeats, or the beginning of an event
            self._relay = self._head = None
            self._try_again(reason)
        elif not isinstance(relay, FollowedStream) or relay.why_not():
            why = relay.why_not() if isinstance(relay, FollowedStream) else ""
            self.rest_impossible(f"{reason} ({why})" if why and why != reason else reason)
        else:
            self._resuming = True
            self._seek_rest(reason)

    def _seek_rest(self, reason: str) -> None:
        self._failures += 1
        if self._failures > self._around.settings.resume_attempts:
            self._around.metrics.resumes.cell(self.model, "failed").value += 1
            self._cut(reason)
            return
        self.priority = FRONT
        self.deadline = math.inf
        self.wanted = Wanted(revision=self.revision)
        self._seek()

    def rest_ready(self, rest: Continuation, lead: bytes) -> None:
        """It is known what to ask the other replica for."""
        if rest.ended:
            self._complete_early()
            return
        assert self._attempt is not None
        self._target, self._body = rest.path, rest.body
        if lead:
            self.answer.write(lead)
        self._ask(self._attempt)

    def rest_failed(self, reason: str) -> None:
        """The other replica could not help."""
        self._attempt_failed(reason)

    def rest_impossible(self, reason: str) -> None:
        """The stream cannot go on; the replica that was to go on with it has done nothing wrong."""
        self._around.metrics.resumes.cell(self.model, "impossible").value += 1
        self._release("cancelled")
        self._cut(reason)

    def _resumed(self) -> None:
        """The first bytes of the rest are there."""
        self._resuming = False
        self._failures = 0
        self._avoid = []
        self.resumes += 1
        self._around.metrics.resumes.cell(self.model, "resumed").value += 1

    def _complete_early(self) -> None:
        """The client lacks nothing but the end of its answer."""
        relay = self._relay
        assert isinstance(relay, FollowedStream)
        if self._attempt is not None:
            self._attempt.abort()
        last = relay.finish() + relay.end()
        if self._resuming:
            self._resumed()
        self._release("answered")
        self._end("answered")
        self.answer.finish(last)

    # -- Listener: what the client does ----------------------------------------------------------------------

    def client_gone(self) -> None:
        """Stop the replica's work: nobody wants the answer any more."""
        if self.outcome:
            return
        self._around.room.leave(self)
        if self._rest is not None:
            self._rest.cancel()
        if self._attempt is not None:
            self._attempt.abort()
        self._release("cancelled")
        self._around.metrics.cancelled.cell(self.model).value += 1
        self._end("cancelled", status=499)

    def pause(self) -> None:
        """The client reads slowly: let the replica's bytes wait in the kernel."""
        self.paused = True
        if self._attempt is not None:
            self._attempt.pause()

    def resume(self) -> None:
        """The client reads again."""
        self.paused = False
        self._last_bytes_at = self._around.now()
        if self._attempt is not None:
            self._attempt.resume()

    # -- End -------------------------------------------------------------------------------------------------

    def _release(self, outcome: str) -> None:
        attempt = self._attempt
        if attempt is not None and attempt.end():
            revision = attempt.endpoint.spec.revision
            self._around.metrics.attempts.cell(self.model, revision, outcome).value += 1
            if self.trace is not None and self.trace.sampled:
                resumes = self._resuming or self.resumes > 0
                self.trace.attempt_ended(attempt.facts(outcome, ended_at=self._around.now(), resumes=resumes))
            self._around.room.released(self.model)

    def _cut(self, reason: str) -> None:
        """The client has a part of its answer and will not get the rest."""
        if reason is not NOT_READ:
            self._count_broken()
        self._end("cut")
        message = f"The answer was cut: {reason.rstrip('.')}."
        error = RequestError(502, message, kind="server_error", code="stream_cut")
        self.answer.cut(error, readable=not self.paused)

    def _count_broken(self) -> None:
        """The status that the client has says nothing of this."""
        if self.revision:
            self._around.metrics.broken.cell(self.model, self.revision).value += 1

    def _end(self, outcome: str, *, status: int = 0) -> None:
        self.outcome = outcome
        self.answer.status = self.answer.status or status
        self.ended_at = self._around.now()
        self._over(self)
