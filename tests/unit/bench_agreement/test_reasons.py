"""No panel is forgotten: each is compared, or says why it cannot be."""

from __future__ import annotations

from bench.agreement.panels import titles
from bench.agreement.reasons import REASONS, compared, without


def test_every_panel_is_compared_or_has_a_reason() -> None:
    assert [name for name, reason in without().items() if not reason] == []


def test_every_compared_panel_and_every_reason_is_of_a_panel_that_there_is() -> None:
    assert (compared() | set(REASONS)) - set(titles()) == set()


def test_no_panel_is_compared_and_excused() -> None:
    assert compared() & set(REASONS) == set()
