"""Where requests wait for a replica: bounded, by priority, with a deadline, one queue per model.

A request waits when every ready replica is at its limit (overload) or when none is ready (the model wakes from zero,
or all replicas restart). Whoever would wait in vain is turned away at once, with the time after which asking again
makes sense. Streams that lost their replica wait in front of all others: their clients have been let in already.

Who calls it: :class:`~inferdock.gateway.exchange.Exchange`; nothing here awaits.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol

from inferdock.balance.endpoints import Endpoint, EndpointSet, Lease
from inferdock.balance.wanted import Wanted
from inferdock.domain.errors import RequestError, unavailable

if TYPE_CHECKING:
    from inferdock.config.settings import GatewaySettings

TICK_S = 0.1
SPAN_S = 5.0
"""The drain rate is that of the last one to two of these spans."""

MAX_RETRY_AFTER_S = 60
UNKNOWN_RETRY_AFTER_S = 5
"""While no lease has come back yet, so that no rate is known."""

_SKIPPED = 32  # waiters that cannot go yet and are passed over in one round: the work per release stays bounded
FRONT = -(2**62)
"""Priority of streams that are to be resumed."""
LAST = 2**61
"""Priority of the gateway's own requests, behind everybody."""


class Waiter(Protocol):
    """A request that wants a lease."""

    @property
    def model(self) -> str: ...
    @property
    def wanted(self) -> Wanted: ...
    @property
    def avoided(self) -> Collection[Endpoint]: ...
    @property
    def priority(self) -> int:
        """Lower goes first (as in vLLM)."""

    @property
    def deadline(self) -> float:
        """Clock time, in seconds, after which an answer is worth nothing; infinity when there is no such time."""

    def granted(self, lease: Lease) -> None:
        """It is your turn."""

    def turned_away(self, error: RequestError) -> None:
        """You have waited in vain."""

    def beat(self, now: float) -> None:
        """You are still waiting (called every :data:`TICK_S`)."""


class _Place:
    __slots__ = ("left", "since", "waiter")

    def __init__(self, waiter: Waiter, since: float) -> None:
        self.waiter = waiter
        self.since = since
        self.left = False


class _Queue:
    """One model's waiters and how fast its replicas become free.

    The rate is that of the last one to two spans of :data:`SPAN_S`: two old readings of a counter are kept.
    """

    __slots__ = ("_marks", "heap", "released", "waiting")

    def __init__(self, now: float) -> None:
        self.heap: list[tuple[int, int, _Place]] = []
        self.waiting = 0
        self.released = 0
        self._marks = ((now, 0), (now, 0))

    def rate_at(self, now: float) -> float:
        """Leases that come back per second."""
        before, last = self._marks
        if now - last[0] >= SPAN_S:
            before, last = self._marks = last, (now, self.released)
        return (self.released - before[1]) / max(now - before[0], 1e-3)


class WaitingRoom:
    """The queues of all models."""

    def __init__(
        self,
        *,
        endpoints: EndpointSet,
        settings: Callable[[], GatewaySettings],
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """``call_later(seconds, function)`` is the event loop's; only used while somebody waits."""
        self._endpoints = endpoints
        self._settings = settings
        self._clock = clock
        self._call_later = call_later
        self._ticking = False
        self._queues: dict[str, _Queue] = {}
        self._order = itertools.count()
        self._places: dict[int, _Place] = {}

    def waiting(self, model: str) -> int:
        """Requests that wait for a model."""
        queue = self._queues.get(model)
        return queue.waiting if queue is not None else 0

    def all_waiting(self) -> dict[str, int]:
        """Requests that wait, by model."""
        return {model: queue.waiting for model, queue in self._queues.items()}

    # -- In and out ------------------------------------------------------------------------------------------

    def enter(self, waiter: Waiter) -> Lease | None:
        """Take a lease at once, or a place in the queue (None; the waiter is called later).

        Raises:
            RequestError: 429, the queue is full; 503, no replica can be there in time.
        """
        queue = self._queues.get(waiter.model)
        if queue is None or not queue.waiting or waiter.priority == FRONT:
            lease = self._endpoints.lease(waiter.model, waiter.wanted, waiter.avoided)
            if lease is not None:
                return lease
        now = self._clock()
        if queue is None:
            queue = self._queues[waiter.model] = _Queue(now)
        self._refuse_hopeless(queue, waiter, now)
        place = self._places[id(waiter)] = _Place(waiter, now)
        queue.waiting += 1
        heapq.heappush(queue.heap, (waiter.priority, next(self._order), place))
        if not self._ticking:
            self._ticking = True
            self._call_later(TICK_S, self._tick)
        return None

    def leave(self, waiter: Waiter) -> None:
        """It waits no longer: its turn has come, its time is over, or its client has gone."""
        place = self._places.pop(id(waiter), None)
        if place is not None:
            self._drop(self._queues[waiter.model], place)

    def released(self, model: str) -> None:
        """A lease came back: let the next one in."""
        queue = self._queues.get(model)
        if queue is None:
            queue = self._queues[model] = _Queue(self._clock())
        queue.released += 1
        if not queue.released & 63:
            queue.rate_at(self._clock())  # so that the marks do not grow too old while nobody waits
        if queue.waiting:
            self._let_in(queue)

    def _tick(self) -> None:
        """Ten times a second while somebody waits: lets in (replicas may have become ready, or another worker may
        have released), turns away who waited too long, and says to the others that they are not forgotten."""
        now = self._clock()
        for model, queue in list(self._queues.items()):
            if queue.waiting:
                self._let_in(queue)
                self._turn_away_late(model, queue, now)
            elif not self._endpoints.of_model(model):
                del self._queues[model]
        self._ticking = any(queue.waiting for queue in self._queues.values())
        if self._ticking:
            self._call_later(TICK_S, self._tick)

    def turn_all_away(self, error: RequestError) -> None:
        """The drain's deadline has passed."""
        for place in list(self._places.values()):
            self.leave(place.waiter)
            place.waiter.turned_away(error)

    # -- Inside ----------------------------------------------------------------------------------------------

    def _drop(self, queue: _Queue, place: _Place) -> None:
        """Places are dropped lazily from the heap; it never holds more than twice the waiters."""
        place.left = True
        queue.waiting -= 1
        if len(queue.heap) > 2 * queue.waiting + 64:
            queue.heap = [entry for entry in queue.heap if not entry[2].left]
            heapq.heapify(queue.heap)

    def _let_in(self, queue: _Queue) -> None:
        passed_over: list[tuple[int, int, _Place]] = []
        while queue.heap and len(passed_over) < _SKIPPED:
            entry = heapq.heappop(queue.heap)
            place = entry[2]
            if place.left:
                continue
            waiter = place.waiter
            lease = self._endpoints.lease(waiter.model, waiter.wanted, waiter.avoided)
            if lease is None:
                passed_over.append(entry)
                if waiter.wanted.revision is None:
                    break  # nothing is free for anybody
                continue
            self.leave(waiter)
            waiter.granted(lease)
        for entry in passed_over:
            heapq.heappush(queue.heap, entry)

    def _turn_away_late(self, model: str, queue: _Queue, now: float) -> None:
        settings = self._settings()
        for _, _, place in list(queue.heap):
            waiter = place.waiter
            if place.left:
                continue
            ready = self._endpoints.has_ready(model, waiter.wanted.revision)
            patience = settings.queue_timeout_s if ready else settings.hold_timeout_s
            if now - place.since <= patience and now <= waiter.deadline:
                waiter.beat(now)
                continue
            self.leave(waiter)
            waiter.turned_away(self._too_late(queue, model, ready=ready, now=now))

    def _refuse_hopeless(self, queue: _Queue, waiter: Waiter, now: float) -> None:
        settings = self._settings()
        if waiter.priority == FRONT:
            return
        ready = self._endpoints.has_ready(waiter.model)
        if not ready and settings.hold_timeout_s <= 0:
            raise no_replica(waiter.model)
        if queue.waiting >= settings.queue_length:
            raise RequestError(
                429,
                f"The queue of `{waiter.model}` is full ({queue.waiting} requests wait).",
                kind="rate_limit_error",
                code="queue_full",
                retry_after_s=self._retry_after_s(queue, now),
            )
        rate = queue.rate_at(now)
        if ready and rate > 1 and now + (queue.waiting + 1) / rate > waiter.deadline:
            raise self._too_late(queue, waiter.model, ready=True, now=now)

    def _too_late(self, queue: _Queue, model: str, *, ready: bool, now: float) -> RequestError:
        if not ready:
            return no_replica(model)
        message = f"No replica of `{model}` became free in time."
        return unavailable(message, code="queue_timeout", retry_after_s=self._retry_after_s(queue, now))

    @staticmethod
    def _retry_after_s(queue: _Queue, now: float) -> int:
        """Seconds until those who wait now will have been let in, at the present rate."""
        rate = queue.rate_at(now)
        if rate <= 0:
            return UNKNOWN_RETRY_AFTER_S
        return max(1, min(MAX_RETRY_AFTER_S, math.ceil((queue.waiting + 1) / rate)))


def no_replica(model: str) -> RequestError:
    """503: the model is known, but nothing can serve it now."""
    return unavailable(f"No replica of `{model}` is ready.", code="no_ready_replica", retry_after_s=2)
