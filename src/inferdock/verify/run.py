"""Runs checks one after another: a limit on each, and a crash of one is its failure, never the end of the run."""

from __future__ import annotations

import asyncio
import fnmatch
import time
from collections.abc import Callable, Mapping, Sequence

from inferdock.domain.errors import CheckFailedError, ConfigError, InconclusiveError
from inferdock.verify.check import C, Check, Evidence, Need, Outcome, Result


def chosen(checks: Sequence[Check[C]], *, only: Sequence[str] = (), skip: Sequence[str] = ()) -> list[Check[C]]:
    """Checks of the wanted ids, in their order; `2.3` means everything of that step, and `*` stands for anything.

    Raises:
        ConfigError: a pattern fits no check.
    """
    for pattern in (*only, *skip):
        if not any(_fits(check.id, pattern) for check in checks):
            raise ConfigError(f"No check fits {pattern!r}.", cure="Name a step of the plan, such as 2.3 or 3.*.")
    wanted = [check for check in checks if not only or any(_fits(check.id, pattern) for pattern in only)]
    return [check for check in wanted if not any(_fits(check.id, pattern) for pattern in skip)]


async def run_all(
    checks: Sequence[Check[C]],
    context: C,
    *,
    lacking: Mapping[Need, str],
    told: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """Run every check in order.

    Args:
        lacking: what this run cannot offer, with a sentence on how to give it.
        told: hears of each result as it comes.
    """
    results = []
    for check in checks:
        started = time.monotonic()
        evidence = await _evidence(check, context, lacking)
        result = Result(id=check.id, line=check.line, evidence=evidence, seconds=time.monotonic() - started)
        told(result)
        results.append(result)
    return results


def judge(results: Sequence[Result], *, strict: bool = False) -> None:
    """Raise unless everything that ran passed.

    Raises:
        CheckFailedError: a check failed, or with `strict` one was not run.
        InconclusiveError: nothing could be run.
    """
    bad = {Outcome.FAIL, Outcome.NEEDS} if strict else {Outcome.FAIL}
    ids = [result.id for result in results if result.evidence.outcome in bad]
    ran = any(result.evidence.outcome is not Outcome.NEEDS for result in results)
    if not ran:
        raise InconclusiveError("No check could be run.", cure="Give what the checks say they need.")
    if ids:
        raise CheckFailedError(f"Not as it should be: {', '.join(ids)}.", cure="The report says what was seen.")


def _fits(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")


async def _evidence(check: Check[C], context: C, lacking: Mapping[Need, str]) -> Evidence:
    missing = [lacking[need] for need in Need if need in check.needs and need in lacking]
    if missing:
        return Evidence(outcome=Outcome.NEEDS, sentence=" ".join(missing))
    deadline = asyncio.timeout(check.limit_s)
    try:
        async with deadline:
            return await check.run(context)
    except Exception as error:  # whatever a check meets is its own result
        if deadline.expired():
            return Evidence(outcome=Outcome.FAIL, sentence=f"No answer within {check.limit_s:g} s.")
        return Evidence(outcome=Outcome.FAIL, sentence=f"{type(error).__name__}: {error}")
