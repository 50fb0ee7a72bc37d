"""One replica as the balancer sees it, and the lease on it that a request holds."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from inferdock.balance.board import Board
from inferdock.balance.ejection import CLEAN, Record
from inferdock.domain.endpoint import EndpointSpec


class State(StrEnum):
    """Whether an endpoint may take requests."""

    UNREADY = "unready"
    READY = "ready"
    DRAINING = "draining"


class Endpoint:
    """Live state of one replica.

    ``state``, ``running``, ``waiting``, ``kv_cache_usage_ratio``, ``max_model_len`` and ``failures`` belong to the
    active health checks; everything else is written by the balancer alone.

    Attributes:
        spec: what it was told to be.
        authority: host and port as a Host header spells them.
        slot: its column on the board.
        in_flight: requests that this process holds on it.
        running: requests in the engine's batch at the last health check.
        kv_cache_usage_ratio: share of KV cache in use, 0-1; None before the first check.
        max_model_len: longest prompt plus answer in tokens, once known.
        failures: health checks failed in a row.
        served: requests that this process has leased so far.
        ready_at: when it last became ready, or was or will be re-admitted, in seconds of the set's clock.
        record: what passive ejection remembers of it.
        others: requests of other workers on it, when last looked.
        load: ``in_flight`` + ``others`` + ``waiting``, kept as they change.
        scale, loads, index: where its group keeps ``load * scale`` for comparing (``balance.group``); ``loads`` is
            None while it cannot be chosen.
    """

    __slots__ = (
        "_board",
        "_changed",
        "_state",
        "_waiting",
        "authority",
        "failures",
        "in_flight",
        "index",
        "kv_cache_usage_ratio",
        "load",
        "loads",
        "max_model_len",
        "others",
        "ready_at",
        "record",
        "running",
        "scale",
        "served",
        "slot",
        "spec",
    )

    def __init__(
        self, spec: EndpointSpec, *, slot: int, board: Board, changed: Callable[[Endpoint], None] = lambda _: None
    ) -> None:
        """``changed`` is called after each change of ``state``."""
        self.spec = spec
        self.authority = spec.url.removeprefix("http://").encode()
        self.slot = slot
        self._board = board
        self._changed = changed
        self._state = State.UNREADY
        self._waiting = 0
        self.in_flight = 0
        self.running = 0
        self.kv_cache_usage_ratio: float | None = None
        self.max_model_len: int | None = None
        self.failures = 0
        self.served = 0
        self.ready_at = 0.0
        self.record: Record = CLEAN
        self.others = 0
        self.load = 0
        self.scale: float = 1
        self.loads: list[float] | None = None
        self.index = 0

    @property
    def state(self) -> State:
        """See :class:`State`."""
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        if state is not self._state:
            self._state = state
            self._changed(self)

    @property
    def waiting(self) -> int:
        """Requests in the engine's queue at the last health check."""
        return self._waiting

    @waiting.setter
    def waiting(self, waiting: int) -> None:
        waiting = max(0, waiting)  # an engine that reports nonsense must not draw all traffic to itself
        change = waiting - self._waiting
        if change:
            self._waiting = waiting
            self._shift(change)

    @property
    def held(self) -> int:
        """Requests that all workers of the gateway hold on it; O(workers)."""
        return self._board.total(self.slot)

    @property
    def outstanding(self) -> int:
        """Requests that stand before a new one: the gateway's, and those in the engine's queue; O(workers)."""
        return self._board.total(self.slot) + self._waiting

    def ejected(self, now: float) -> bool:
        """Whether passive ejection keeps it out at ``now``."""
        return now < self.record.until

    def count(self, amount: int) -> None:
        """Add to the requests that this process holds on it."""
        self.in_flight += amount
        self._board.add(self.slot, amount)
        self.load = load = self.load + amount  # as in _shift, spelled out: this runs twice per request
        loads = self.loads
        if loads is not None:
            loads[self.index] = load * self.scale

    def look(self) -> float:
        """Read the other workers' counts and add up ``load`` anew; returns it scaled."""
        board = self._board
        if board.rows > 1:
            self.others = board.total(self.slot) - board.own(self.slot)
        self.load = load = self.in_flight + self.others + self._waiting
        return load * self.scale

    def _shift(self, change: int) -> None:
        self.load += change
        if self.loads is not None:
            self.loads[self.index] = self.load * self.scale


class Lease:
    """The right to send one request to one endpoint; :meth:`release` gives it back, once."""

    __slots__ = ("_held", "endpoint")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._held = True
        endpoint.served += 1
        endpoint.count(1)

    def release(self) -> None:
        """Give the lease back; further calls do nothing."""
        if self._held:
            self._held = False
            self.endpoint.count(-1)
