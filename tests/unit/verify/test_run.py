"""The frame of `inferdock verify`: order, limits, crashes, what a run lacks, and the judgement."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from inferdock.domain.errors import CheckFailedError, ConfigError, InconclusiveError
from inferdock.verify.check import Check, Evidence, Need, Outcome, Result
from inferdock.verify.run import chosen, judge, run_all

Run = Callable[[None], Awaitable[Evidence]]


async def _passes(_: None) -> Evidence:
    return Evidence(outcome=Outcome.PASS, sentence="seen")


async def _crashes(_: None) -> Evidence:
    raise ValueError("bytes are odd")


async def _times_out_itself(_: None) -> Evidence:
    raise TimeoutError("the target is slow")


async def _hangs(_: None) -> Evidence:
    await asyncio.Event().wait()
    raise AssertionError("never set")


def _check(name: str, run: Run = _passes, *needs: Need, limit_s: float = 30.0) -> Check[None]:
    return Check(id=name, line=name, run=run, needs=frozenset(needs), limit_s=limit_s)


def _result(name: str, outcome: Outcome) -> Result:
    return Result(id=name, line=name, evidence=Evidence(outcome=outcome, sentence=""), seconds=0.0)


async def test_a_crash_and_a_hang_are_failures_and_the_run_goes_on_in_order() -> None:
    heard: list[Result] = []
    checks = [
        _check("1.1.a", _crashes),
        _check("1.1.b", _hangs, limit_s=0.02),
        _check("1.1.c", _times_out_itself),
        _check("1.1.d"),
    ]
    results = await run_all(checks, None, lacking={}, told=heard.append)
    assert heard == results
    assert [(result.id, result.evidence.outcome.value, result.evidence.sentence) for result in results] == [
        ("1.1.a", "fail", "ValueError: bytes are odd"),
        ("1.1.b", "fail", "No answer within 0.02 s."),
        ("1.1.c", "fail", "TimeoutError: the target is slow"),
        ("1.1.d", "pass", "seen"),
    ]


async def test_a_check_that_lacks_something_is_not_run_and_says_how_to_give_it() -> None:
    checks = [_check("4.1.a", _crashes, Need.GPU, Need.AWS), _check("4.1.b", _passes, Need.TARGET)]
    first, second = await run_all(checks, None, lacking={Need.GPU: "Needs a GPU."})
    assert first.evidence == Evidence(outcome=Outcome.NEEDS, sentence="Needs a GPU.")
    assert second.evidence.outcome is Outcome.PASS


async def test_cancelling_the_run_is_not_a_failed_check() -> None:
    task = asyncio.create_task(run_all([_check("1.1.a", _hangs)], None, lacking={}))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("only", "skip", "expected"),
    [
        ((), (), ["1.1.a", "1.10.b", "3.2.c"]),
        (("1.1",), (), ["1.1.a"]),
        (("1.*",), ("1.10",), ["1.1.a"]),
        (("3.2.c", "1.1"), (), ["1.1.a", "3.2.c"]),
    ],
)
def test_chosen(only: tuple[str, ...], skip: tuple[str, ...], expected: list[str]) -> None:
    checks = [_check("1.1.a"), _check("1.10.b"), _check("3.2.c")]
    assert [check.id for check in chosen(checks, only=only, skip=skip)] == expected


def test_a_pattern_that_fits_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'9\.9'"):
        chosen([_check("1.1.a")], only=["9.9"])


def test_judgement() -> None:
    passed, failed, needy = (_result(outcome.value, outcome) for outcome in Outcome)
    judge([passed, needy])
    with pytest.raises(CheckFailedError, match="fail"):
        judge([passed, failed, needy])
    with pytest.raises(CheckFailedError, match="needs"):
        judge([passed, needy], strict=True)
    for strict in (False, True):
        with pytest.raises(InconclusiveError):
            judge([needy], strict=strict)
    with pytest.raises(InconclusiveError):
        judge([])
