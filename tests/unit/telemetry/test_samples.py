"""Samples with labels, from expositions good and bad."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.domain.errors import UnreachableError
from inferdock.telemetry.samples import Sample, read_samples

TEXT = """\
# HELP a_total Things.
# TYPE a_total counter
a_total{x="one \\"}\\" more",y="\\n"} 3 1700000000000
a_total 4.5
a_total_more 9
b{le="+Inf"} NaN
"""


def test_only_the_wanted_names_are_read():
    found = read_samples(TEXT, {"a_total"})
    assert found == [Sample("a_total", {"x": 'one "}" more', "y": "\n"}, 3.0), Sample("a_total", {}, 4.5)]


def test_any_number_is_passed_on_for_others_to_judge():
    (one,) = read_samples(TEXT, {"b"})
    assert math.isnan(one.value)
    assert [sample.value for sample in read_samples("a -3\na +Inf\n", {"a"})] == [-3.0, math.inf]


def test_nothing_is_nothing():
    assert read_samples("", {"a"}) == []


@pytest.mark.parametrize("line", ['a{x="1} 2', "a", "a x", "a{x} 1", 'a{x="1"}'])
def test_a_line_that_makes_no_sense_is_an_error(line):
    with pytest.raises(UnreachableError, match="cannot be read"):
        read_samples(f"{line}\n", {"a"})


@given(st.text(alphabet='a{}="\\ ,\n0.1eE+-NaInf#\x00\u2028', max_size=60))
def test_rubbish_is_read_or_refused_and_nothing_else(text):
    try:
        found = read_samples(f"a{text}", {"a"})
    except UnreachableError:
        return
    assert all(isinstance(one.value, float) for one in found)
