"""Figures from outcomes, and verdicts on them."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.bench.client import Outcome
from inferdock.bench.slo import Verdict, good_request, judge, parse_objective
from inferdock.bench.stats import distribution, gaps_s, summarise, tpot_s, ttft_s
from inferdock.domain.errors import ConfigError
from inferdock.domain.percentile import percentile


def outcome(*, due: float = 0, ttft: float = 0.1, tokens: int = 5, tpot: float = 0.02, error: str = "") -> Outcome:
    arrivals = [due + ttft + i * tpot for i in range(tokens)]
    end = arrivals[-1] if arrivals else due
    return Outcome(due, due, due + ttft, end, arrivals, prompt_tokens=3, output_tokens=tokens, error=error)


def test_percentiles_are_linear_between_ranks():
    assert percentile([1, 2, 3, 4], 0.5) == 2.5
    assert percentile([5], 0.99) == 5
    assert math.isnan(percentile([], 0.5))


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=60))
def test_percentiles_rise_and_stay_within_the_samples(values):
    found = distribution(values)
    assert min(values) <= found.p50 <= found.p95 <= found.p99 <= max(values)


def test_ttft_and_tpot_of_one_request():
    one = outcome(ttft=0.1, tokens=5, tpot=0.02)
    assert ttft_s(one) == pytest.approx(0.1)
    assert tpot_s(one) == pytest.approx(0.02)
    assert gaps_s(one) == pytest.approx([0.02] * 4)


def test_tpot_is_absent_below_two_tokens():
    assert tpot_s(outcome(tokens=1)) is None


def test_several_tokens_in_one_read_do_not_make_them_free():
    one = outcome(tokens=5, tpot=0.02)
    one.output_tokens = 9
    assert tpot_s(one) == pytest.approx(0.08 / 8)


def test_waiting_for_a_late_client_counts_as_latency():
    late = outcome(ttft=0.5)
    late.sent_at = 0.4
    summary = summarise([late])
    assert summary.ttft.p50 == pytest.approx(0.5)
    assert summary.send_lag_p99_s == pytest.approx(0.4)


def test_failures_count_against_rates_and_are_told_by_kind():
    summary = summarise([outcome(), outcome(error="timeout"), outcome(error="timeout")])
    assert (summary.requests, summary.succeeded, summary.errors) == (3, 1, {"timeout": 2})
    assert summary.requests_per_s == pytest.approx(1 / summary.duration_s)


def test_nothing_at_all_is_no_crash():
    summary = summarise([])
    assert summary.requests_per_s == 0
    assert summary.as_dict()["ttft"]["p95"] is None


def test_goodput_counts_only_requests_that_met_every_limit():
    objectives = [parse_objective("ttft_p95=200ms"), parse_objective("tpot_p50=50ms")]
    good = good_request(objectives)
    summary = summarise([outcome(), outcome(ttft=0.3), outcome(tpot=0.2), outcome(error="x")], good)
    assert summary.goodput_per_s == pytest.approx(1 / summary.duration_s)


@pytest.mark.parametrize(
    ("text", "limit"),
    [("ttft_p95=500ms", 0.5), ("tpot_mean=1.5s", 1.5), ("error_rate=1%", 0.01), ("requests_per_s=60", 60)],
)
def test_objectives_are_read_with_their_units(text, limit):
    assert parse_objective(text).limit == limit


@pytest.mark.parametrize("text", ["", "ttft", "ttft_p95=500", "ttft_p90=1s", "error_rate=0.1", "x_p95=1s"])
def test_other_objectives_are_refused_with_examples(text):
    with pytest.raises(ConfigError, match="for instance"):
        parse_objective(text)


@pytest.mark.parametrize(
    ("count", "ttft", "verdict"), [(40, 0.1, Verdict.PASS), (40, 0.9, Verdict.FAIL), (39, 0.1, Verdict.INCONCLUSIVE)]
)
def test_too_few_samples_are_inconclusive(count, ttft, verdict):
    summary = summarise([outcome(due=i, ttft=ttft) for i in range(count)])
    assert judge(parse_objective("ttft_p95=500ms"), summary)[0] is verdict


def test_a_run_of_failures_misses_its_error_rate():
    rng = random.Random(1)
    summary = summarise([outcome(error="x" if rng.random() < 0.5 else "") for _ in range(50)])
    assert judge(parse_objective("error_rate=1%"), summary)[0] is Verdict.FAIL
