"""Ratios within rounds."""

from bench.gateway.compare import ratios, spread, turn_order, values
from hypothesis import given
from hypothesis import strategies as st

ROUNDS = [
    {"a": {"ours": {"x": 4.0}, "other": {"x": 2.0}}},
    {"a": {"ours": {"x": 9.0}, "other": {"x": 3.0}}},
    {"a": {"ours": {"x": 8.0}, "other": {}}},
]


def test_a_ratio_is_taken_within_its_round():
    assert ratios(ROUNDS, "x", ("a", "ours"), ("a", "other")) == [2.0, 3.0]


def test_a_round_without_one_side_gives_no_ratio():
    assert ratios(ROUNDS, "x", ("a", "ours"), ("a", "absent")) == []
    assert values(ROUNDS, "a", "other", "x") == [2.0, 3.0]


def test_nothing_is_divided_by_zero():
    assert ratios([{"a": {"ours": {"x": 1.0}, "other": {"x": 0.0}}}], "x", ("a", "ours"), ("a", "other")) == []


def test_a_spread_is_median_and_range():
    found = spread([3.0, 1.0, 2.0])
    assert found is not None
    assert found.as_dict() == {"median": 2.0, "min": 1.0, "max": 3.0, "rounds": 3}
    assert spread([]) is None


@given(st.lists(st.text(), unique=True), st.integers(0, 20))
def test_everyone_has_a_turn_in_each_round(names, number):
    assert sorted(turn_order(names, number)) == sorted(names)


def test_no_gateway_is_always_the_first():
    assert {turn_order(["a", "b", "c"], number)[0] for number in range(6)} == {"a", "b", "c"}
