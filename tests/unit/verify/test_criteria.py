"""The success criteria, judged on figures that were measured before: right ones, and each of them wrong."""

from __future__ import annotations

import math
from typing import Any

import aiohttp
import pytest

from inferdock.app.verify.criteria import CHECKS
from inferdock.app.verify.drill import Drill
from inferdock.app.verify.load import Load
from inferdock.app.verify.target import Target
from inferdock.bench.client import Outcome
from inferdock.bench.stats import summarise
from inferdock.domain.errors import CheckFailedError
from inferdock.verify.run import run_all


def _load(
    *, ttft: float = 0.1, gap: float = 0.01, count: int = 100, seconds: float = 1.0, failed: int = 0, dollars: Any = 0.1
) -> Load:
    outcomes = []
    for number in range(count):
        at = number * seconds / count
        first = at + ttft
        outcomes.append(
            Outcome(
                due_at=at,
                sent_at=at,
                first_at=first,
                ended_at=first + gap,
                arrivals=[first, first + gap],
                prompt_tokens=2,
                output_tokens=2,
                error="http 503" if number < failed else "",
            )
        )
    return Load(summary=summarise(outcomes), bill={"total": {"dollars_per_million": {"blended": dollars}}})


def _drill(**changed: Any) -> Drill:
    right: dict[str, Any] = {
        "flip_s": 0.1,
        "command_s": 2.0,
        "state": "rolled_back",
        "streams": 9,
        "errors": {},
        "short": 0,
    }
    return Drill(**right | changed)


async def _outcomes(load: Any = None, drill: Any = None, price: float | None = 1.0) -> dict[str, str]:
    async with aiohttp.ClientSession() as http:
        measured = {"load": load or _load(), "drill": drill or _drill()}
        target = Target(url="http://x", model="m", http=http, cost_per_hour=price, measured=measured)
        results = await run_all(CHECKS, target, lacking={})
    return {one.id.removeprefix("criteria."): one.evidence.outcome.value for one in results}


@pytest.mark.parametrize(
    ("given", "broken"),
    [
        ({}, {}),
        ({"load": _load(ttft=0.6)}, {"ttft": "fail"}),
        ({"load": _load(gap=0.06)}, {"tpot": "fail"}),
        ({"load": _load(seconds=20)}, {"throughput": "fail"}),
        ({"load": _load(failed=1)}, {"failures": "fail"}),
        ({"load": _load(failed=60)}, {"failures": "fail", "ttft": "fail", "tpot": "fail"}),
        ({"load": _load(count=5, seconds=0.1)}, {"ttft": "needs", "tpot": "needs"}),
        ({"load": _load(dollars=0.61)}, {"cost": "fail"}),
        ({"load": _load(dollars=None)}, {"cost": "fail"}),
        ({"price": None}, {"cost": "needs"}),
        ({"drill": _drill(command_s=61)}, {"rollback": "fail"}),
        ({"drill": _drill(flip_s=math.inf)}, {"rollback": "fail"}),
        ({"drill": _drill(state="failed")}, {"rollback": "fail"}),
        ({"drill": _drill(errors={"stream cut": 1})}, {"downtime": "fail"}),
        ({"drill": _drill(short=1)}, {"downtime": "fail"}),
        ({"drill": _drill(streams=0)}, {"downtime": "fail"}),
        ({"drill": CheckFailedError("It ended.")}, {"downtime": "fail", "rollback": "fail"}),
    ],
)
async def test_only_what_is_wrong_fails(given: dict[str, Any], broken: dict[str, str]) -> None:
    outcomes = await _outcomes(**given)
    assert outcomes == {name: broken.get(name, "pass") for name in outcomes}
    assert set(broken) <= set(outcomes)
