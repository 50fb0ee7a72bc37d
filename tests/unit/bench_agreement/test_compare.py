"""The rules of agreement, at their edges."""

from __future__ import annotations

import pytest
from bench.agreement.compare import exact, same_bucket, within

BOUNDS = (0.1, 0.2, 0.3, 0.5)


@pytest.mark.parametrize(
    ("shown", "counted", "agrees"), [(7, 7, True), (7, 8, False), (0, None, False), (None, None, True)]
)
def test_counts_are_exact(shown: float | None, counted: float | None, agrees: bool) -> None:
    assert exact("requests", "/metrics", shown, counted).agrees is agrees


@pytest.mark.parametrize(
    ("shown", "counted", "agrees"),
    [(1.019, 1.0, True), (0.979, 1.0, False), (1.021, 1.0, False), (0.0, 0.0, True), (None, 1.0, False)],
)
def test_dollars_may_differ_by_two_percent_of_the_hand_calculation(
    shown: float | None, counted: float, agrees: bool
) -> None:
    assert within("dollars", "cost", shown, counted, 0.02).agrees is agrees


@pytest.mark.parametrize(
    ("shown", "counted", "agrees"),
    [
        (0.15, 0.2, True),
        (0.15, 0.21, True),
        (0.15, 0.31, False),
        (0.4, 0.9, True),
        (0.05, 0.9, False),
        (None, 0.1, False),
    ],
)
def test_percentiles_lie_in_one_bucket_or_in_its_neighbour(shown: float | None, counted: float, agrees: bool) -> None:
    assert same_bucket("TTFT p95", "/metrics", shown, counted, BOUNDS).agrees is agrees
