"""Reads what the platform shows: expositions, Prometheus, the console's stream, commands."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp

from inferdock.telemetry.samples import Sample, read_samples

Series = dict[str, Any]


class Exposition:
    """One look at ``/metrics``."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples

    def total(self, name: str, **labels: str) -> float:
        """Sum over all series with these labels."""
        return sum(one.value for one in self._of(name, labels))

    def by(self, name: str, *wanted: str, **labels: str) -> dict[tuple[str, ...], float]:
        """The same for each value of some labels."""
        found: dict[tuple[str, ...], float] = {}
        for one in self._of(name, labels):
            key = tuple(one.labels.get(label, "") for label in wanted)
            found[key] = found.get(key, 0.0) + one.value
        return found

    def buckets(self, name: str, **labels: str) -> tuple[list[int], list[float]]:
        """Counts per bucket, the last one above all bounds, and the bounds."""
        by_bound = {float(bound): value for (bound,), value in self.by(f"{name}_bucket", "le", **labels).items()}
        bounds = sorted(by_bound)
        upto = [by_bound[bound] for bound in bounds]
        counts = [int(now - before) for before, now in zip([0.0, *upto], upto, strict=False)]
        return counts, [bound for bound in bounds if not math.isinf(bound)]

    def _of(self, name: str, labels: Mapping[str, str]) -> list[Sample]:
        return [
            one for one in self.samples
            if one.name == name and all(one.labels.get(label) == value for label, value in labels.items())
        ]  # fmt: skip


async def exposition(http: aiohttp.ClientSession, url: str, names: frozenset[str]) -> Exposition:
    """Read one."""
    async with http.get(url) as response:
        return Exposition(read_samples(await response.text(), names))


async def query(http: aiohttp.ClientSession, base: str, text: str, at: float) -> list[Series]:
    """An instant query at a time (seconds since 1970).

    Raises:
        ValueError: Prometheus refuses it.
    """
    async with http.post(f"{base}/api/v1/query", data={"query": text, "time": f"{at:.3f}"}) as response:
        said = await response.json()
    if said["status"] != "success":
        raise ValueError(f"{said.get('error')}: {text}")
    found: list[Series] = said["data"]["result"]
    return found


@contextlib.asynccontextmanager
async def console(http: aiohttp.ClientSession, url: str, key: str) -> AsyncIterator[list[dict[str, Any]]]:
    """The documents of the console's stream, in a list that grows while it is open."""
    documents: list[dict[str, Any]] = []

    async def follow() -> None:
        headers = {"authorization": f"Bearer {key}", "x-inferdock-console": "1"}
        timeout = aiohttp.ClientTimeout(total=None)
        async with http.get(f"{url}/console/api/live", headers=headers, timeout=timeout) as response:
            response.raise_for_status()
            async for line in response.content:
                if line.startswith(b"data: "):
                    documents.append(json.loads(line.removeprefix(b"data: ")))  # noqa: PERF401 - read while it grows

    task = asyncio.create_task(follow())
    try:
        yield documents
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
