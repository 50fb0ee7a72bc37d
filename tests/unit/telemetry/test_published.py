"""Figures of the platform that a gateway shows: only what the table has, all at once, nothing stale."""

from __future__ import annotations

from math import inf, nan

import pytest

from inferdock.telemetry import names as n
from inferdock.telemetry.published import KEPT_S, MOST_FIGURES, Figure, Published


def shown(published: Published) -> dict[tuple[str, tuple[str, ...]], float]:
    return {(one.name, labels): numbers[0] for one in published.instruments for labels, numbers in one.samples()}


def test_what_was_told_is_shown_and_what_is_not_told_any_more_is_gone():
    published = Published()
    assert shown(published) == {}
    verdict, weight = (n.RELEASE_VERDICTS, ("m", "slo", "pass")), (n.RELEASE_WEIGHT, ("m", "r1"))
    published.tell([Figure(*verdict, 2.0), Figure(*weight, 0.25)], 0.0)
    assert shown(published) == {verdict: 2.0, weight: 0.25}
    published.tell([Figure(n.RELEASE_WEIGHT, ("m", "r2"), 1.0)], 0.0)
    assert shown(published) == {(n.RELEASE_WEIGHT, ("m", "r2")): 1.0}


def test_what_is_not_told_again_in_time_is_gone_until_it_is_told_again():
    published = Published()
    verdict, weight = Figure(n.RELEASE_VERDICTS, ("m", "slo", "pass"), 2.0), Figure(n.RELEASE_WEIGHT, ("m", "r1"), 1.0)
    published.tell([verdict, weight], 1000.0)
    published.tick(1000.0 + KEPT_S)
    assert len(shown(published)) == 2
    published.tell([verdict], 1000.0 + KEPT_S)
    published.tick(1000.0 + 2 * KEPT_S)
    assert len(shown(published)) == 1
    published.tick(1000.1 + 2 * KEPT_S)
    assert shown(published) == {}
    published.tell([verdict], 1100.0)
    assert shown(published) == {(verdict.name, verdict.labels): 2.0}


WRONG = {
    "a metric of the gateway": Figure(n.REQUESTS, ("m", "r", "chat", "200"), 1.0),
    "labels that are missing": Figure(n.RELEASE_WEIGHT, ("m",), 1.0),
    "no number": Figure(n.RELEASE_WEIGHT, ("m", "r"), nan),
    "no finite number": Figure(n.COST_PER_HOUR, ("m", "r"), inf),
    "a counter below zero": Figure(n.RELEASE_VERDICTS, ("m", "slo", "pass"), -1.0),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_does_not_fit_the_table_changes_nothing(wrong):
    published = Published()
    published.tell([Figure(n.RELEASE_WEIGHT, ("m", "r"), 1.0)], 0.0)
    before = shown(published)
    with pytest.raises(ValueError, match=r"llm_|no metric"):
        published.tell([Figure(n.RELEASE_WEIGHT, ("m", "other"), 1.0), wrong], 0.0)
    assert shown(published) == before


def test_the_number_of_series_is_bounded():
    published = Published()
    many = [Figure(n.RELEASE_WEIGHT, ("m", str(number)), 0.0) for number in range(MOST_FIGURES + 1)]
    published.tell(many[:-1], 0.0)
    with pytest.raises(ValueError, match="more than"):
        published.tell(many, 0.0)


def test_nothing_of_it_is_added_up_over_workers():
    assert not any(one.merged for one in Published().instruments)
