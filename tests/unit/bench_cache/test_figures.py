"""The arithmetic of the cache's benchmark."""

from __future__ import annotations

import random
import statistics

import pytest
from bench.cache.figures import Round, all_hit, percentile, percentiles, ratio, score, summary
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("count", "percent", "expected"),
    [(100, 50, 50), (100, 95, 95), (100, 99, 99), (100, 100, 100), (1, 50, 1), (1, 99, 1), (20, 95, 19), (21, 95, 20)],
)
def test_a_percentile_is_the_value_that_so_many_do_not_exceed(count: int, percent: float, expected: float) -> None:
    values = [float(value) for value in range(1, count + 1)]
    random.Random(1).shuffle(values)
    assert percentile(values, percent) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.floats(0.1, 100))
def test_at_least_that_share_of_values_is_no_larger_and_a_smaller_one_would_not_do(
    values: list[float], percent: float
) -> None:
    found = percentile(values, percent)
    assert sum(value <= found for value in values) >= len(values) * percent / 100 - 1e-9
    assert sum(value < found for value in values) < len(values) * percent / 100


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], 0), ([1.0], 101)], ids=["none", "0", "101"])
def test_what_has_no_percentile_is_refused(values: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match="percent"):
        percentile(values, percent)


def rounds(*latencies: list[float]) -> list[Round]:
    return [Round(values, [value / 2 for value in values], answered=1) for values in latencies]


def test_a_summary_has_the_medians_of_the_rounds_percentiles() -> None:
    found = summary(rounds([1.0, 2.0], [3.0, 4.0], [100.0, 200.0]))
    assert found["wall_ms"] == {"p50": 3.0, "p95": 4.0, "p99": 4.0}
    assert found["cpu_ms"] == {"p50": 1.5, "p95": 2.0, "p99": 2.0}
    assert (found["look_ups"], found["answered_ratio"]) == (6, 0.5)
    assert len(found["rounds"]) == 3  # type: ignore[arg-type]


def test_ratios_are_taken_within_rounds_so_that_a_slow_one_slows_both() -> None:
    ours, theirs = rounds([1.0], [10.0], [1.5]), rounds([10.0], [100.0], [10.0])
    assert ratio(ours, theirs, "wall_ms", 50) == {"median": 0.1, "min": 0.1, "max": 0.15}


def test_ratios_need_as_many_rounds_of_both() -> None:
    with pytest.raises(ValueError, match="argument 2"):
        ratio(rounds([1.0]), rounds([1.0], [2.0]), "cpu_ms", 50)


def test_percentiles_are_those_three() -> None:
    assert percentiles([5.0]) == {"p50": 5.0, "p95": 5.0, "p99": 5.0}


ASKED: list[tuple[str, int | None]] = [
    ("exact", 0), ("exact", 1), ("duplicate", 2), ("duplicate", 3), ("unrelated", None), ("unrelated", None),
    ("unrelated", None), ("unrelated", None),
]  # fmt: skip


def test_an_answer_meant_for_another_prompt_is_wrong_and_one_for_none_too() -> None:
    found = score(ASKED, [0, 1, 2, 7, None, 0, None, None]).as_dict()
    assert (found["look_ups"], found["hits"], found["wrong"]) == (8, 5, 2)
    assert found["hit_ratio"] == pytest.approx(5 / 8)
    assert found["wrong_per_1000"] == pytest.approx(250)
    assert found["false_share"] == pytest.approx(2 / 5)
    assert found["kinds"] == {
        "duplicate": {"look_ups": 2, "hits": 2, "wrong": 1},
        "exact": {"look_ups": 2, "hits": 2, "wrong": 0},
        "unrelated": {"look_ups": 4, "hits": 1, "wrong": 1},
    }


@pytest.mark.parametrize(
    ("served", "all_of_them"),
    [([0, 1], True), ([0, None], False), ([0, 0], False)],
    ids=["right", "missed", "wrong"],
)
def test_all_of_a_kind_hit_when_each_got_its_own_answer(served: list[int | None], all_of_them: bool) -> None:
    found = score(ASKED, [*served, *([None] * 6)]).as_dict()
    assert all_hit(found, ("exact", "surface")) is all_of_them


def test_no_look_ups_have_no_hits_and_are_no_error() -> None:
    found = score([], []).as_dict()
    assert (found["hit_ratio"], found["wrong_per_1000"], found["false_share"]) == (0.0, 0.0, 0.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 3), st.none() | st.integers(0, 3))))
def test_hits_are_the_sum_of_the_kinds_and_wrong_ones_are_among_them(
    rows: list[tuple[str, int | None, int | None]],
) -> None:
    found = score([row[:2] for row in rows], [row[2] for row in rows])
    assert found.asked.total() == len(rows)
    assert found.hits.total() == sum(row[2] is not None for row in rows)
    assert all(found.wrong[kind] <= found.hits[kind] <= found.asked[kind] for kind in "abc")


def test_the_median_of_an_even_number_of_rounds_is_between_the_middle_ones() -> None:
    found = summary(rounds([1.0], [2.0], [4.0], [8.0]))
    assert found["wall_ms"]["p50"] == statistics.median([1.0, 2.0, 4.0, 8.0])  # type: ignore[index]
