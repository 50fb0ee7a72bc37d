"""Reading gauges from the Prometheus text format."""

import pytest

from inferdock.wire.prometheus_text import read_sums

TEXT = """# HELP vllm:num_requests_waiting Waiting.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="a"} 2.0
vllm:num_requests_waiting{engine="1",model_name="a } b"} 3.0
vllm:num_requests_waiting_by_reason{engine="0"} 9.0
plain 7 1700000000
"""


def test_samples_are_summed_over_labels():
    assert read_sums(TEXT, ["vllm:num_requests_waiting"]) == {"vllm:num_requests_waiting": 5.0}


def test_a_time_stamp_behind_the_value_is_not_the_value():
    assert read_sums(TEXT, ["plain"]) == {"plain": 7.0}


def test_missing_names_are_absent_not_zero():
    assert read_sums(TEXT, ["absent"]) == {}


@pytest.mark.parametrize("line", ["x{", "x", "x NaN", "x +Inf", 'x{a="b"}', 'x{a="b"} abc', "{} 1", "\x00"])
def test_lines_without_a_finite_value_are_skipped(line):
    assert read_sums(line, ["x"]) == {}
