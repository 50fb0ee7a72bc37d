"""Puts the part together that serves clients: all of a gateway of one process, or one of its workers.

Imports neither the settings' library nor prometheus_client, which a worker does without.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from inferdock.balance.board import Board
from inferdock.balance.endpoints import EndpointSet
from inferdock.config.folders import default_state_dir
from inferdock.domain.errors import ConfigError
from inferdock.gateway.front import Connections, Front
from inferdock.gateway.key_watch import KeyWatch
from inferdock.gateway.limits import Limiter
from inferdock.gateway.metrics import GatewayMetrics
from inferdock.gateway.pipeline import Pipeline
from inferdock.gateway.upstream import UpstreamPool
from inferdock.gateway.workers.worker import Parts
from inferdock.keys.store import KeyFile, key_file
from inferdock.telemetry.logs import EventLog
from inferdock.telemetry.tracing import make_tracing

if TYPE_CHECKING:
    from inferdock.config.settings import Settings
    from inferdock.gateway.caching.door import Door


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

    Raises:
        ConfigError: the key file is damaged or cannot be read.
    """

    def tell(level: str, text: str) -> None:
        """From the exporter's thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(lambda: log.event(level, "tracing", reason=text))

    endpoints = EndpointSet.build(settings.balance, board=boards["endpoints"])
    pool = UpstreamPool(loop=loop, connect_timeout_s=settings.gateway.connect_timeout_s)
    connections = Connections(boards["load"])
    metrics = GatewayMetrics(endpoints, connections=lambda: len(connections), draining=lambda: pipeline.draining)
    metrics.by_tenant = settings.keys.tenants_in_metrics
    keys = KeyWatch(settings.keys, keys_of(settings), log)
    keys.load()
    pipeline = Pipeline(
        settings=settings.gateway,
        endpoints=endpoints,
        pool=pool,
        metrics=metrics,
        log=log,
        log_requests=settings.log.requests,
        check_soon=check_soon,
        auth=keys.auth,
        tracing=make_tracing(settings.tracing, tell=tell),
        limiter=Limiter(boards["limits"]),
        load=boards["load"],
    )
    pipeline.door = _door(settings, pipeline, metrics, log, loop) if uses_cache(settings) else None
    front = Front(settings=settings.gateway, pool=pool, pipeline=pipeline, log=log, connections=connections, keys=keys)

    def apply(new: Settings) -> None:
        front.apply(new)
        endpoints.configure(new.balance)
        metrics.by_tenant = new.keys.tenants_in_metrics
        if pipeline.door is not None:
            pipeline.door.configure(new.cache, new.gateway)
        elif uses_cache(new):
            log.event("warning", "the response cache needs a restart: no model used it when the gateway started")

    return Parts(settings=settings, endpoints=endpoints, front=front, metrics=metrics, log=log, apply=apply)


def uses_cache(settings: Settings) -> bool:
    """Whether any model may be answered from the response cache."""
    return settings.cache.enabled or any(route.cache.enabled for route in settings.gateway.models.values())


def _door(
    settings: Settings,
    pipeline: Pipeline,
    metrics: GatewayMetrics,
    log: EventLog,
    loop: asyncio.AbstractEventLoop,
) -> Door:
    """The response cache on the path of requests.

    Raises:
        ConfigError: it is wanted and not installed, or its settings cannot be used.
    """
    try:
        caching = importlib.import_module("inferdock.app.caching")
    except ImportError as exc:
        raise ConfigError(
            f"The response cache is switched on, but `{exc.name}` is not installed.",
            cure="Install inferdock[cache], or switch it off (`cache.enabled: false`).",
        ) from exc
    door: Door = caching.build_door(settings, pipeline=pipeline, metrics=metrics.cache, log=log, loop=loop)
    return door


def keys_of(settings: Settings) -> KeyFile:
    """The key file that the settings name."""
    return key_file(settings.keys, settings.state_dir or default_state_dir(os.environ))
