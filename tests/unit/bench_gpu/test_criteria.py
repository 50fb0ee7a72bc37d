"""The knee of a sweep, verdicts and prices."""

from bench.gpu.criteria import PLAN, Step, dollars_per_million, find, find_price, knee

from inferdock.bench.slo import Verdict
from inferdock.bench.stats import Summary, distribution


def step(rate: float, goodput: float, ttft_s: float = 0.1, samples: int = 100) -> Step:
    figures = distribution([ttft_s] * samples)
    summary = Summary(
        requests=samples,
        succeeded=samples,
        errors={},
        duration_s=10.0,
        requests_per_s=rate,
        output_tokens_per_s=rate * 50,
        total_tokens_per_s=rate * 100,
        output_tokens=samples * 50,
        prompt_tokens=samples * 50,
        ttft=figures,
        tpot=figures,
        itl=figures,
        e2e=figures,
        goodput_per_s=goodput,
        counted_tokens=True,
        send_lag_p99_s=0.0,
    )
    return Step(rate=rate, summary=summary)


def test_the_knee_is_the_last_step_before_goodput_falls() -> None:
    found = knee([step(8, 3), step(1, 1), step(4, 4), step(16, 9)])
    assert found is not None
    assert found.rate == 4


def test_no_good_request_no_knee() -> None:
    assert knee([step(1, 0), step(2, 0)]) is None


def test_a_criterion_names_the_highest_rate_that_met_it() -> None:
    finding = find(PLAN[0], [step(1, 1), step(4, 4, 0.4), step(8, 0, 0.9)])
    assert (finding.verdict, finding.rate) == (Verdict.PASS, 4)


def test_a_criterion_met_nowhere_fails() -> None:
    assert find(PLAN[0], [step(1, 0, 0.9)]).verdict is Verdict.FAIL


def test_too_few_samples_are_no_verdict() -> None:
    assert find(PLAN[0], [step(1, 1, samples=5)]).verdict is Verdict.INCONCLUSIVE


def test_the_price_counts_every_token() -> None:
    assert dollars_per_million(step(10, 10).summary, 3.6) == 1.0


def test_the_price_is_judged_at_the_knee() -> None:
    steps = [step(10, 10), step(100, 1)]
    assert find_price(steps, 3.6).verdict is Verdict.FAIL
    assert find_price(steps, 1.8).rate == 10
    assert find_price([step(1, 0)], 1.8).verdict is Verdict.INCONCLUSIVE


def test_a_queue_that_only_begins_to_grow_is_beyond_the_knee() -> None:
    found = knee([step(100, 100), step(200, 170), step(400, 180)])
    assert found is not None
    assert found.rate == 200


def test_a_pass_beyond_the_first_miss_does_not_count() -> None:
    finding = find(PLAN[0], [step(1, 1), step(4, 0, 0.9), step(8, 8)])
    assert (finding.verdict, finding.rate) == (Verdict.PASS, 1)


def test_few_samples_at_the_lowest_rate_do_not_end_the_search() -> None:
    finding = find(PLAN[0], [step(1, 1, samples=5), step(4, 4)])
    assert (finding.verdict, finding.rate) == (Verdict.PASS, 4)


def test_requests_per_second_are_judged_at_the_knee() -> None:
    steps = [step(1, 1), step(8, 8), step(16, 8)]
    assert (find(PLAN[2], steps).verdict, find(PLAN[2], steps).value) == (Verdict.FAIL, 8)
    assert find(PLAN[2], [*steps[:1], step(16, 16)]).rate == 16
    assert find(PLAN[2], [step(100, 0)]).verdict is Verdict.FAIL
    assert find(PLAN[2], []).verdict is Verdict.INCONCLUSIVE
