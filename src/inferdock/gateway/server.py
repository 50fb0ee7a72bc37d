"""A gateway of one process: public port, admin port, health checks, once-a-second chores, drain.

``app.build_gateway`` puts it together; ``inferdock gateway`` runs it, mostly as a child of ``inferdock up``. Its
counterpart with several processes is :mod:`inferdock.gateway.workers.parent`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping

from inferdock.balance.endpoints import EndpointSet
from inferdock.config.settings import Settings
from inferdock.domain.endpoint import EndpointSpec
from inferdock.domain.errors import RequestError
from inferdock.domain.shadow import Shadow
from inferdock.gateway.admin import AdminPort, endpoint_row
from inferdock.gateway.figures import RecentFigures
from inferdock.gateway.front import ConnectionLimits, Front
from inferdock.gateway.health import HealthChecker
from inferdock.gateway.metrics import GatewayMetrics
from inferdock.telemetry.exposition import Exposition
from inferdock.telemetry.logs import EventLog
from inferdock.telemetry.published import Figure

TICK_S = 1.0


class GatewayServer:
    """Listens, serves, drains.

    Attributes:
        port, admin_port: the ports in use, once :meth:`start` has returned.
        reload: reads the configuration again, see :class:`~inferdock.gateway.reload.Reload`.
        pids: of the processes that serve: this one.
        workers_changed: never called, as that is always the same.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        endpoints: EndpointSet,
        metrics: GatewayMetrics,
        front: Front,
        health: HealthChecker,
        log: EventLog,
        apply: Callable[[Settings], None],
        reload: Callable[[], dict[str, object]],
    ) -> None:
        self._settings = settings
        self._endpoints = endpoints
        self._metrics = metrics
        self._front = front
        self._health = health
        self._log = log
        self._apply = apply
        self._loop = front.pool.loop
        self._admin = AdminPort(self, ConnectionLimits(settings.gateway), self._loop)
        self._figures = RecentFigures(metrics)
        self._exposition = Exposition(metrics.instruments)
        self._tasks: list[asyncio.Task[None]] = []
        self._answering: set[asyncio.Task[None]] = set()
        self._started_at = 0.0
        self.reload = reload
        self.workers_changed: Callable[[], None] = lambda: None
        self.pids = [os.getpid()]
        self.port = 0
        metrics.request_text = lambda openmetrics, reply: reply(self.metrics_text(openmetrics=openmetrics))

    @property
    def admin_port(self) -> int:
        """Port of the admin API."""
        return self._admin.port

    # -- Life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bind both ports and begin to serve.

        Raises:
            ResourceError: a port is taken or the address cannot be used.
        """
        gateway = self._settings.gateway
        try:
            self.port = await self._front.listen(gateway.host, gateway.port)
            await self._admin.listen(gateway.admin_port)
        except BaseException:
            await self.close()
            raise
        self._started_at = self._loop.time()
        chores = (self._front.chores(), self._tick(), self._health.run())
        self._tasks = [asyncio.create_task(chore) for chore in chores]
        self._log.event("info", "gateway listening", host=gateway.host, port=self.port, admin=self.admin_port)

    def apply(self, settings: Settings) -> None:
        """Use these settings from now on; what needs a restart is as it was."""
        self._settings = settings
        self._health.interval_s = settings.gateway.health_interval_s
        self._apply(settings)

    async def drain(self) -> bool:
        """Finish open requests, refuse new ones, then close everything.

        Returns:
            True when every request finished, False when the deadline cut some.
        """
        left = await self._front.drain(self._settings.drain_timeout_s)
        await self.close()
        return left == 0

    async def close(self) -> None:
        """Stop listening, close all connections, stop the chores."""
        for task in self._tasks:
            task.cancel()
        self._admin.close()
        await self._front.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            self._admin.check_time()
            self._figures.tick(self._loop.time())
            await asyncio.sleep(TICK_S)

    # -- Admin API -------------------------------------------------------------------------------------------

    def replace_endpoints(self, specs: list[EndpointSpec], models: Iterable[str] = ()) -> None:
        """Use exactly these endpoints from now on; removed ones finish what they have.

        Args:
            specs: the endpoints.
            models: models whose requests wait for an endpoint where there is none.

        Raises:
            ValueError: two endpoints share a name.
        """
        self._front.endpoints_gone(self._endpoints.replace(specs))
        self._endpoints.declare(models)
        self._health.check_soon()

    def set_traffic(self, model: str, weights: Mapping[str, float], shadow: Shadow | None = None) -> None:
        """Divide a model's requests among its revisions; no weights: all its endpoints share; no shadow: no copies.

        Raises:
            ValueError: the weights make no sense.
        """
        self._endpoints.set_traffic(model, weights)
        self._endpoints.set_shadow(model, shadow)

    def publish(self, figures: Iterable[Figure]) -> None:
        """Show these figures of the platform in ``/metrics``.

        Raises:
            ValueError: they are none of the platform's.
        """
        self._metrics.published.tell(figures, self._loop.time())

    def when_fresh(self, ready: Callable[[], None]) -> None:
        """All figures are our own."""
        ready()

    def ask_cache(self, name: str, body: bytes, reply: Callable[[bytes | RequestError], None]) -> None:
        """Answer a question about the response cache."""

        async def answer() -> None:
            try:
                reply(await self._front.ask_cache(name, body))
            except RequestError as exc:
                reply(exc)

        task = self._loop.create_task(answer())
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    def metrics_text(self, *, openmetrics: bool = False) -> bytes:
        """The Prometheus text of everything, or OpenMetrics."""
        self._metrics.tick(self._loop.time())
        return self._exposition.text(openmetrics=openmetrics)

    def status(self) -> dict[str, object]:
        """What ``GET /admin/status`` shows."""
        pipeline = self._front.pipeline
        now = self._loop.time()
        load = {"in_flight": pipeline.in_flight, "connections": len(self._front.connections)}
        state = "draining" if pipeline.draining else "serving"
        return {
            "state": state,
            "uptime_s": round(now - self._started_at, 3),
            **load,
            **self._figures.rows(now),
            "traffic": self._endpoints.traffic_rows(),
            "endpoints": [endpoint_row(endpoint) for endpoint in self._endpoints],
            "workers": [{"worker": 0, "pid": os.getpid(), "state": state, "deaths": 0, **load}],
        }
