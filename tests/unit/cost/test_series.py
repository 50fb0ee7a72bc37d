"""Counters that restart, break off, lie and jump."""

import math
from fractions import Fraction

import pytest

from inferdock.cost.series import Series, growth, pair_up


def series(*points: tuple[float, float], from_zero: bool = False, **labels: str) -> Series:
    return Series("x_total", labels, points, from_zero)


@pytest.mark.parametrize(
    ("points", "amount", "resets", "ignored"),
    [
        ([], 0, 0, 0),
        ([(0, 5)], 0, 0, 0),
        ([(0, 5), (1, 7), (2, 12)], 7, 0, 0),
        ([(0, 5), (1, 2), (2, 4)], 4, 1, 0),
        ([(0, 5), (1, math.nan), (2, 8)], 3, 0, 1),
        ([(0, 5), (1, -3), (2, math.inf), (3, 8)], 3, 0, 2),
        ([(0, 5), (1, 1e300), (2, 8)], 3, 0, 1),
        ([(10, 5), (3, 7), (11, 8)], 3, 0, 1),
        ([(math.nan, 5), (1, 7), (2, 9)], 0, 0, 2),
    ],
    ids=["none", "one", "grows", "restart", "nan", "negative", "absurd", "clock-back", "no-clock"],
)
def test_growth(points, amount, resets, ignored):
    found = growth(series(*points))
    assert (found.amount, found.resets, found.ignored) == (amount, resets, ignored)


def test_a_counter_that_began_within_the_window_counts_from_zero():
    assert growth(series((0, 5), (1, 7), from_zero=True)).amount == 7


def test_fractions_are_kept():
    assert growth(series((0, 0.1), (1, 0.3))).amount == Fraction(0.3) - Fraction(0.1)


def test_two_readings_are_paired_by_name_and_labels():
    before = [series((0, 5), model="a"), series((0, 1), model="gone")]
    after = [series((1, 8), model="a"), series((1, 3), model="new")]
    found = {one.labels["model"]: growth(one).amount for one in pair_up(before, after)}
    assert found == {"a": 3, "new": 3}
