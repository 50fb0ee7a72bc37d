"""What the checks of all phases share: how they say what they saw, and how they say that something is missing."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from inferdock.app.verify.target import Target
from inferdock.verify.check import Check, Evidence, Need, Outcome

Run = Callable[[Target], Awaitable[Evidence]]
POLL_S: Final = 0.2


class LackingError(Exception):
    """A check met something that it cannot do without; the sentence says how to give it."""


def check(name: str, line: str, run: Run, *needs: Need, limit_s: float = 30.0) -> Check[Target]:
    """A check that may find out on its way that something is missing."""
    return Check(id=name, line=line, run=_or_needs(run), needs=frozenset(needs), limit_s=limit_s)


def _or_needs(run: Run) -> Run:
    @functools.wraps(run)
    async def settled(target: Target) -> Evidence:
        try:
            return await run(target)
        except LackingError as missing:
            return Evidence(outcome=Outcome.NEEDS, sentence=str(missing))

    return settled


def verdict(good: bool, sentence: str, command: str = "", **figures: float) -> Evidence:
    """Evidence of a check that was run."""
    outcome = Outcome.PASS if good else Outcome.FAIL
    return Evidence(outcome=outcome, sentence=sentence, figures=figures, command=command)


def faultless(faults: Sequence[str], sentence: str, command: str = "", **figures: float) -> Evidence:
    """Evidence of a check that looks for faults; the first of them are told."""
    return verdict(not faults, " ".join(faults[:5]) or sentence, command, **figures)


async def until(look: Callable[[], Awaitable[bool]], within_s: float = float("inf")) -> bool:
    """Look again and again until something is so; whether it was in time."""
    clock = asyncio.get_running_loop()
    deadline = clock.time() + within_s
    while True:
        if await look():
            return True
        if clock.time() >= deadline:
            return False
        await asyncio.sleep(POLL_S)
