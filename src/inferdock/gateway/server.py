"""One gateway process: its listeners, its once-a-second chores, its drain.

``app.build_gateway`` puts it together; ``inferdock gateway`` runs it, mostly as a child of ``inferdock up``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections import deque
from dataclasses import dataclass

from inferdock.balance.endpoints import EndpointSet
from inferdock.config.settings import GatewaySettings
from inferdock.domain.endpoint import EndpointSpec
from inferdock.domain.errors import ResourceError
from inferdock.gateway.admin import Admin, endpoint_row
from inferdock.gateway.health import HealthChecker
from inferdock.gateway.http_server import ClientConnection, Handler
from inferdock.gateway.metrics import GatewayMetrics
from inferdock.gateway.pipeline import Pipeline
from inferdock.gateway.upstream import UpstreamPool
from inferdock.telemetry.instruments import quantile
from inferdock.telemetry.logs import EventLog

TICK_S = 1.0
RATE_WINDOW_S = 10
TTFT_WINDOW_S = 60
BACKLOG = 4096


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """Totals at one tick, for rates and recent quantiles."""

    at: float
    requests: float
    output_tokens: float
    ttft_counts: tuple[int, ...]


class GatewayServer:
    """Listens, serves, drains.

    Attributes:
        port, admin_port: the ports in use, once :meth:`start` has returned.
    """

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        drain_timeout_s: float,
        endpoints: EndpointSet,
        pool: UpstreamPool,
        metrics: GatewayMetrics,
        pipeline: Pipeline,
        health: HealthChecker,
        log: EventLog,
        connections: set[ClientConnection],
    ) -> None:
        self._settings = settings
        self._drain_timeout_s = drain_timeout_s
        self._endpoints = endpoints
        self._pool = pool
        self._metrics = metrics
        self._pipeline = pipeline
        self._health = health
        self._log = log
        self._connections = connections
        self._admin_connections: set[ClientConnection] = set()
        self._servers: list[asyncio.Server] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._snapshots: deque[_Snapshot] = deque(maxlen=TTFT_WINDOW_S + 1)
        self._started_at = 0.0
        self.port = 0
        self.admin_port = 0

    # -- Life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bind both ports and begin to serve.

        Raises:
            ResourceError: a port is taken or the address cannot be used.
        """
        settings = self._settings
        admin = Admin(status=self.status, replace_endpoints=self.replace_endpoints, metrics_text=self._metrics.text)
        self.port = await self._listen(settings.host, settings.port, self._pipeline, self._connections)
        self.admin_port = await self._listen("127.0.0.1", settings.admin_port, admin, self._admin_connections)
        self._started_at = self._pool.loop.time()
        self._tasks = [asyncio.create_task(self._tick()), asyncio.create_task(self._health.run())]
        self._log.event("info", "gateway listening", host=settings.host, port=self.port, admin=self.admin_port)

    async def _listen(self, host: str, port: int, handler: Handler, connections: set[ClientConnection]) -> int:
        loop = self._pool.loop
        try:
            server = await loop.create_server(
                lambda: ClientConnection(handler, self._settings, connections, loop), host, port, backlog=BACKLOG
            )
        except OSError as exc:
            await self.close()
            raise _cannot_listen(host, port, exc) from exc
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def drain(self) -> bool:
        """Finish open requests, refuse new ones, then close everything.

        Returns:
            True when every request finished, False when the deadline cut some.
        """
        for connection in list(self._connections):
            connection.last_answer()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._pipeline.finish_all(), self._drain_timeout_s)
        left = self._pipeline.in_flight
        self._log.event("info" if not left else "warning", "drained", unfinished=left)
        await self.close()
        return left == 0

    async def close(self) -> None:
        """Stop listening, close all connections, stop the chores."""
        for task in self._tasks:
            task.cancel()
        for server in self._servers:
            server.close()
        for connection in [*self._connections, *self._admin_connections]:
            connection.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # lets last bytes and FINs leave the write buffers
        self._pool.close()
        self._log.flush()

    # -- Endpoints and status --------------------------------------------------------------------------------

    def replace_endpoints(self, specs: list[EndpointSpec]) -> None:
        """Use exactly these endpoints from now on; removed ones finish what they have.

        Raises:
            ValueError: two endpoints share a name.
        """
        for endpoint in self._endpoints.replace(specs):
            self._pool.drop_address((endpoint.spec.host, endpoint.spec.port))
        self._health.check_soon()

    def status(self) -> dict[str, object]:
        """What ``GET /admin/status`` shows."""
        rate, tokens, ttft = self._recent()
        return {
            "state": "draining" if self._pipeline.draining else "serving",
            "uptime_s": round(self._pool.loop.time() - self._started_at, 3),
            "in_flight": self._pipeline.in_flight,
            "connections": len(self._connections),
            "requests_total": int(self._metrics.requests.total()),
            "requests_per_s": rate,
            "output_tokens_total": int(self._metrics.output_tokens.total()),
            "output_tokens_per_s": tokens,
            "ttft_p50_s": quantile(ttft, self._metrics.ttft.bounds, 0.5),
            "ttft_p95_s": quantile(ttft, self._metrics.ttft.bounds, 0.95),
            "endpoints": [endpoint_row(endpoint) for endpoint in self._endpoints],
        }

    def _recent(self) -> tuple[float, float, list[int]]:
        """Requests/s and output tokens/s over the last ten seconds, TTFT buckets of the last minute."""
        now = self._snapshot()
        if not self._snapshots:
            return 0.0, 0.0, list(now.ttft_counts)
        past = self._snapshots[max(0, len(self._snapshots) - RATE_WINDOW_S)]
        span = max(now.at - past.at, 1e-9)
        oldest = self._snapshots[0].ttft_counts
        ttft = [new - old for new, old in zip(now.ttft_counts, oldest, strict=True)]
        requests, tokens = now.requests - past.requests, now.output_tokens - past.output_tokens
        return round(requests / span, 3), round(tokens / span, 3), ttft

    def _snapshot(self) -> _Snapshot:
        return _Snapshot(
            at=self._pool.loop.time(),
            requests=self._metrics.duration_count(),
            output_tokens=self._metrics.output_tokens.total(),
            ttft_counts=tuple(self._metrics.ttft.merged_counts()),
        )

    async def _tick(self) -> None:
        while True:
            now = self._pool.loop.time()
            for connection in [*self._connections, *self._admin_connections]:
                connection.check_time(now)
            self._pool.check_time(now)
            self._snapshots.append(self._snapshot())
            await asyncio.sleep(TICK_S)


def _cannot_listen(host: str, port: int, exc: OSError) -> ResourceError:
    if exc.errno == errno.EADDRINUSE:
        return ResourceError(
            f"Port {port} on {host} is in use.", cure="Stop what holds it, or choose another with --port."
        )
    if exc.errno in (errno.EACCES, errno.EPERM):
        return ResourceError(
            f"Port {port} on {host} needs more rights than this user has.", cure="Choose a port above 1023."
        )
    return ResourceError(f"Cannot listen on {host}:{port}: {exc.strerror or exc}.", cure="Check --host and --port.")
