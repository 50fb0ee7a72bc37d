"""The load: one run at one rate, runs in turns on both sides, and the sweep of rates."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

from bench.gpu.criteria import PLAN, Step, knee
from bench.gpu.engines import MODEL
from bench.gpu.forms import Form
from inferdock.bench.arrivals import poisson
from inferdock.bench.client import Asking, Client, session
from inferdock.bench.runner import Runner
from inferdock.bench.slo import good_request
from inferdock.bench.stats import Summary, summarise
from inferdock.bench.workload import Task, parse_length, synthetic
from inferdock.domain.errors import CheckFailedError

SIDES: Final = ("direct", "gateway")
TIMEOUT_S: Final = 60.0
"""A request that takes longer counts as failed; it bounds how long a step beyond the knee drags on."""
_WARM_REQUESTS: Final = 64
_WARM_USERS: Final = 16
_HALVINGS: Final = 2
"""How far below its first rate a sweep goes."""

Runs = dict[str, Summary]
"""A run by side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """The two addresses of one engine (with /v1), and what is sent to them."""

    urls: dict[str, str]
    form: Form
    seed: int

    async def run(self, side: str, rate: float, seconds: float) -> Summary:
        """Poisson arrivals at a rate; runs of one rate have equal arrivals and prompts on both sides."""
        asking = Asking(base_urls=(self.urls[side],), model=MODEL, chat=False)
        tasks = _tasks(self.form, random.Random(self.seed))
        async with session(None, TIMEOUT_S) as http:
            runner = Runner(Client(http, asking), tasks, requests=None, duration_s=seconds)
            await runner.open(poisson(rate, random.Random(self.seed)))
        return summarise(runner.progress.outcomes, good_request(PLAN))

    async def both(self, rate: float, seconds: float, turn: int) -> Runs:
        """One side after the other; every second turn the other way round."""
        order = SIDES if turn % 2 == 0 else SIDES[::-1]
        return {side: await self.run(side, rate, seconds) for side in order}

    async def warm(self) -> None:
        """Compile, fill pools, and see that answers come as asked; not counted.

        Raises:
            CheckFailedError: an answer failed, or came without its text or its count of tokens.
        """
        for side in SIDES:
            asking = Asking(base_urls=(self.urls[side],), model=MODEL, chat=False)
            async with session(None, TIMEOUT_S) as http:
                tasks = _tasks(self.form, random.Random(self.seed))
                runner = Runner(Client(http, asking), tasks, requests=_WARM_REQUESTS, duration_s=None)
                await runner.closed(_WARM_USERS)
            for outcome in runner.progress.outcomes:
                if outcome.error or outcome.first_at is None or outcome.output_tokens != self.form.output_tokens:
                    what = outcome.error or f"{outcome.output_tokens} tokens, with or without text"
                    raise CheckFailedError(
                        f"The {side} side answers the warm-up with {what} instead of {self.form.output_tokens} of text."
                    )


def _tasks(form: Form, rng: random.Random) -> Iterator[Task]:
    return synthetic(parse_length(str(form.prompt_tokens)), parse_length(str(form.output_tokens)), rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Steps by side, and why no higher rate was tried."""

    steps: dict[str, list[Step]]
    stopped: str


async def sweep(
    both: Callable[[float, int], Awaitable[Runs]],
    form: Form,
    deadline: float,
    clock: Callable[[], float] = time.monotonic,
) -> Sweep:
    """Double the rate until the knee is passed on both sides, then look between it and the next rate.

    An engine that serves nobody well at the first rate is tried at lower ones.

    Args:
        both: runs a rate on both sides; its second argument counts the steps.
        deadline: on the clock; no step begins after it.
    """
    steps: dict[str, list[Step]] = {side: [] for side in SIDES}
    turn, rate, stopped = 0, form.first_rate, "highest rate reached"
    lowest = form.first_rate / 2**_HALVINGS

    async def step(rate: float) -> None:
        nonlocal turn
        for side, summary in (await both(rate, turn)).items():
            steps[side].append(Step(rate=rate, summary=summary))
        turn += 1

    while rate <= form.last_rate:
        if clock() >= deadline:
            return Sweep(steps=steps, stopped="time was up")
        await step(rate)
        if all(knee(found) is None for found in steps.values()):
            if rate <= lowest:
                return Sweep(steps=steps, stopped="nobody was served well even at the lowest rate")
            rate /= 2
            continue
        if all(_passed(found) for found in steps.values()):
            stopped = "more load no longer brought more goodput, on both sides"
            break
        rate *= 2
    for _ in range(form.refinements):
        between = _between(steps["gateway"])
        if between is None:
            break
        if clock() >= deadline:
            return Sweep(steps=steps, stopped=f"{stopped}; there was no time to look closer")
        await step(between)
    return Sweep(steps=steps, stopped=stopped)


def _passed(steps: list[Step]) -> bool:
    found = knee(steps)
    return found is None or found.rate < max(step.rate for step in steps)


def _between(steps: list[Step]) -> float | None:
    found = knee(steps)
    above = [step.rate for step in steps if found is not None and step.rate > found.rate]
    return float(f"{(found.rate * min(above)) ** 0.5:.3g}") if found is not None and above else None
