"""One worker: serves clients, and does what its parent tells it. ``app.worker`` is its composition root and main."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from inferdock.balance.board import Board
from inferdock.balance.endpoints import Endpoint, EndpointSet, State
from inferdock.domain.endpoint import EndpointSpec
from inferdock.domain.errors import RequestError
from inferdock.gateway.front import Front
from inferdock.gateway.metrics import GatewayMetrics, Reply
from inferdock.gateway.workers import frames
from inferdock.gateway.workers.boards import attached
from inferdock.gateway.workers.packed import unpack
from inferdock.telemetry.instruments import exemplars_of, snapshot_of
from inferdock.telemetry.logs import EventLog

REPORT_S = 0.25
"""Between two snapshots; what a worker has counted since its last one is lost if it is killed."""
TEXT_WAIT_S = 1.0
"""Longest wait for the merged metrics; then 503."""
HINT_S = 0.05
"""Failures of so long make one hint."""
MAX_UNREAD_BYTES = 1024 * 1024
"""No snapshots to a parent that has so much left to read."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker is made of.

    Attributes:
        apply: moves all parts to new settings.
    """

    settings: Any
    endpoints: EndpointSet
    front: Front
    metrics: GatewayMetrics
    log: EventLog
    apply: Callable[[Any], None]


Build = Callable[[Any, Mapping[str, Board], Callable[[], None]], Parts]
"""Makes the parts from settings, boards and what asks for health checks."""


class Worker:
    """The worker's side of the channel. One :meth:`run` per process."""

    def __init__(self, build: Build, loop: asyncio.AbstractEventLoop) -> None:
        self._build = build
        self._loop = loop
        self._parts: Parts | None = None
        self._listeners: list[list[int]] = []
        self._foreign: dict[int, list[asyncio.Server]] = {}
        self._accepting = asyncio.Lock()
        self._by_slot: dict[int, Endpoint] = {}
        self._version = 0
        self._waiting_for_text: dict[bool, list[Reply]] = {False: [], True: []}
        self._hint: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._channel = frames.Channel(frames.ToWorker, self._received, self._parent_gone)

    async def run(self, sock: socket.socket) -> None:
        """Serve until the parent says to end, or is gone and the open requests are finished."""
        for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to all; the parent decides
            signal.signal(number, signal.SIG_IGN)
        self._loop.add_signal_handler(signal.SIGTERM, lambda: self._channel.send(frames.Leaving()))
        await self._loop.create_unix_connection(lambda: self._channel, sock=sock)
        await self._over.wait()
        for task in list(self._tasks):
            task.cancel()
        if self._parts is not None:
            await self._parts.front.close()

    # -- Parent ----------------------------------------------------------------------------------------------

    def _received(self, frame: object) -> None:
        if isinstance(frame, frames.Setup):
            self._set_up(frame)
        elif self._parts is not None:
            try:
                self._obey(frame, self._parts)
            except Exception as exc:  # a defect that meets one frame must not end all workers at once
                name = type(frame).__name__
                self._parts.log.event("error", "frame not obeyed", frame=name, reason=repr(exc)[:500])

    def _obey(self, frame: object, parts: Parts) -> None:
        match frame:
            case frames.Health():
                self._take_health(frame, parts)
            case frames.Endpoints():
                self._take_endpoints(frame, parts)
            case frames.Traffic():
                parts.endpoints.set_traffic(frame.model, frame.weights)
                parts.endpoints.set_shadow(frame.model, frame.shadow)
            case frames.Report():
                self._report(parts, frame.round)
            case frames.Text():
                self._answer_text(frame)
            case frames.CacheAsk():
                self._go_on(self._answer_cache(frame, parts))
            case frames.Accept():
                self._go_on(self._accept_from(set(frame.rows), parts.front))
            case frames.Configure():
                self._configure(frame, parts)
            case frames.Drain():
                self._go_on(self._drain(parts))
            case frames.Retire():
                self._go_on(self._retire(parts, leave_queue=True))
            case frames.Exit():
                self._over.set()

    def _parent_gone(self) -> None:
        """No service without a parent: let the port go at once, finish what is open, end."""
        parts = self._parts
        if parts is None or self._over.is_set():
            self._over.set()
            return
        parts.log.event("error", "the parent of the workers is gone, draining")
        self._go_on(self._retire(parts, leave_queue=False))

    def _go_on(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- Set-up ----------------------------------------------------------------------------------------------

    def _set_up(self, frame: frames.Setup) -> None:
        boards = attached(frame.boards, frame.row)
        parts = self._parts = self._build(unpack(frame.settings), boards, self._check_soon)
        parts.metrics.request_text = self._request_text
        self._listeners = frame.listeners
        self._go_on(self._serve(parts, frame.row))
        self._go_on(self._reports(parts))
        self._go_on(parts.front.chores())

    async def _serve(self, parts: Parts, row: int) -> None:
        await parts.front.serve_on(self._listeners[row])
        self._channel.send(frames.Serving())

    async def _accept_from(self, rows: set[int], front: Front) -> None:
        async with self._accepting:  # one frame after the other
            for row in self._foreign.keys() - rows:
                front.stop_serving(self._foreign.pop(row))
            for row in rows - self._foreign.keys():
                self._foreign[row] = await front.serve_on(self._listeners[row])

    def _configure(self, frame: frames.Configure, parts: Parts) -> None:
        settings = unpack(frame.settings)
        parts.apply(settings)
        self._parts = Parts(settings, parts.endpoints, parts.front, parts.metrics, parts.log, parts.apply)

    # -- Endpoints and their health --------------------------------------------------------------------------

    def _take_endpoints(self, frame: frames.Endpoints, parts: Parts) -> None:
        specs = [EndpointSpec(r.name, r.host, r.port, r.model, r.revision, r.digest) for r in frame.rows]
        parts.front.endpoints_gone(parts.endpoints.replace(specs, slots={r.name: r.slot for r in frame.rows}))
        parts.endpoints.declare(frame.models)
        self._by_slot = {endpoint.slot: endpoint for endpoint in parts.endpoints}
        self._version = frame.version

    def _take_health(self, frame: frames.Health, parts: Parts) -> None:
        for row in frame.rows:
            endpoint = self._by_slot.get(row.slot)
            if endpoint is None:
                continue
            endpoint.running, endpoint.waiting = row.running, row.waiting
            endpoint.kv_cache_usage_ratio = row.kv_cache_usage_ratio
            endpoint.max_model_len = row.max_model_len
            if row.ready:
                endpoint.failures = 0
                endpoint.state = State.READY
                parts.endpoints.check_passed(endpoint, parts.front.pipeline.now())
            else:
                endpoint.state = State.UNREADY

    def _check_soon(self) -> None:
        """An attempt has failed: the parent is to look."""
        if self._hint is None:
            self._hint = self._loop.call_later(HINT_S, self._send_hint)

    def _send_hint(self) -> None:
        self._hint = None
        self._channel.send(frames.Failed())

    # -- Figures ---------------------------------------------------------------------------------------------

    async def _reports(self, parts: Parts) -> None:
        while True:
            if self._channel.backlog < MAX_UNREAD_BYTES:
                self._report(parts, 0)
            await asyncio.sleep(REPORT_S)

    def _report(self, parts: Parts, round_: int) -> None:
        growing, gauges = snapshot_of(parts.metrics.instruments)
        self._channel.send(
            frames.Snapshot(round_, self._version, growing, gauges, exemplars_of(parts.metrics.instruments))
        )

    def _request_text(self, openmetrics: bool, reply: Reply) -> None:
        """Somebody wants the metrics of all workers, which only the parent has."""
        waiting = self._waiting_for_text[openmetrics]
        if not waiting:
            self._channel.send(frames.Metrics(openmetrics))
        waiting.append(reply)
        self._loop.call_later(TEXT_WAIT_S, self._no_text, openmetrics, reply)

    def _answer_text(self, frame: frames.Text) -> None:
        waiting, self._waiting_for_text[frame.openmetrics] = self._waiting_for_text[frame.openmetrics], []
        for reply in waiting:
            reply(frame.text)

    def _no_text(self, openmetrics: bool, reply: Reply) -> None:
        waiting = self._waiting_for_text[openmetrics]
        if reply in waiting:
            waiting.remove(reply)
            reply(None)

    async def _answer_cache(self, frame: frames.CacheAsk, parts: Parts) -> None:
        try:
            body = await parts.front.ask_cache(frame.name, frame.body)
        except RequestError as exc:
            self._channel.send(frames.CacheAnswer(frame.number, exc.status, exc.message.encode()))
        else:
            self._channel.send(frames.CacheAnswer(frame.number, 200, body))

    # -- End -------------------------------------------------------------------------------------------------

    async def _drain(self, parts: Parts) -> None:
        """The parent has the deadline: it says Exit."""
        await parts.front.drain(None)
        self._channel.send(frames.Drained())

    async def _retire(self, parts: Parts, *, leave_queue: bool) -> None:
        """End alone; ``leave_queue``: others accept what waits in our sockets' queues."""
        if leave_queue:
            async with self._accepting:
                parts.front.stop_serving_all()
        else:
            await parts.front.stop_listening()
            for fd in chain.from_iterable(self._listeners):
                os.close(fd)
        await parts.front.drain(parts.settings.drain_timeout_s)
        self._over.set()
