"""Whether two answers say the same."""

from __future__ import annotations

import pytest

from inferdock.cache.compare import DIFFERENT_BELOW, SAME_FROM, compare


@pytest.mark.parametrize(
    ("stored", "fresh"),
    [
        pytest.param("Paris.", "paris", id="case and the full stop"),
        pytest.param("It is\n\n**Paris**.", "It is Paris", id="emphasis and lines"),
        pytest.param("- Paris\n- Rome", "1. Paris\n2. Rome", id="list marks"),
        pytest.param("It’s “far”", 'It\'s "far"', id="quotes"),
        pytest.param("ﬁne", "fine", id="ligatures"),
        pytest.param("", " ", id="nothing"),
    ],
)
def test_typography_makes_no_difference(stored: str, fresh: str) -> None:
    assert compare(stored, fresh, None) == "same"


@pytest.mark.parametrize(
    ("stored", "fresh"),
    [
        pytest.param("It has 3 legs", "It has 4 legs", id="another number"),
        pytest.param("In 1969", "In the sixties", id="a number more"),
        pytest.param("It is -5 degrees", "It is 5 degrees", id="another sign"),
        pytest.param("It costs 1.5 euros", "It costs 15 euros", id="another point"),
        pytest.param("Yes, it is.", "No, it is not.", id="another verdict"),
        pytest.param("Nope", "Yes", id="another short verdict"),
    ],
)
def test_numbers_and_verdicts_decide_whatever_the_similarity(stored: str, fresh: str) -> None:
    assert compare(stored, fresh, 1.0) == compare(stored, fresh, None) == "different"


@pytest.mark.parametrize(
    ("stored", "fresh"),
    [
        pytest.param("It costs 1,000.50 euros", "The price is 1000.5 euros", id="grouping"),
        pytest.param("It has three legs", "There are 3 legs", id="a word for a number"),
        pytest.param("3 and 3 again", "It is 3", id="repetition"),
        pytest.param("2.0 litres", "2 litres in all", id="decimals of no value"),
    ],
)
def test_other_spellings_of_numbers_are_the_same(stored: str, fresh: str) -> None:
    assert compare(stored, fresh, 0.97) == "same"


@pytest.mark.parametrize(
    ("similarity", "outcome"),
    [
        (1.0, "same"),
        (SAME_FROM, "same"),
        (SAME_FROM - 0.01, "unsure"),
        (DIFFERENT_BELOW, "unsure"),
        (DIFFERENT_BELOW - 0.01, "different"),
        (-1.0, "different"),
        (None, "unsure"),
        (float("nan"), "unsure"),
    ],
)
def test_else_the_similarity_decides(similarity: float | None, outcome: str) -> None:
    assert compare("It is a large town", "It is a big city", similarity) == outcome


def test_a_negation_is_never_taken_for_the_same() -> None:
    assert compare("The port is open", "The port is not open", 0.99) == "unsure"
    assert compare("It doesn't work", "It works", 0.99) == "unsure"
    assert compare("It doesn't work", "It does not work", 0.99) == "same"
