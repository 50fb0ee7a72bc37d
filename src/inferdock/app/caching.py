"""Puts the response cache together. Loaded by name, and only where a model uses it: it brings numpy, the embedding
runtime and the Redis client, which other gateways do without."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from inferdock.cache.embedder import Embedder, fingerprint
from inferdock.cache.epochs import Epochs
from inferdock.cache.guard import Guard, surface_form
from inferdock.cache.index import IndexSet
from inferdock.cache.memory_store import MemoryStore
from inferdock.cache.packing import pack, unpack
from inferdock.cache.response_cache import ResponseCache
from inferdock.cache.semantic_tier import SemanticTier
from inferdock.cache.thresholds import threshold
from inferdock.gateway.caching.door import Door
from inferdock.gateway.caching.metrics import CacheMetrics
from inferdock.gateway.pipeline import Pipeline
from inferdock.telemetry.logs import EventLog

if TYPE_CHECKING:
    from inferdock.config.settings import CacheSettings, Settings


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
        ConfigError: Redis' address or a key file cannot be used.
    """
    cache = build_cache(settings.cache, metrics, log)
    return Door(
        gate=pipeline,
        cache=cache,
        settings=settings.cache,
        gateway=settings.gateway,
        metrics=metrics,
        log=log,
        loop=loop,
    )


def build_cache(settings: CacheSettings, metrics: CacheMetrics, log: EventLog) -> ResponseCache:
    """Put the stores and the semantic tier together.

    Raises:
        ConfigError: Redis' address or a key file cannot be used.
    """
    epochs = Epochs(time.time)
    memory = MemoryStore(
        max_bytes=settings.max_bytes,
        max_entries=settings.max_entries,
        epochs=epochs,
        clock=time.time,
        on_drop=lambda entry: cache.dropped(entry),
    )
    tier = SemanticTier(
        load=lambda: load_embedder(settings),
        index=IndexSet(),
        guard=Guard(),
        surface_form=surface_form,
        threshold=threshold,
        pack=pack,
        cosine=lambda one, other: float(unpack(one) @ unpack(other)),
        max_entries=settings.max_entries,
    )
    cache = ResponseCache(memory=memory, epochs=epochs, tier=tier, remote=None, fingerprint=fingerprint(), log=log)
    return cache


def load_embedder(settings: CacheSettings) -> Embedder:
    """The embedding model, measured: texts that would take too long are left out.

    Raises:
        ConfigError: it is not installed, or its files are not those that are expected.
    """
    embedder = Embedder.load(settings.embedder_dir)
    embedder.calibrate(settings.lookup_budget_s)
    return embedder
