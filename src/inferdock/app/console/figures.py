"""Figures of the console and of ``inferdock status``: totals at one moment, and rates and percentiles made of several.

Pure, and small: a gateway of a cluster makes them too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from inferdock.telemetry import names
from inferdock.telemetry.instruments import quantile
from inferdock.telemetry.samples import Sample

RATE_WINDOW_S: Final = 10
QUANTILE_WINDOW_S: Final = 60
_OWN_ROUTES: Final = ("own", "refused", "invalid")
"""Routes of requests that are no work for a model: health checks, and what was turned away unread."""
_SUMS: Final = {
    "output_tokens": names.OUTPUT_TOKENS,
    "prompt_tokens": names.PROMPT_TOKENS,
    "waiting": names.WAITING,
    "cache_hits": names.CACHE_HITS,
    "cache_requests": names.CACHE_REQUESTS,
    "cache_saved_tokens": names.CACHE_SAVED_TOKENS,
    "cache_saved_s": names.CACHE_SAVED_SECONDS,
}
COUNTED: Final = frozenset({names.REQUESTS, *_SUMS.values(), f"{names.TTFT}_bucket", f"{names.TPOT}_bucket"})
"""What :func:`total` reads of a gateway."""


@dataclass(slots=True)
class Totals:
    """What had been counted at one moment.

    Attributes:
        at: monotonic seconds.
        sums: by the names of ``_SUMS``, and ``requests`` and ``failed``.
        ttft, tpot: observations up to each bound in seconds, cumulative.
        prefix_hits, prefix_queries: tokens, of all engines.
    """

    at: float
    sums: dict[str, float] = field(default_factory=dict)
    ttft: dict[float, float] = field(default_factory=dict)
    tpot: dict[float, float] = field(default_factory=dict)
    prefix_hits: float = 0.0
    prefix_queries: float = 0.0


def total(at: float, gateway: Sequence[Sample], engines: Sequence[Sample]) -> Totals:
    """Samples added up."""
    found = Totals(at, sums=dict.fromkeys((*_SUMS, "requests", "failed"), 0.0))
    keys = {name: key for key, name in _SUMS.items()}
    for one in gateway:
        if one.name == names.REQUESTS and one.labels.get("route") not in _OWN_ROUTES:
            found.sums["requests"] += one.value
            found.sums["failed"] += one.value if one.labels.get("status", "").startswith("5") else 0.0
        elif one.name in keys:
            found.sums[keys[one.name]] += one.value
        elif one.name in (f"{names.TTFT}_bucket", f"{names.TPOT}_bucket"):
            buckets = found.ttft if one.name.startswith(names.TTFT) else found.tpot
            bound = float(one.labels["le"])
            buckets[bound] = buckets.get(bound, 0.0) + one.value
    for one in engines:
        found.prefix_hits += one.value if one.name == names.ENGINE_PREFIX_HITS else 0.0
        found.prefix_queries += one.value if one.name == names.ENGINE_PREFIX_QUERIES else 0.0
    return found


def still_true(past: Sequence[Totals], now: Totals) -> list[Totals]:
    """Earlier looks that count: none older than a minute (for a while nobody may have looked), and none of a gateway
    that was started again since and counts from zero."""
    began_anew = bool(past) and now.sums["requests"] < past[-1].sums["requests"]
    return [] if began_anew else [one for one in past if now.at - one.at <= QUANTILE_WINDOW_S]


def recent(past: Sequence[Totals], now: Totals) -> dict[str, Any]:
    """Rates of the last ten seconds, percentiles of the last minute, and totals since the gateway's start."""
    before = next(one for one in past if now.at - one.at <= RATE_WINDOW_S + 1)  # looks are not exactly a second apart
    span = now.at - before.at
    hits, asked = now.sums["cache_hits"], now.sums["cache_requests"]
    return {
        **{f"{name}_total": now.sums[name] for name in ("requests", "failed", "output_tokens", "prompt_tokens")},
        **{
            f"{name}_per_s": (now.sums[name] - before.sums[name]) / span if span > 0 else None
            for name in ("requests", "failed", "output_tokens", "prompt_tokens")
        },
        "waiting": now.sums["waiting"],
        "ttft_s": quantiles(past[0].ttft, now.ttft),
        "tpot_s": quantiles(past[0].tpot, now.tpot),
        "prefix_cache_ratio": now.prefix_hits / now.prefix_queries if now.prefix_queries else None,
        "cache": {
            "requests": asked,
            "hits": hits,
            "saved_tokens": now.sums["cache_saved_tokens"],
            "saved_s": now.sums["cache_saved_s"],
        },
    }


def endpoint_row(endpoint: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a gateway's status as the document has replicas: what is held on it, what its engine says of itself."""
    told = ("name", "revision", "state", "in_flight", "running", "waiting", "kv_cache_usage_ratio")
    return {**{name: endpoint.get(name) for name in told}, "since_s": None, "restarts": None, "problem": ""}


def shares(status: Mapping[str, Any]) -> dict[str, float]:
    """Of the requests, by revision, adding up to 1, since a gateway may be told any weights; none where several models
    are served, whose shares would mix."""
    models = list((status.get("traffic") or {}).values())
    given = (
        {str(revision): float(weight) for revision, weight in models[0]["weights"].items()} if len(models) == 1 else {}
    )
    whole = sum(given.values())
    return {revision: weight / whole for revision, weight in given.items()} if whole > 0 else {}


def quantiles(before: Mapping[float, float], now: Mapping[float, float]) -> dict[str, float | None]:
    """p50, p95 and p99 in seconds, of what was observed since; None where nothing was."""
    bounds = sorted(now)
    grown = [now[bound] - before.get(bound, 0.0) for bound in bounds]
    counts = [int(after - under) for under, after in zip([0.0, *grown], grown, strict=False)]
    if not bounds or sum(counts) <= 0:
        return {"p50": None, "p95": None, "p99": None}
    return {name: quantile(counts, bounds[:-1], share) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
