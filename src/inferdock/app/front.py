"""Puts the part together that serves clients: all of a gateway of one process, or one of its workers.

Imports neither the settings' library nor prometheus_client, which a worker does without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from inferdock.balance.board import Board
from inferdock.balance.endpoints import EndpointSet
from inferdock.gateway.front import Connections, Front
from inferdock.gateway.limits import Limiter
from inferdock.gateway.metrics import GatewayMetrics
from inferdock.gateway.pipeline import Pipeline
from inferdock.gateway.upstream import UpstreamPool
from inferdock.gateway.workers.worker import Parts
from inferdock.telemetry.logs import EventLog

if TYPE_CHECKING:
    from inferdock.config.settings import Settings


def build_front(
    settings: Settings,
    boards: Mapping[str, Board],
    *,
    loop: asyncio.AbstractEventLoop,
    log: EventLog,
    check_soon: Callable[[], None],
) -> Parts:
    """Put the parts together; nothing is started yet.

    Args:
        settings: the whole configuration.
        boards: see ``gateway.workers.boards``.
        loop: runs everything.
        log: of this process.
        check_soon: asks for health checks.
    """
    endpoints = EndpointSet.build(settings.balance, board=boards["endpoints"])
    pool = UpstreamPool(loop=loop, connect_timeout_s=settings.gateway.connect_timeout_s)
    connections = Connections(boards["load"])
    metrics = GatewayMetrics(endpoints, connections=lambda: len(connections), draining=lambda: pipeline.draining)
    pipeline = Pipeline(
        settings=settings.gateway,
        endpoints=endpoints,
        pool=pool,
        metrics=metrics,
        log=log,
        log_requests=settings.log.requests,
        check_soon=check_soon,
        limiter=Limiter(boards["limits"]),
        load=boards["load"],
    )
    front = Front(settings=settings.gateway, pool=pool, pipeline=pipeline, log=log, connections=connections)
    return Parts(settings=settings, endpoints=endpoints, front=front, metrics=metrics, log=log, apply=front.apply)
