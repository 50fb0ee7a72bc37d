"""Figures and verdicts, on numbers that can be looked up or counted by hand."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from inferdock.domain.verdict import Verdict
from inferdock.release.judging.analysis import STRICT_LOOK, judge, needed
from inferdock.release.judging.figures import NOTHING, Counts, Histogram, histogram, since
from inferdock.release.steps import Limits

BOUNDS = (0.1, 0.2, 0.5, 1.0)
OFF: dict[str, Any] = {
    "error_rate": None,
    "error_increase": None,
    "ttft_p95_s": None,
    "tpot_p50_s": None,
    "ttft_ratio": None,
    "tpot_ratio": None,
}


def only(**limits: Any) -> Limits:
    return Limits(**{**OFF, **limits})


def of(requests: int = 1000, errors: int = 0, ttft: list[float] | None = None) -> Counts:
    return Counts(requests=requests, errors=errors, ttft=histogram(BOUNDS, ttft or []))


def measured(canary: Counts, stable: Counts | None, limits: Limits, **more: Any) -> dict[str, Any]:
    finding = judge(canary, stable, limits, **more)
    (one,) = finding.evidence["limits"]
    return {**one, "overall": finding.verdict}


def test_a_share_has_wilsons_interval() -> None:
    # Newcombe 1998 (Statistics in Medicine 17, 857-872), table I: 81 of 263, Wilson's method: 0.2553 to 0.3662.
    one = measured(of(263, 81), None, only(error_rate=0.5))
    assert (one["low"], one["high"]) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))


def test_a_difference_has_newcombes_interval() -> None:
    # Newcombe 1998 (Statistics in Medicine 17, 873-890), table II (a), method 10: 56/70 - 48/80: 0.0524 to 0.3339.
    limits = only(error_increase=0.9, min_requests=50)
    one = measured(of(70, 56), of(80, 48), limits)
    assert (one["low"], one["high"]) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


@pytest.mark.parametrize(
    ("errors", "requests", "verdict"),
    [
        (0, 9, Verdict.INCONCLUSIVE),
        (0, 49, Verdict.INCONCLUSIVE),
        (0, 100, Verdict.INCONCLUSIVE),
        (0, 189, Verdict.PASS),
        (3, 100, Verdict.INCONCLUSIVE),
        (10, 10, Verdict.FAIL),
        (9, 9, Verdict.INCONCLUSIVE),
        (60, 1000, Verdict.FAIL),
        (5, 1000, Verdict.PASS),
    ],
)
def test_a_share_of_errors_passes_or_fails_only_where_that_is_sure(
    errors: int, requests: int, verdict: Verdict
) -> None:
    assert judge(of(requests, errors), None, only(error_rate=0.02)).verdict is verdict


def test_as_many_requests_as_are_needed_pass_and_one_fewer_does_not() -> None:
    for share in (0.5, 0.1, 0.02, 0.001):
        limits = only(error_rate=share, min_requests=1, min_to_fail=1)
        count = needed(limits)
        assert judge(of(count), None, limits).verdict is Verdict.PASS
        assert judge(of(count - 1), None, limits).verdict is Verdict.INCONCLUSIVE


def test_no_limit_passes_once_there_are_enough_requests() -> None:
    assert judge(of(49), None, only()).verdict is Verdict.INCONCLUSIVE
    assert judge(of(50), None, only()).verdict is Verdict.PASS


def test_a_revision_that_answered_nothing_is_no_revision_to_judge() -> None:
    finding = judge(NOTHING, of(), Limits())
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert "0 requests" in finding.reason


@pytest.mark.parametrize(
    ("times", "verdict"),
    [
        ([0.05] * 990 + [0.9] * 10, Verdict.PASS),
        ([0.05] * 900 + [0.9] * 100, Verdict.FAIL),
        ([0.05] * 95 + [0.9] * 5, Verdict.INCONCLUSIVE),
        ([0.9] * 9, Verdict.INCONCLUSIVE),
    ],
    ids=["1 % slow", "10 % slow", "5 % slow", "too few"],
)
def test_a_percentile_passes_or_fails_only_where_that_is_sure(times: list[float], verdict: Verdict) -> None:
    assert judge(of(1000, ttft=times), None, only(ttft_p95_s=0.5)).verdict is verdict


def test_what_breaks_for_the_stable_revision_too_is_not_the_new_ones_fault() -> None:
    slow = of(ttft=[0.9] * 1000)
    finding = judge(slow, slow, only(ttft_p95_s=0.5))
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert "stable revision breaks too" in finding.reason


@pytest.mark.parametrize(
    ("mine", "verdict"),
    [
        ([0.05] * 1000, Verdict.PASS),
        ([0.4] * 1000, Verdict.FAIL),
        ([0.4] * 9, Verdict.INCONCLUSIVE),
        ([], Verdict.INCONCLUSIVE),
    ],
    ids=["as fast", "four times", "too few", "no streams"],
)
def test_a_ratio_of_percentiles_is_judged_with_both_ones_doubt(mine: list[float], verdict: Verdict) -> None:
    assert judge(of(ttft=mine), of(ttft=[0.05] * 1000), only(ttft_ratio=1.5)).verdict is verdict


def test_a_ratio_needs_a_stable_revision_with_traffic() -> None:
    assert judge(of(ttft=[0.9] * 1000), None, only(ttft_ratio=1.5)).verdict is Verdict.PASS
    assert judge(of(ttft=[0.9] * 1000), of(ttft=[0.05] * 9), only(ttft_ratio=1.5)).verdict is Verdict.PASS


def test_values_beyond_the_last_bound_are_judged_and_spelt_without_infinity() -> None:
    finding = judge(of(ttft=[99.0] * 1000), of(ttft=[0.05] * 1000), only(ttft_p95_s=0.5, ttft_ratio=1.5))
    assert finding.verdict is Verdict.FAIL
    assert b"null" in msgspec.json.encode(dict(finding.evidence))


def test_the_more_often_one_looks_the_surer_one_must_be() -> None:
    limits = only(error_rate=0.02)
    borderline = of(1000, 32)
    assert judge(borderline, None, limits).verdict is Verdict.FAIL
    assert judge(borderline, None, limits, look=STRICT_LOOK).verdict is Verdict.INCONCLUSIVE


def test_the_reason_names_the_limit_and_the_numbers() -> None:
    reason = judge(of(1000, 60), of(), Limits()).reason
    assert "error_rate 0.06" in reason
    assert "breaks 0.02" in reason


@pytest.mark.parametrize(("share", "value"), [(0.0, 0.0), (0.25, 0.05), (0.5, 0.1), (0.75, 0.15), (1.0, 0.2)], ids=str)
def test_a_quantile_lies_linearly_in_its_bucket(share: float, value: float) -> None:
    assert Histogram((0.1, 0.2), (2, 2, 0)).at(share) == pytest.approx(value)


def test_a_quantile_above_all_bounds_is_infinite_and_none_is_nothing() -> None:
    assert math.isinf(Histogram((0.1,), (0, 5)).at(0.5))
    assert Histogram((0.1,), (0, 0)).at(0.5) == 0


@pytest.mark.parametrize(
    ("bounds", "numbers"), [((0.2, 0.1), (0, 0, 0)), ((0.1,), (0,)), ((0.0, 0.1), (0, 0, 0)), ((float("nan"),), (0, 0))]
)
def test_what_is_no_histogram_is_refused(bounds: tuple[float, ...], numbers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="histogram"):
        Histogram(bounds, numbers)


def test_more_failures_than_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="more errors"):
        Counts(requests=1, errors=2)


def test_a_window_is_the_difference_of_two_readings() -> None:
    assert since(of(10, 1, [0.05]), of(30, 2, [0.05, 0.3])) == of(20, 1, [0.3])


@pytest.mark.parametrize(
    "now",
    [of(5), of(20, 0), Counts(requests=30, errors=1, ttft=histogram((0.3,), [0.1] * 9)), of(30, 1, [0.3])],
    ids=["fewer requests", "fewer errors", "other buckets", "fewer observations"],
)
def test_totals_that_fell_mean_that_counting_began_anew(now: Counts) -> None:
    assert since(of(10, 1, [0.05, 0.05]), now) == now
