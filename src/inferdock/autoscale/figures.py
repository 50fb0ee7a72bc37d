"""Names of the figures that an autoscaler goes by, here and in simulations."""

from __future__ import annotations

from typing import Final

REQUESTS: Final = "requests"
"""Requests that run or wait: in engines, in their queues, and held by the gateway. A sum over all replicas."""
KV_CACHE: Final = "kv_cache_usage"
"""Share of the KV cache that is in use, 0-1, on average over ready replicas."""
