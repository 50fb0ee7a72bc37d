"""Puts the response cache on the path of requests. Loaded by name, and only where a model uses it: it brings numpy, the
embedding runtime and the Redis client, which other gateways do without."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from inferdock.cache.assembly import build_cache
from inferdock.gateway.caching.door import Door
from inferdock.gateway.caching.metrics import CacheMetrics
from inferdock.gateway.pipeline import Pipeline
from inferdock.telemetry.logs import EventLog

if TYPE_CHECKING:
    from inferdock.config.settings import Settings


def build_door(
    settings: Settings,
    *,
    pipeline: Pipeline,
    metrics: CacheMetrics,
    log: EventLog,
    loop: asyncio.AbstractEventLoop,
) -> Door:
    """Put the cache and its place on the path of requests together; nothing is started yet.

    Raises:
        ConfigError: Redis' address, its password file or a key file cannot be used.
    """
    routes = [route.cache for route in settings.gateway.models.values()]
    semantic = settings.cache.semantic or any(route.semantic for route in routes)
    longest_s = max([settings.cache.ttl_s, *(route.ttl_s for route in routes if route.ttl_s is not None)])
    return Door(
        gate=pipeline,
        cache=build_cache(settings.cache, log, semantic=semantic, longest_ttl_s=longest_s),
        settings=settings.cache,
        gateway=settings.gateway,
        metrics=metrics,
        log=log,
        loop=loop,
    )
