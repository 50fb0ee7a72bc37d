"""The language of limits."""

from __future__ import annotations

import pytest

from inferdock.domain.errors import ConfigError
from inferdock.evaluation.limits import DEFAULTS, default_rules, for_groups, parse_limit, rules


@pytest.mark.parametrize(
    ("text", "group", "metric", "least", "number", "of"),
    [
        ("bleu >= -2%", "", "bleu", True, -0.02, "relative"),
        ("bleu>=-2%", "", "bleu", True, -0.02, "relative"),
        ("bleu ≥ −2 %", "", "bleu", True, -0.02, "relative"),
        ("exact >= -0.05", "", "exact", True, -0.05, "difference"),
        ("exact >= 90%", "", "exact", True, 0.9, "value"),
        ("exact >= -0%", "", "exact", True, 0.0, "relative"),
        ("length <= +20%", "", "length", False, 0.2, "relative"),
        ("bleu >= 40", "", "bleu", True, 40.0, "value"),
        ("held-out:exact >= -5%", "held-out", "exact", True, -0.05, "relative"),
        ("* : exact >= -5%", "*", "exact", True, -0.05, "relative"),
        ("agreement >= 95%", "", "agreement", True, 0.95, "value"),
        ("kl <= 0.05", "", "kl", False, 0.05, "value"),
        ("logprob >= -0.05", "", "logprob", True, -0.05, "value"),
    ],
)
def test_a_limit_means_what_it_says(text, group, metric, least, number, of):
    limit = parse_limit(text)
    assert (limit.group, limit.metric, limit.least, limit.of) == (group, metric, least, of)
    assert limit.number == pytest.approx(number)


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("", "for instance"),
        ("bleu", "for instance"),
        ("bleu > -2%", "for instance"),
        ("bleu == 3", "for instance"),
        ("bleu >= nan", "for instance"),
        ("bleu >= 1e3", "for instance"),
        ("bleu >= -" + "9" * 400, "for instance"),
        ("a:b:bleu >= 1", "for instance"),
        ("blue >= -2%", "Do you mean bleu?"),
        ("speed >= -2%", "There are exact, contains"),
        ("bleu >= 2%", "Write a sign"),
        ("kl <= 5%", "Leave out the percent sign"),
        ("exact >= 0%", "write a sign"),
        ("agreement >= 0", "never below 0"),
        ("prefix >= -5", "never below 0"),
    ],
)
def test_what_is_no_limit_or_means_nothing_is_refused(text, cure):
    with pytest.raises(ConfigError) as caught:
        parse_limit(text)
    assert cure in caught.value.cure
    assert len(caught.value.message) < 200


def test_the_plans_limit_is_among_the_defaults_and_all_defaults_parse():
    assert "bleu >= -2%" in DEFAULTS
    assert [limit.text for limit in default_rules().limits] == list(DEFAULTS)


def test_given_limits_replace_the_defaults():
    found = rules(["exact >= -1%"])
    assert ([limit.text for limit in found.limits], found.given) == (["exact >= -1%"], True)
    assert rules([]).given is False


def test_a_star_stands_for_each_group():
    found = for_groups(rules(["*:exact >= -5%", "bleu >= -2%"]), ("a", "b"))
    assert [limit.text for limit in found] == ["a:exact >= -5%", "b:exact >= -5%", "bleu >= -2%"]


@pytest.mark.parametrize(("limit", "groups"), [("c:exact >= -5%", ("a", "b")), ("*:exact >= -5%", ())])
def test_a_group_that_is_not_there_is_refused(limit, groups):
    with pytest.raises(ConfigError, match="no task is in the group"):
        for_groups(rules([limit]), groups)


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("exact >= -5%", -0.05, True),
        ("exact >= -5%", 0.95 / 1.0 - 1, True),
        ("exact >= -5%", -0.0501, False),
        ("failed <= 1%", 0.01, True),
        ("failed <= 1%", 0.0101, False),
        ("bleu >= -2%", float("inf"), True),
    ],
)
def test_a_value_on_the_bound_holds(text, value, holds):
    assert parse_limit(text).holds(value) is holds
