"""Puts one gateway process together. Imports nothing of the supervisor, so that gateways stay small."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from inferdock.balance.endpoints import EndpointSet
from inferdock.balance.least_outstanding import LeastOutstanding
from inferdock.config.settings import Settings
from inferdock.domain.endpoint import EndpointSpec
from inferdock.gateway.health import HealthChecker
from inferdock.gateway.http_server import ClientConnection
from inferdock.gateway.metrics import GatewayMetrics
from inferdock.gateway.pipeline import Pipeline
from inferdock.gateway.server import GatewayServer
from inferdock.gateway.upstream import UpstreamPool
from inferdock.telemetry.logs import EventLog, write_to_fd


def build_gateway(settings: Settings, *, loop: asyncio.AbstractEventLoop, log: EventLog) -> GatewayServer:
    """Put one gateway process together; nothing is started yet."""
    endpoints = EndpointSet(LeastOutstanding())
    pool = UpstreamPool(loop=loop, connect_timeout_s=settings.gateway.connect_timeout_s)
    connections: set[ClientConnection] = set()
    health = HealthChecker(endpoints=endpoints, pool=pool, log=log, interval_s=settings.gateway.health_interval_s)
    metrics = GatewayMetrics(endpoints, connections=lambda: len(connections), draining=lambda: pipeline.draining)
    pipeline = Pipeline(
        settings=settings.gateway,
        endpoints=endpoints,
        pool=pool,
        metrics=metrics,
        log=log,
        log_requests=settings.log.requests,
        check_soon=health.check_soon,
    )
    return GatewayServer(
        settings=settings.gateway,
        drain_timeout_s=settings.drain_timeout_s,
        endpoints=endpoints,
        pool=pool,
        metrics=metrics,
        pipeline=pipeline,
        health=health,
        log=log,
        connections=connections,
    )


async def run_gateway(settings: Settings, specs: Sequence[EndpointSpec], announce: Path | None) -> bool:
    """Run a gateway until SIGTERM or SIGINT, then drain.

    Args:
        settings: the whole configuration.
        specs: endpoints to begin with; the admin API may replace them.
        announce: file that gets the ports as JSON once the gateway listens (written atomically).

    Returns:
        True when the drain lost nothing.

    Raises:
        ResourceError: a port cannot be bound.
    """
    loop = asyncio.get_running_loop()
    log = EventLog(write_to_fd(sys.stderr.fileno()), level=settings.log.level, form=settings.log.format)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = build_gateway(settings, loop=loop, log=log)
    await server.start()
    server.replace_endpoints(list(specs))
    if announce is not None:
        _announce(announce, settings.gateway.host, server)
    await stop.wait()
    return await server.drain()


def _announce(path: Path, host: str, server: GatewayServer) -> None:
    document = {"host": host, "port": server.port, "admin_port": server.admin_port, "pid": os.getpid()}
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(document))
    draft.replace(path)
