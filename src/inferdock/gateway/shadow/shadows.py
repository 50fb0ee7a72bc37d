"""Sends copies of a share of the requests to another revision, compares the answers, and throws them away.

A copy is sent when the client has its whole answer, never before; it takes no turn in a queue and no client's place: it
goes at once or not at all. It is not resumed, not retried, not cached, not charged to a key, and in no figure of
clients' requests. What is too large or too much is not copied, and counted.

What is held at most by one process: :data:`MAX_HELD_BYTES` of bodies and answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from inferdock.balance.board import Board
from inferdock.balance.endpoints import Endpoint, EndpointSet
from inferdock.balance.wanted import Wanted
from inferdock.gateway.answer import Outlet
from inferdock.gateway.ask import Ask
from inferdock.gateway.exchange import Exchange
from inferdock.gateway.load import SHADOWS
from inferdock.gateway.metrics import GatewayMetrics
from inferdock.gateway.shadow.copy import Copy
from inferdock.gateway.shadow.order import may_be_copied, order_of
from inferdock.gateway.shadow.said import Said, difference
from inferdock.gateway.shadow.witness import Witness
from inferdock.gateway.upstream import UpstreamPool
from inferdock.gateway.waiting_room import WaitingRoom

if TYPE_CHECKING:
    from inferdock.config.settings import GatewaySettings

MAX_BODY_BYTES = 256 * 1024
"""Larger requests are not copied."""
MAX_HELD_BYTES = 64 * 1024 * 1024
ROOM_SHARE = 0.5
"""Of a replica's places that copies may help to fill; the rest is for clients alone."""
PATIENCE_S = 600.0
"""Longest time that a copy may take."""
_PIECE = 16 * 1024
"""Bytes of an answer that are read at one go: well below a millisecond, then clients have their turn."""


class Surroundings(Protocol):
    """What shadows use of the gateway (``pipeline.Pipeline``)."""

    endpoints: EndpointSet
    pool: UpstreamPool
    metrics: GatewayMetrics
    room: WaitingRoom
    draining: bool

    @property
    def settings(self) -> GatewaySettings: ...

    def now(self) -> float:
        """Seconds on a monotonic clock."""


Over = Callable[[Exchange], None]


class Shadows:
    """All copies of one process."""

    def __init__(self, around: Surroundings, load: Board) -> None:
        """``load``: where the copies of all workers are counted."""
        self._around = around
        self._load = load
        self._held = 0
        self._copies: set[Copy] = set()
        self._comparing: set[asyncio.Task[None]] = set()

    # -- From the client's request to its answer -------------------------------------------------------------

    def follow(self, ask: Ask, answer: Outlet, over: Over) -> tuple[Outlet, Over]:
        """Outlet and ending of a request's exchange: others than those given if it is one that is to be copied."""
        sampling = self._around.endpoints.shadows.get(ask.model)
        if sampling is None or not may_be_copied(ask) or not sampling.take():
            return answer, over
        revision = sampling.shadow.revision
        if len(ask.request.body) > MAX_BODY_BYTES:
            self._count(ask.model, revision, "too_large")
            return answer, over
        witness = Witness(answer, order_of(ask, revision), self)
        if self._around.draining or not self.may_hold(witness.held):
            self._count(ask.model, revision, "busy")
            return answer, over
        return witness, witness.after(over)

    def may_hold(self, size: int) -> bool:
        """Whether so many bytes more may be remembered; they are counted if so."""
        if self._held + size > MAX_HELD_BYTES:
            return False
        self._held += size
        return True

    def gone(self, witness: Witness, why: str) -> None:
        """Nothing will come of this one."""
        self._held -= witness.held
        self._count(witness.order.model, witness.order.revision, why)

    def seen(self, witness: Witness) -> None:
        """The client has its whole answer: now is the copy's time, or never."""
        chosen = self._lease(witness)
        if isinstance(chosen, str):
            self.gone(witness, chosen)
            return
        self._copies.add(chosen)
        self._load.set(SHADOWS, len(self._copies))
        chosen.send(self._around.settings.response_timeout_s)

    def _lease(self, witness: Witness) -> Copy | str:
        """The copy, or why there is none."""
        around, order = self._around, witness.order
        sampling = around.endpoints.shadows.get(order.model)
        if around.draining or sampling is None or sampling.shadow.revision != order.revision:
            return "given_up"
        if witness.revision == order.revision:
            return "skipped"
        if not around.endpoints.has_ready(order.model, order.revision):
            return "absent"
        if self._load.total(SHADOWS) >= around.settings.max_shadows or around.room.waiting(order.model):
            return "busy"
        limit = max(1, int(around.settings.max_in_flight_per_replica * ROOM_SHARE))
        lease = around.endpoints.lease(order.model, Wanted(revision=order.revision, limit=limit))
        if lease is None:
            return "busy"
        if lease.endpoint.waiting:  # requests wait in the engine: another one would make clients' wait longer
            lease.release()
            return "busy"
        return Copy(witness, lease, around.pool, now=around.now, over=self._over)

    # -- The copy's answer -----------------------------------------------------------------------------------

    def _over(self, copy: Copy, outcome: str) -> None:
        order = copy.order
        self._copies.discard(copy)
        self._load.set(SHADOWS, len(self._copies))
        self._around.room.released(order.model)
        if outcome != "answered":
            self.gone(copy.witness, outcome)
            return
        self._count(order.model, order.revision, outcome)
        self._time(copy)
        task = self._around.pool.loop.create_task(self._compare(copy))
        self._comparing.add(task)
        task.add_done_callback(self._comparing.discard)

    def _time(self, copy: Copy) -> None:
        if not copy.order.stream or copy.status != 200 or not copy.first_byte_at:
            return
        order, metrics = copy.order, self._around.metrics.shadow
        metrics.ttft.cell(order.model, order.revision).observe(copy.first_byte_at - copy.began_at)
        if copy.tokens > 1:
            tpot = (copy.ended_at - copy.first_byte_at) / (copy.tokens - 1)
            metrics.tpot.cell(order.model, order.revision).observe(tpot)

    async def _compare(self, copy: Copy) -> None:
        """Read the client's answer, a piece at a time, so that no client waits for it."""
        witness, order = copy.witness, copy.order
        try:
            client = _Seen(witness.status, Said(stream=witness.stream))
            if order.comparable and client.status < 400:
                for piece in witness.pieces(_PIECE):
                    client.said.feed(piece)
                    await asyncio.sleep(0)
                client.said.end()
            kind = difference(client, copy, comparable=order.comparable)
            self._around.metrics.shadow.differences.cell(order.model, order.revision, kind).value += 1
        finally:
            self._held -= witness.held

    def _count(self, model: str, revision: str, outcome: str) -> None:
        self._around.metrics.shadow.requests.cell(model, revision, outcome).value += 1

    # -- Chores ----------------------------------------------------------------------------------------------

    def check_time(self, now: float) -> None:
        """Called about once a second: ends copies that take too long, and those that nobody asks for any more."""
        if not self._copies:
            return
        wanted = {(model, sampling.shadow.revision) for model, sampling in self._around.endpoints.shadows.items()}
        for copy in list(self._copies):
            if now - copy.began_at > PATIENCE_S:
                copy.give_up("failed")
            elif (copy.order.model, copy.order.revision) not in wanted:
                copy.give_up("given_up")

    def leave(self, endpoints: Iterable[Endpoint]) -> None:
        """These are being taken out: nobody waits for a copy."""
        gone = set(endpoints)
        for copy in [copy for copy in self._copies if copy.endpoint in gone]:
            copy.give_up("given_up")

    def stop(self) -> None:
        """The gateway ends: no copy keeps it."""
        for copy in list(self._copies):
            copy.give_up("given_up")
        for task in self._comparing:
            task.cancel()


class _Seen:
    """The client's side of a comparison."""

    __slots__ = ("said", "status")

    def __init__(self, status: int, said: Said) -> None:
        self.status = status
        self.said = said
