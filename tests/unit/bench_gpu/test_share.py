"""The gateway's share from pairs of runs."""

import math

import pytest
from bench.gpu.share import share


def test_the_interval_is_the_range_of_the_differences() -> None:
    found = share([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.11, 0.22, 0.33, 0.44, 0.55, 0.66])
    assert found is not None
    assert (found.median, found.low, found.high) == pytest.approx((0.035, 0.01, 0.06))
    assert found.confidence == 1 - 2 / 2**6


def test_a_pair_without_a_value_is_left_out() -> None:
    found = share([0.1, math.nan], [0.2, 0.2])
    assert found is not None
    assert (found.pairs, found.confidence) == (1, 0)
    assert share([math.nan], [0.1]) is None


def test_runs_without_their_other_half_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        share([0.1, 0.2], [0.1])
