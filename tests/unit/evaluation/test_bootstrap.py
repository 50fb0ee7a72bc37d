"""Intervals on samples whose right answer is known."""

from __future__ import annotations

import math
import random

import pytest

from inferdock.evaluation.bootstrap import Drawing, Row, estimates


def mean(sums):
    return (sums[1] / sums[0],)


def shares(right: int, of: int) -> list[Row]:
    return [(1.0, float(place < right)) for place in range(of)]


def test_equal_values_have_no_width():
    (found,) = estimates([(1.0, 0.3)] * 50, mean, Drawing(resamples=300))
    assert found.low == pytest.approx(0.3)
    assert found.high == pytest.approx(0.3)


def test_the_interval_of_a_mean_is_about_that_of_the_normal_distribution():
    rng = random.Random(3)
    rows = [(1.0, rng.gauss(5.0, 2.0)) for _ in range(400)]
    (found,) = estimates(rows, mean, Drawing())
    assert found.high - found.low == pytest.approx(2 * 1.96 * 2.0 / 20, rel=0.15)


def test_a_share_near_one_gets_more_room_below_than_above():
    """Exact (Clopper and Pearson 1934) for 97 of 100: 0.915 to 0.994."""
    (found,) = estimates(shares(97, 100), mean, Drawing(resamples=4_000))
    assert found.value - found.low > found.high - found.value
    assert found.low == pytest.approx(0.915, abs=0.025)
    assert found.high == pytest.approx(0.994, abs=0.01)


def test_pairs_stay_together_so_a_shared_spread_cancels():
    rng = random.Random(5)
    rows = [(1.0, x, 1.0, x - 0.1) for x in (rng.random() for _ in range(200))]
    (found,) = estimates(rows, lambda s: (s[3] / s[2] - s[1] / s[0],), Drawing())
    assert found.low == pytest.approx(-0.1)
    assert found.high == pytest.approx(-0.1)


def test_equal_seeds_give_equal_intervals_and_others_do_not():
    rows = [(1.0, math.sin(i)) for i in range(60)]
    one, two, other = (estimates(rows, mean, Drawing(resamples=300, seed=seed))[0] for seed in (1, 1, 2))
    assert one == two
    assert one != other


def test_a_higher_confidence_is_wider():
    rows = shares(30, 60)
    (narrow,), (wide,) = (estimates(rows, mean, Drawing(level=level)) for level in (0.8, 0.99))
    assert wide.low < narrow.low
    assert wide.high > narrow.high


def test_many_tasks_are_dealt_into_blocks_and_keep_their_width():
    (found,) = estimates(shares(5_000, 10_000), mean, Drawing(resamples=1_000))
    assert found.value == pytest.approx(0.5)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.5 / 100, rel=0.15)


def test_infinite_values_are_ordered_and_never_nan():
    def ratio(sums):
        return (sums[1] / sums[0] if sums[0] else math.inf,)

    (found,) = estimates([(1.0, 1.0), (0.0, 1.0), (0.0, 1.0)], ratio, Drawing(resamples=300))
    assert (found.value, found.high) == (3.0, math.inf)
    assert not math.isnan(found.low)


def test_one_task_is_an_interval_of_itself():
    (found,) = estimates([(1.0, 1.0)], mean, Drawing(resamples=200))
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
