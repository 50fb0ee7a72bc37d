"""What a running target says of itself: `/metrics`, and the status on its admin port."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from inferdock.app.cost import metrics_text
from inferdock.app.verify.ground import LackingError
from inferdock.app.verify.target import Target
from inferdock.telemetry.samples import read_samples

POLL_S: Final = 0.1
READY_S: Final = 20.0
"""Within it a replica that was put back is ready."""


async def exposition(target: Target) -> str:
    """The target's metrics, by its admin port where that is known: it asks for no key."""
    return await metrics_text(target.http, f"{target.admin_url or target.url}/metrics")


def total(text: str, name: str, labels: Mapping[str, str] | None = None) -> float | None:
    """Sum of the samples of a name with these labels; None when there are none."""
    wanted = (labels or {}).items()
    values = [one.value for one in read_samples(text, {name}) if wanted <= one.labels.items()]
    return sum(values) if values else None


def quantile_bound(
    before: str, after: str, name: str, q: float, labels: Mapping[str, str] | None = None
) -> tuple[float, int]:
    """Upper bound of the bucket that a quantile of a histogram's new observations lies in, and their number.

    Args:
        name: of the histogram, without `_bucket`.
        labels: that the observations have; others of theirs are taken together.
    """
    grown: dict[float, float] = {}
    wanted = (labels or {}).items()
    for text, sign in ((before, -1.0), (after, 1.0)):
        for one in read_samples(text, {f"{name}_bucket"}):
            if not wanted <= one.labels.items():
                continue
            bound = float(one.labels["le"])
            grown[bound] = grown.get(bound, 0.0) + sign * one.value
    count = grown.get(float("inf"), 0.0)
    return next((bound for bound in sorted(grown) if grown[bound] >= q * count), float("inf")), int(count)


async def status(target: Target) -> dict[str, Any]:
    """`/admin/status`.

    Raises:
        LackingError: the admin port is not known.
    """
    if target.admin_url is None:
        raise LackingError("The admin port is not known: give --admin-url.")
    async with target.http.get(f"{target.admin_url}/admin/status") as answer:
        answer.raise_for_status()
        document: dict[str, Any] = await answer.json()
    return document


async def wait_for_ready(target: Target, wanted: int) -> int:
    """Wait until so many replicas of the model are ready; how many there are then, or at the end."""
    deadline = asyncio.get_running_loop().time() + READY_S
    while True:
        ready = len(ready_rows(await status(target), target.model))
        if ready >= wanted or asyncio.get_running_loop().time() > deadline:
            return ready
        await asyncio.sleep(POLL_S)


def ready_rows(document: Mapping[str, Any], model: str) -> list[dict[str, Any]]:
    """Endpoints of a model that take requests."""
    return [row for row in document["endpoints"] if row["model"] == model and row["state"] == "ready"]
