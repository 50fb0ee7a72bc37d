"""Puts a response cache together from its settings: for the gateway (``app``) and for ``semantic_cache``.

Loaded only where a cache is used: it brings numpy, the embedding runtime and the Redis client.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from inferdock.cache.codec import Plain, Seal
from inferdock.cache.embedder import Embedder, fingerprint
from inferdock.cache.epochs import Epochs
from inferdock.cache.guard import Guard, surface_form
from inferdock.cache.index import IndexSet
from inferdock.cache.memory_store import MemoryStore
from inferdock.cache.packing import pack, unpack
from inferdock.cache.redis_address import redis_address
from inferdock.cache.redis_flights import LeaderLost, RedisFlights
from inferdock.cache.redis_link import RedisLink
from inferdock.cache.redis_store import RedisStore
from inferdock.cache.redis_sync import RedisSync
from inferdock.cache.response_cache import Hearer, ResponseCache, Shared
from inferdock.cache.sealer import sealer_from_files
from inferdock.cache.semantic_tier import Embedding, SemanticTier
from inferdock.cache.thresholds import threshold
from inferdock.domain.errors import ConfigError
from inferdock.telemetry.logs import EventLog

if TYPE_CHECKING:
    from inferdock.config.settings import CacheRedisSettings, CacheSettings

LAYOUT: Final = ":1"
"""Of keys and values in Redis; another one would not read the other's."""


def build_cache(
    settings: CacheSettings,
    log: EventLog,
    *,
    semantic: bool,
    longest_ttl_s: float | None = None,
    wall_clock: Callable[[], float] = time.time,
) -> ResponseCache:
    """Put the stores and, where wanted, the semantic tier together; nothing is started yet.

    Args:
        longest_ttl_s: of any entry; default: that of the settings.

    Raises:
        ConfigError: Redis' address, its password file or a key file cannot be used.
    """
    epochs = Epochs(wall_clock)
    memory = MemoryStore(
        max_bytes=settings.max_bytes,
        max_entries=settings.max_entries,
        epochs=epochs,
        clock=wall_clock,
        on_drop=lambda entry: cache.dropped(entry),
    )
    cache = ResponseCache(
        memory=memory,
        epochs=epochs,
        tier=build_tier(settings, wall_clock=wall_clock) if semantic else None,
        shared=shared_by_redis(settings.redis, longest_ttl_s or settings.ttl_s, epochs, log, wall_clock=wall_clock),
        fingerprint=fingerprint() if semantic else "",
        log=log,
        wall_clock=wall_clock,
    )
    return cache


def build_tier(
    settings: CacheSettings,
    *,
    load: Callable[[], Embedding] | None = None,
    wall_clock: Callable[[], float] = time.time,
) -> SemanticTier:
    """What finds messages that mean the same; its embedding model is loaded when it starts, by default as set."""
    return SemanticTier(
        load=load or (lambda: load_embedder(settings.embedder_dir, settings.lookup_budget_s)),
        index=IndexSet(),
        guard=Guard(),
        surface_form=surface_form,
        threshold=threshold,
        pack=pack,
        cosine=lambda one, other: float(unpack(one) @ unpack(other)),
        max_entries=settings.max_entries,
        wall_clock=wall_clock,
    )


def load_embedder(folder: Path | None, budget_s: float) -> Embedder:
    """The embedding model, measured: texts that would take too long are left out.

    Raises:
        ConfigError: it is not installed, or its files are not those that are expected.
    """
    embedder = Embedder.load(folder)
    embedder.calibrate(budget_s)
    return embedder


def shared_by_redis(
    settings: CacheRedisSettings,
    ttl_s: float,
    epochs: Epochs,
    log: EventLog,
    *,
    wall_clock: Callable[[], float] = time.time,
) -> Callable[[Hearer], Shared] | None:
    """Everything that goes through Redis; None without one.

    Args:
        ttl_s: longest life of an entry.

    Raises:
        ConfigError: its address, its password file or a key file cannot be used.
    """
    if settings.url is None:
        return None
    address = redis_address(settings.url, _password(settings.password_file))
    seal: Seal = sealer_from_files(settings.encryption_key_files) if settings.encryption_key_files else Plain()
    namespace, origin = settings.namespace + LAYOUT, secrets.token_hex(8)

    def share(listener: Hearer) -> Shared:
        link = RedisLink(address, log=log, budget_s=settings.timeout_s)
        store = RedisStore(
            link,
            epochs=epochs,
            clock=wall_clock,
            origin=origin,
            namespace=namespace,
            seal=seal,
            max_log=settings.max_log_entries,
            log_age_s=ttl_s,
        )
        news = RedisSync(
            address,
            epochs=epochs,
            listener=listener,
            clock=wall_clock,
            log=log,
            origin=origin,
            namespace=namespace,
            seal=seal,
            max_log=settings.max_log_entries,
            breathe=listener.breathe,
        )
        return Shared(
            store, news, RedisFlights(link, namespace=namespace, seal=seal), LeaderLost, lambda: link.outcomes
        )

    return share


def _password(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"The password file {file} cannot be read: {exc}.", cure="See `cache.redis.password_file`."
        ) from exc
