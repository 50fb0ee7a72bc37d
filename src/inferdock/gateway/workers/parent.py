"""The parent of a gateway with workers: serves no traffic, and is the one place for all that there is only one of.

It has the admin port, the health checks, the endpoint set with its slot numbers, the merged figures, the deadline of
the drain. See :mod:`inferdock.gateway.workers.frames` for what it tells its workers.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from inferdock.balance.board import Board
from inferdock.balance.endpoints import Endpoint, EndpointSet, State
from inferdock.config.settings import Settings
from inferdock.domain.endpoint import EndpointSpec
from inferdock.domain.errors import RequestError
from inferdock.domain.shadow import Shadow
from inferdock.gateway.admin import AdminPort, endpoint_row
from inferdock.gateway.caching.merging import merged
from inferdock.gateway.figures import RecentFigures
from inferdock.gateway.front import ConnectionLimits
from inferdock.gateway.health import HealthChecker
from inferdock.gateway.load import CONNECTIONS, IN_FLIGHT
from inferdock.gateway.metrics import GatewayMetrics
from inferdock.gateway.upstream import UpstreamPool
from inferdock.gateway.workers import frames
from inferdock.gateway.workers.crew import Crew, End, Worker
from inferdock.gateway.workers.fresh import FreshRounds
from inferdock.gateway.workers.questions import Questions
from inferdock.gateway.workers.slots import Slots
from inferdock.telemetry.exposition import Exposition
from inferdock.telemetry.instruments import SnapshotSum, show, show_exemplars
from inferdock.telemetry.logs import EventLog
from inferdock.telemetry.published import Figure

TICK_S = 1.0


class GatewayParent:
    """Runs the workers and speaks for them.

    Attributes:
        port, admin_port: the ports in use, once :meth:`start` has returned.
        reload: reads the configuration again, see :class:`~inferdock.gateway.reload.Reload`.
        workers_changed: called when another process serves; set by who wants to know.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        pack: Callable[[Settings], frames.Packed],
        command: list[str],
        listeners: list[list[socket.socket]],
        boards: Mapping[str, Board],
        endpoints: EndpointSet,
        pool: UpstreamPool,
        log: EventLog,
        reload: Callable[[], dict[str, object]],
        chores: Sequence[Callable[[], Coroutine[Any, Any, None]]] = (),
    ) -> None:
        """Nothing is started yet; ``chores`` run for as long as the gateway serves."""
        self._settings = settings
        self._pack = pack
        self._listeners = listeners
        self._endpoints = endpoints
        self._pool = pool
        self._log = log
        self._loop = pool.loop
        self._load = boards["load"]
        held = boards["endpoints"]
        self._slots = Slots(held.columns, in_use=lambda slot: held.total(slot) != 0)
        self._version = 0
        self._models: list[str] = []
        self._traffic: dict[str, frames.Traffic] = {}
        self._news: set[Endpoint] = set()
        self._draining = False
        self._sum = SnapshotSum()
        self._metrics = GatewayMetrics(
            endpoints,
            connections=lambda: self._load.total(CONNECTIONS),
            draining=lambda: self._draining,
            workers=lambda: len(self._crew.serving),
        )
        self._exposition = Exposition(self._metrics.instruments)
        self._figures = RecentFigures(self._metrics)
        self._questions = Questions(self._loop)
        self._fresh = FreshRounds(self._ask_for_reports, self._loop)
        self._health = HealthChecker(
            endpoints=endpoints,
            pool=pool,
            log=log,
            interval_s=settings.gateway.health_interval_s,
            checked=self._tell_health,
        )
        self._crew = Crew(
            command=command,
            setup=lambda: self._pack(self._settings),
            listeners=listeners,
            boards=boards,
            welcome=self._welcome,
            received=self._received,
            ended=self._worker_ended,
            loop=self._loop,
        )
        self._admin = AdminPort(self, ConnectionLimits(settings.gateway), self._loop)
        self._chores = chores
        self._tasks: list[asyncio.Task[None]] = []
        self._started_at = 0.0
        self.reload = reload
        self.workers_changed: Callable[[], None] = lambda: None

    @property
    def port(self) -> int:
        """Port for clients."""
        return int(self._listeners[0][0].getsockname()[1])

    @property
    def admin_port(self) -> int:
        """Port of the admin API."""
        return self._admin.port

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.process.pid for worker in self._crew.workers]

    # -- Life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take the admin port and start the workers; returns when all serve.

        Raises:
            ResourceError: the admin port is taken, or a worker does not start.
        """
        gateway = self._settings.gateway
        try:
            await self._admin.listen(gateway.admin_port)
            await self._crew.start()
        except BaseException:
            await self.close()
            raise
        self._started_at = self._loop.time()
        self._tasks = [asyncio.create_task(chore()) for chore in (*self._chores, self._tick, self._health.run)]
        self._log.event(
            "info",
            "gateway listening",
            host=gateway.host,
            port=self.port,
            admin=self.admin_port,
            workers=len(self._listeners),
        )

    def apply(self, settings: Settings) -> None:
        """Use these settings from now on, in all workers; what needs a restart is as it was."""
        self._settings = settings
        self._health.interval_s = settings.gateway.health_interval_s
        self._pool.connect_timeout_s = settings.gateway.connect_timeout_s
        self._log.configure(level=settings.log.level, form=settings.log.format)
        self._crew.tell(frames.Configure(self._pack(settings)))

    async def drain(self) -> bool:
        """Have all workers finish open requests and refuse new ones, then close everything.

        Returns:
            True when every request finished, False when the deadline cut some.
        """
        self._draining = True
        await self._crew.drain(self._settings.drain_timeout_s)
        left = self._load.total(IN_FLIGHT)
        self._log.event("info" if not left else "warning", "all workers drained", unfinished=left)
        await self.close()
        return left == 0

    async def close(self) -> None:
        """End all workers and close everything."""
        for task in self._tasks:
            task.cancel()
        await self._crew.close()
        self._admin.close()
        for sock in chain.from_iterable(self._listeners):
            sock.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pool.close()
        self._log.flush()

    async def _tick(self) -> None:
        while True:
            now = self._loop.time()
            self._crew.check_time()
            self._admin.check_time()
            self._pool.check_time(now)
            self._merge()
            self._figures.tick(now)
            await asyncio.sleep(TICK_S)

    # -- Workers ---------------------------------------------------------------------------------------------

    def _welcome(self, worker: Worker) -> None:
        worker.channel.send(self._endpoints_frame())
        for traffic in self._traffic.values():
            worker.channel.send(traffic)
        worker.channel.send(frames.Health([self._health_row(endpoint) for endpoint in self._endpoints]))
        self.workers_changed()

    def _received(self, worker: Worker, frame: object) -> None:
        match frame:
            case frames.Snapshot():
                worker.version = frame.version
                self._sum.update(worker.id, (frame.growing, frame.gauges))
                show_exemplars(self._metrics.instruments, frame.exemplars)
                self._fresh.came(worker.id, frame.round)
            case frames.CacheAnswer():
                error = None if frame.status == 200 else RequestError(frame.status, frame.body.decode())
                self._questions.came(worker.id, frame.number, frame.body, error)
            case frames.Failed():
                self._health.check_soon()
            case frames.Metrics():
                wanted = frame.openmetrics
                self.when_fresh(lambda: worker.channel.send(frames.Text(self.metrics_text(openmetrics=wanted), wanted)))

    def _worker_ended(self, worker: Worker, end: End) -> None:
        self._sum.gone(worker.id)
        self._fresh.gone(worker.id)
        self._questions.gone(worker.id)
        if end.died:
            self._metrics.worker_deaths.cell().value += 1
            self._metrics.connections_lost.cell().value += end.connections
            self._metrics.requests_lost.cell().value += end.requests
        self._log.event(
            "error" if end.died else "info",
            "worker died" if end.died else "worker ended",
            worker=worker.row,
            pid=worker.process.pid,
            status=end.status,
            connections_lost=end.connections,
            requests_lost=end.requests,
        )
        self.workers_changed()

    def signal_worker(self, row: int, number: int) -> None:
        """Send a signal to one worker, for tests and for people who look for trouble."""
        for worker in self._crew.workers:
            if worker.row == row:
                worker.process.send_signal(number)

    # -- Endpoints and their health --------------------------------------------------------------------------

    def replace_endpoints(self, specs: list[EndpointSpec], models: Iterable[str] = ()) -> None:
        """Use exactly these endpoints from now on; removed ones finish what they have.

        Args:
            specs: the endpoints.
            models: models whose requests wait for an endpoint where there is none.

        Raises:
            ValueError: two endpoints share a name, or there are too many.
        """
        if len({spec.name for spec in specs}) != len(specs):
            raise ValueError("two endpoints share a name")
        version = self._version + 1
        known = self._crew.known_version(newest=self._version)
        slots = self._slots.assign(specs, version=version, known_version=known)
        for endpoint in self._endpoints.replace(specs, slots=slots):
            self._pool.drop_address((endpoint.spec.host, endpoint.spec.port))
        self._endpoints.declare(models)
        self._models = list(models)
        self._version = version
        self._crew.tell(self._endpoints_frame())
        self._health.check_soon()

    def _endpoints_frame(self) -> frames.Endpoints:
        rows = [
            frames.EndpointRow(e.slot, s.name, s.host, s.port, s.model, s.revision, s.digest)
            for e in self._endpoints
            for s in (e.spec,)
        ]
        return frames.Endpoints(self._version, rows, self._models)

    def set_traffic(self, model: str, weights: Mapping[str, float], shadow: Shadow | None = None) -> None:
        """Divide a model's requests among its revisions; no weights: all its endpoints share; no shadow: no copies.

        Raises:
            ValueError: the weights make no sense.
        """
        self._endpoints.set_traffic(model, weights)
        self._endpoints.set_shadow(model, shadow)
        self._traffic[model] = frames.Traffic(model, dict(weights), shadow)
        self._crew.tell(self._traffic[model])

    def _health_row(self, endpoint: Endpoint) -> frames.HealthRow:
        return frames.HealthRow(
            endpoint.slot,
            endpoint.state is State.READY,
            endpoint.running,
            endpoint.waiting,
            endpoint.kv_cache_usage_ratio,
            endpoint.max_model_len,
        )

    def _tell_health(self, endpoint: Endpoint) -> None:
        """Checks that end together make one frame."""
        if not self._news:
            self._loop.call_soon(self._send_news)
        self._news.add(endpoint)

    def _send_news(self) -> None:
        rows = [self._health_row(endpoint) for endpoint in self._endpoints if endpoint in self._news]
        self._news.clear()
        self._crew.tell(frames.Health(rows))

    # -- Admin API -------------------------------------------------------------------------------------------

    def publish(self, figures: Iterable[Figure]) -> None:
        """Show these figures of the platform in ``/metrics``.

        Raises:
            ValueError: they are none of the platform's.
        """
        self._metrics.published.tell(figures, self._loop.time())

    def when_fresh(self, ready: Callable[[], None]) -> None:
        """Ask all workers for their figures, and go on when they have come."""
        self._fresh.ask(ready)

    def _ask_for_reports(self, round_: int) -> set[int]:
        self._crew.tell(frames.Report(round_))
        return {worker.id for worker in self._crew.workers if worker.serving}

    def _merge(self) -> None:
        show(self._metrics.instruments, self._sum.total())

    def ask_cache(self, name: str, body: bytes, reply: Callable[[bytes | RequestError], None]) -> None:
        """Put a question about the response cache to all workers."""

        def send(number: int) -> set[int]:
            self._crew.tell(frames.CacheAsk(number, name, body))
            return {worker.id for worker in self._crew.workers if worker.serving}

        def answered(answers: list[bytes] | RequestError) -> None:
            reply(answers if isinstance(answers, RequestError) else merged(name, answers))

        self._questions.ask(send, answered)

    def metrics_text(self, *, openmetrics: bool = False) -> bytes:
        """The Prometheus text of all workers together, or OpenMetrics."""
        self._metrics.tick(self._loop.time())
        self._merge()
        return self._exposition.text(openmetrics=openmetrics)

    def status(self) -> dict[str, object]:
        """What ``GET /admin/status`` shows."""
        self._merge()
        now = self._loop.time()
        return {
            "state": "draining" if self._draining else "serving",
            "uptime_s": round(now - self._started_at, 3),
            "in_flight": self._load.total(IN_FLIGHT),
            "connections": self._load.total(CONNECTIONS),
            **self._figures.rows(now),
            "traffic": self._endpoints.traffic_rows(),
            "endpoints": [endpoint_row(endpoint) for endpoint in self._endpoints],
            "workers": [self._worker_row(worker) for worker in self._crew.workers],
        }

    def _worker_row(self, worker: Worker) -> dict[str, object]:
        return {
            "worker": worker.row,
            "pid": worker.process.pid,
            "state": "draining" if self._draining else worker.state,
            "deaths": self._crew.deaths[worker.row],
            "in_flight": self._load.of_row(worker.row, IN_FLIGHT),
            "connections": self._load.of_row(worker.row, CONNECTIONS),
        }
