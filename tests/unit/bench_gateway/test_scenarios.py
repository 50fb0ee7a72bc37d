"""Figures from what the load generator prints."""

import json

import pytest
from bench.gateway.scenarios import FIGURES, SCENARIOS, Variant, figures, late_to_early, text

RESULT = {
    "wall_s": 2.0, "cpu_s": 0.5, "user_s": 0.3, "system_s": 0.1, "requests": 1000, "tokens": 0, "reads": 1000,
    "latency_us": {"count": 1000, "p50": 80.0, "p99": 300.0}, "ttft_us": {"count": 0}, "windows": [],
}  # fmt: skip


def test_requests_are_divided_by_the_time_of_the_processor():
    found = figures(RESULT)
    assert found["requests_per_cpu_s"] == 2000
    assert found["cpu_us_per_request"] == 500
    assert found["requests_per_s"] == 500
    assert found["core_share"] == 0.25
    assert found["user_share"] == pytest.approx(0.75)


def test_a_direct_run_has_no_figures_of_the_processor():
    found = figures({**RESULT, "cpu_s": 0.0})
    assert "requests_per_cpu_s" not in found
    assert found["latency_p50_us"] == 80


def test_streams_are_judged_by_their_chunks():
    found = figures({**RESULT, "requests": 0, "tokens": 10_000, "ttft_us": {"count": 2, "p50": 1500.0, "p99": 2000.0}})
    assert found["tokens_per_cpu_s"] == 20_000
    assert found["chunks_per_read"] == 10
    assert found["ttft_p50_ms"] == 1.5


def test_drift_compares_the_cost_after_a_minute_with_the_first_seconds():
    cheap = [[float(second), second * 100.0, second * 1.0] for second in range(1, 61)]
    dear = [[float(second), second * 100.0, 60.0 + (second - 60) * 1.5] for second in range(61, 71)]
    assert late_to_early(cheap + dear) == pytest.approx(1.5)


@pytest.mark.parametrize("size", [0, 1, 1024, 220_000])
def test_a_prompt_has_exactly_the_size_asked_for(size):
    assert len(text(size).encode()) == size


def test_a_body_is_json_that_says_what_is_wanted():
    body = json.loads(Variant("x", "run", tokens=7).body())
    assert (body["stream"], body["max_tokens"], body["model"]) == (True, 7, "m")
    assert "stream" not in json.loads(Variant("x").body())


def test_a_shorter_run_still_has_a_stream_for_each_connection():
    assert Variant("x", "run", connections=100, streams=200).scaled(0.1).streams == 100


def test_each_scenario_compares_a_known_figure_and_has_a_name_of_its_own():
    assert all(scenario.figure in FIGURES for scenario in SCENARIOS)
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    assert all(len({v.label for v in scenario.variants}) == len(scenario.variants) for scenario in SCENARIOS)
