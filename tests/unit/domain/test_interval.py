"""Wilson's interval."""

from __future__ import annotations

import math

import pytest

from inferdock.domain.interval import wilson


@pytest.mark.parametrize(
    ("wrong", "right", "low", "high"),
    [
        pytest.param(0, 10, 0.0, 0.2775, id="none of 10"),
        pytest.param(1, 9, 0.0179, 0.4042, id="1 of 10"),
        pytest.param(5, 5, 0.2366, 0.7634, id="half of 10"),
        pytest.param(10, 0, 0.7225, 1.0, id="all of 10"),
        pytest.param(81, 182, 0.2553, 0.3662, id="81 of 263 (Newcombe 1998, table I)"),
        pytest.param(15, 133, 0.0624, 0.1605, id="15 of 148 (Newcombe 1998, table I)"),
        pytest.param(0, 20, 0.0, 0.1611, id="none of 20 (Newcombe 1998, table I)"),
        pytest.param(1, 28, 0.0061, 0.1718, id="1 of 29 (Newcombe 1998, table I)"),
    ],
)
def test_intervals_are_those_of_the_literature(wrong: int, right: int, low: float, high: float) -> None:
    interval = wilson(wrong, right)
    assert interval.low == pytest.approx(low, abs=6e-5)
    assert interval.high == pytest.approx(high, abs=6e-5)
    assert interval.point == wrong / (wrong + right)


def test_without_samples_all_is_possible() -> None:
    interval = wilson(0, 0)
    assert (interval.low, interval.high, interval.samples) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize(("wrong", "right"), [(-1, 5), (1, -5), (math.nan, 1), (math.inf, 1)])
def test_counts_that_are_none_are_refused(wrong: float, right: float) -> None:
    with pytest.raises(ValueError, match="counts must be"):
        wilson(wrong, right)
