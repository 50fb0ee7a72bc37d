"""The knee of a sweep, what an autoscaler should aim at, and how fast a replica is."""

from __future__ import annotations

import math

import pytest

from inferdock.bench.slo import Verdict
from inferdock.bench.stats import Distribution, Summary
from inferdock.bench.sweep import Rung, aim, knee, reading, running, steps
from inferdock.cli.bench.sweep import _longer, parse_sweep
from inferdock.domain.errors import ConfigError


def flat(seconds: float, count: int = 100) -> Distribution:
    return Distribution(seconds, seconds, seconds, seconds, count)


def rung(users: int, *, rate: float = 1.0, ttft: float = 0.05, tpot: float = 0.01, met: bool = True, failed: int = 0,
         prompt: int = 32) -> Rung:  # fmt: skip
    summary = Summary(
        requests=100 + failed,
        succeeded=100,
        errors={"http 500": failed} if failed else {},
        duration_s=100 / rate,
        requests_per_s=rate,
        output_tokens_per_s=rate * 20,
        total_tokens_per_s=rate * 52,
        output_tokens=2000,
        prompt_tokens=prompt * 100,
        ttft=flat(ttft),
        tpot=flat(tpot),
        itl=flat(tpot),
        e2e=flat(ttft + 19 * tpot),
        goodput_per_s=None,
        send_lag_p99_s=0.0,
        counted_tokens=False,
    )
    return Rung(users, summary, (Verdict.PASS if met else Verdict.FAIL,))


def test_the_knee_is_the_last_rung_before_the_first_miss() -> None:
    rungs = [rung(1), rung(4), rung(8, met=False), rung(16)]
    assert knee(rungs) is rungs[1]
    assert knee([rung(1, met=False), rung(4)]) is None
    assert knee([rung(1), rung(4, failed=1)]).users == 1


def test_the_aim_leaves_room_and_is_for_one_replica() -> None:
    assert aim(rung(16), 1) == 12
    assert aim(rung(16), 2) == 6
    assert aim(rung(1), 1) == 1


def test_users_who_wait_are_not_in_work() -> None:
    alone, full = rung(1, rate=4.2), rung(64, rate=33, ttft=1.8)
    assert running(alone, alone, 1) == 1
    assert running(full, alone, 1) == 8  # 33/s for 0.24 s each
    assert running(full, alone, 2) == 4
    assert steps([alone, full], 1) == [(1, 0.01), (8, 0.01)]


def test_reading_is_told_by_two_lengths() -> None:
    short, long = rung(1, ttft=0.09, prompt=50).summary, rung(1, ttft=0.24, prompt=200).summary
    per_token, overhead = reading(short, long)
    assert per_token == pytest.approx(0.001)
    assert overhead == pytest.approx(0.09 - 0.05 - 0.01)
    assert reading(long, short)[0] == 0.0  # noise never makes a prompt free of time, nor negative
    assert all(map(math.isfinite, reading(short, short)))


@pytest.mark.parametrize(
    ("text", "longer"), [("32", "128"), ("uniform:5:10", "uniform:20:40"), ("lognormal:50:0.6", "lognormal:200:0.6")]
)
def test_prompts_several_times_as_long(text: str, longer: str) -> None:
    assert _longer(text) == longer


@pytest.mark.parametrize("text", ["", "0", "1,", "a", "1 2", "1,,2", "999999", "-1"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"sweep|list"):
        parse_sweep(text)


def test_a_list_is_put_in_order() -> None:
    assert parse_sweep("8,1,4,4") == (1, 4, 8)
