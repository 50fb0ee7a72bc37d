"""The load that several criteria rest on: run once, its bill taken over the same window."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from inferdock.app import cost
from inferdock.app.verify.figures import ready_rows, status
from inferdock.app.verify.target import Target
from inferdock.bench.client import Asking, Client, session
from inferdock.bench.runner import Runner
from inferdock.bench.stats import Summary, summarise
from inferdock.bench.workload import Task, parse_length, synthetic
from inferdock.config.settings import CostSettings
from inferdock.domain.errors import CheckFailedError

PROMPT_TOKENS: Final = "32"
OUTPUT_TOKENS: Final = "50"
WARM_UP: Final = 20
REQUEST_S: Final = 120.0
NAME: Final = "load"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a load measured.

    Attributes:
        summary: at the client.
        bill: of the same window, as `inferdock cost` has it; None where nobody said what an hour costs.
    """

    summary: Summary
    bill: dict[str, Any] | None


async def load_of(target: Target) -> Load:
    """The load of this run: measured at the first call.

    Raises:
        CheckFailedError: not one request of the warm-up succeeded.
    """
    if NAME not in target.measured:
        target.measured[NAME] = await _measure(target)
    found: Load = target.measured[NAME]
    return found


async def _measure(target: Target) -> Load:
    tasks = _tasks()
    async with open_session(target) as http:
        client = await _warm(Client(http, asking(target)), tasks, target.users)
        runner = Runner(client, tasks, requests=None, duration_s=target.load_s)

        async def whole(_: float) -> None:
            await runner.closed(target.users)

        bill = await _billed(target, whole)
    return Load(summary=summarise(runner.progress.outcomes), bill=bill)


def asking(target: Target) -> Asking:
    """How requests are put."""
    return Asking(base_urls=(f"{target.url}/v1",), model=target.model)


def open_session(target: Target) -> aiohttp.ClientSession:
    """A session without limits whose requests the response cache leaves alone."""
    http = session(target.api_key, REQUEST_S)
    http.headers["Cache-Control"] = "no-store"
    return http


def _tasks() -> Iterator[Task]:
    rng = random.Random(time.time_ns())  # never the prompts of an earlier run: prefix caches keep them
    return synthetic(parse_length(PROMPT_TOKENS), parse_length(OUTPUT_TOKENS), rng)


async def _warm(client: Client, tasks: Iterator[Task], users: int) -> Client:
    """The client to measure with: without vLLM's own fields where the target refuses them."""
    errors: dict[str, int] = {}
    for one in (client, client.without_exact_output()):
        runner = Runner(one, tasks, requests=WARM_UP, duration_s=None)
        await runner.closed(min(users, WARM_UP))
        summary = summarise(runner.progress.outcomes)
        if summary.succeeded:
            return one
        errors = summary.errors
    raise CheckFailedError(f"No request succeeded ({', '.join(errors)}).")


async def _billed(target: Target, whole: Any) -> dict[str, Any] | None:
    """Run the load, and make its bill where there is a price."""
    if target.cost_per_hour is None:
        await whole(0.0)
        return None
    settings = CostSettings(cost_per_hour=target.cost_per_hour)
    figures = await cost.over_window(target.http, await _where(target), target.load_s, sleep=whole)
    return cost.report(settings, figures)


async def _where(target: Target) -> cost.Where:
    if target.admin_url is None:
        return cost.Where(target.url)
    rows = ready_rows(await status(target), target.model)
    engines = tuple(cost.Engine(target.model, row["revision"], row["url"]) for row in rows)
    return cost.Where(target.admin_url, f"{target.admin_url}/admin/status", engines, len(rows))
