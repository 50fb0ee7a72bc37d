"""The public side of one process: client connections, their chores, their drain.

The whole of it in a gateway of one process (:mod:`inferdock.gateway.server`), one of several in a gateway with
workers (:mod:`inferdock.gateway.workers`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING

from inferdock.balance.board import Board
from inferdock.balance.endpoints import Endpoint
from inferdock.domain.errors import RequestError
from inferdock.gateway.http_server import ClientConnection
from inferdock.gateway.key_watch import KeyWatch
from inferdock.gateway.listening import BACKLOG, cannot_listen
from inferdock.gateway.load import CONNECTIONS
from inferdock.gateway.pipeline import Pipeline
from inferdock.gateway.upstream import UpstreamPool
from inferdock.telemetry.logs import EventLog
from inferdock.wire.request_head import HeadMemory

if TYPE_CHECKING:  # a worker does not load the settings' library: it gets values from its parent
    from inferdock.config.settings import GatewaySettings, Settings

CHORES_S = 1.0


class Connections(set[ClientConnection]):
    """Open client connections, whose number also stands on a board that outlives this process."""

    def __init__(self, load: Board) -> None:
        super().__init__()
        self._load = load

    def add(self, connection: ClientConnection) -> None:
        super().add(connection)
        self._load.set(CONNECTIONS, len(self))

    def discard(self, connection: object) -> None:
        super().discard(connection)
        self._load.set(CONNECTIONS, len(self))


class ConnectionLimits:
    """The limits that all connections obey, open ones too; replaced in place when the configuration is reloaded."""

    __slots__ = (
        "keepalive_timeout_s",
        "max_body_bytes",
        "max_header_bytes",
        "max_held_bytes",
        "request_read_timeout_s",
    )

    def __init__(self, settings: GatewaySettings) -> None:
        self.update(settings)

    def update(self, settings: GatewaySettings) -> None:
        """Use these from now on."""
        self.max_body_bytes = settings.max_body_bytes
        self.max_header_bytes = settings.max_header_bytes
        self.max_held_bytes = settings.max_held_bytes
        self.request_read_timeout_s = settings.request_read_timeout_s
        self.keepalive_timeout_s = settings.keepalive_timeout_s


class Front:
    """Serves clients on the sockets that it is given."""

    def __init__(
        self,
        *,
        settings: GatewaySettings,
        pool: UpstreamPool,
        pipeline: Pipeline,
        log: EventLog,
        connections: Connections,
        keys: KeyWatch,
    ) -> None:
        self.keys = keys
        self.pipeline = pipeline
        self.pool = pool
        self.connections = connections
        self._limits = ConnectionLimits(settings)
        self._heads = HeadMemory()
        self._log = log
        self._servers: list[asyncio.Server] = []

    # -- Listening -------------------------------------------------------------------------------------------

    async def listen(self, host: str, port: int) -> int:
        """Take a port and serve it; return it.

        Raises:
            ResourceError: it is taken or the address cannot be used.
        """
        try:
            server = await self.pool.loop.create_server(self._connection, host, port, backlog=BACKLOG)
        except OSError as exc:
            raise cannot_listen(host, port, exc) from exc
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def serve_on(self, fds: list[int]) -> list[asyncio.Server]:
        """Accept from listening sockets that others hold too; the descriptors stay open when this ends."""
        servers = []
        for fd in fds:
            sock = socket.socket(fileno=os.dup(fd))
            servers.append(await self.pool.loop.create_server(self._connection, sock=sock, backlog=BACKLOG))
        self._servers += servers
        return servers

    def stop_serving(self, servers: list[asyncio.Server]) -> None:
        """Accept no more from these; what waits in their queues is left to whoever else holds them."""
        for server in servers:
            server.close()
        self._servers = [server for server in self._servers if server not in servers]

    def stop_serving_all(self) -> None:
        """Accept no more from any."""
        self.stop_serving(list(self._servers))

    async def stop_listening(self) -> None:
        """Accept what waits in the queues, which would be reset otherwise, then accept no more."""
        if self._servers:
            await asyncio.sleep(0.01)  # the loop takes everything that is ready in one turn
        self.stop_serving_all()

    def _connection(self) -> ClientConnection:
        return ClientConnection(self.pipeline, self._limits, self.connections, self.pool.loop, self._heads)

    # -- Response cache --------------------------------------------------------------------------------------

    async def ask_cache(self, name: str, body: bytes) -> bytes:
        """Answer a question of ``inferdock cache``, as JSON.

        Raises:
            RequestError: 400 or 404, see ``caching.operations``; 404, no model uses the cache.
        """
        door = self.pipeline.door
        if door is None:
            raise RequestError(
                404,
                "No model uses the response cache: set `cache.enabled`, or `gateway.models.NAME.cache.enabled`.",
                code="cache_off",
            )
        return await door.operate(name, body)

    # -- Life ------------------------------------------------------------------------------------------------

    async def chores(self) -> None:
        """Watch the deadlines of clients and replicas, and the key file, until cancelled."""
        watching = asyncio.create_task(self.keys.run())
        if self.pipeline.door is not None:
            self.pipeline.door.start()
        try:
            while True:
                self._check_time()
                await asyncio.sleep(CHORES_S)
        finally:
            watching.cancel()

    def _check_time(self) -> None:
        now = self.pool.loop.time()
        for connection in list(self.connections):
            connection.check_time(now)
        self._check_held_bytes()
        self.pool.check_time(now)
        self.pipeline.check_time()

    def _check_held_bytes(self) -> None:
        """Many slow uploads must not fill the memory together: those that hold most have to come again."""
        surplus = sum(connection.held_bytes for connection in self.connections) - self._limits.max_held_bytes
        if surplus <= 0:
            return
        for connection in sorted(self.connections, key=lambda connection: connection.held_bytes, reverse=True):
            surplus -= connection.held_bytes
            connection.refuse_for_memory()
            if surplus <= 0:
                break

    def endpoints_gone(self, endpoints: list[Endpoint]) -> None:
        """These have left the set: they finish what they have, and get no new connection."""
        for endpoint in endpoints:
            self.pool.drop_address((endpoint.spec.host, endpoint.spec.port))
        self.pipeline.endpoints_removed(endpoints)

    def apply(self, settings: Settings) -> None:
        """Use these settings from now on, for open connections too."""
        self.keys.settings = settings.keys
        self._limits.update(settings.gateway)
        for connection in self.connections:
            connection.limits_changed()
        self.pipeline.settings = settings.gateway
        self.pipeline.log_requests = settings.log.requests
        self.pool.connect_timeout_s = settings.gateway.connect_timeout_s
        self._log.configure(level=settings.log.level, form=settings.log.format)

    async def drain(self, timeout_s: float | None) -> int:
        """Refuse new requests and let open ones finish; keeps listening, so that health checks get their 503.

        Args:
            timeout_s: None where somebody else watches the time.

        Returns:
            Requests that ``timeout_s`` was too short for.
        """
        for connection in list(self.connections):
            connection.last_answer()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.pipeline.finish_all(), timeout_s)
        self.pipeline.turn_all_away()
        left = self.pipeline.in_flight
        self._log.event("info" if not left else "warning", "drained", unfinished=left)
        return left

    async def close(self) -> None:
        """Stop listening and close all connections."""
        await self.stop_listening()
        for connection in list(self.connections):
            connection.close()
        self.pipeline.shadows.stop()
        if self.pipeline.door is not None:
            await self.pipeline.door.close()
        await asyncio.sleep(0.05)  # lets last bytes and FINs leave the write buffers
        await self.pipeline.tracing.close()
        self.pool.close()
        self._log.flush()
