"""A result as a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

from inferdock.domain.percentile import percentile
from inferdock.simulation.scenario import Result, Scenario

MAX_ACTIONS = 10_000


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and percentiles in seconds."""
    ordered = sorted(values)
    mean = sum(ordered) / len(ordered) if ordered else None
    return {"mean": mean, **{f"p{round(q * 100)}": _finite(percentile(ordered, q)) for q in (0.5, 0.95, 0.99)}}


def document(scenario: Scenario, result: Result, *, traffic: str) -> dict[str, Any]:
    """Everything that was simulated and came of it, for JSON.

    Args:
        traffic: what was asked, in words.
    """
    history = result.history
    return {
        "traffic": traffic,
        "profile": {"source": scenario.profile.source, "startup_s": scenario.profile.startup_s},
        "requests": {
            "asked": result.asked,
            "answered": result.answered,
            "good": result.good,
            "moved": result.moved,
            "most_held": max((sample.held for sample in history), default=0),
            "most_waiting": max((sample.waiting for sample in history), default=0),
        },
        "duration_s": result.duration_s,
        "goodput_per_s": _finite(result.goodput_per_s),
        "ttft_s": percentiles(result.ttft),
        "tpot_s": percentiles(result.tpot),
        "replicas": {
            "most": result.most_replicas,
            "mean": _finite(result.mean_replicas),
            "hours": result.replica_s / 3600,
            "spot_hours": result.spot_s / 3600,
        },
        "cost": {
            "total": result.cost if scenario.price_per_hour else None,
            "per_million_tokens": _finite(result.cost_per_million) if scenario.price_per_hour else None,
        },
        "actions": [asdict(action) for action in result.actions[:MAX_ACTIONS]],
        "history": [list(asdict(sample).values()) for sample in history],
        "history_columns": ["at", "wanted", "ready", "running", "waiting", "held"],
    }


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
