"""The threshold follows the size of a partition."""

from __future__ import annotations

import pytest

from inferdock.cache.thresholds import HIGHEST, threshold

SIZES = {"empty": (0, 0.95), "a thousand": (1000, 0.95), "ten thousand": (10_000, 0.96), "a million": (1_000_000, 0.98)}


@pytest.mark.parametrize(("entries", "expected"), SIZES.values(), ids=SIZES)
def test_ten_times_the_entries_cost_a_hundredth(entries: int, expected: float) -> None:
    assert threshold(0.95, entries) == pytest.approx(expected)


def test_what_was_tightened_comes_on_top() -> None:
    assert threshold(0.95, 10, tightened=0.02) == pytest.approx(0.97)
    assert threshold(0.95, 10, tightened=-1.0) == 0.95


def test_it_ends_below_one_and_never_under_the_base() -> None:
    assert threshold(0.99, 10**9, tightened=1.0) == HIGHEST
    assert threshold(1.0, 10) == 1.0
