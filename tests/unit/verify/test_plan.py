"""Every step of the plan, and each of its success criteria, has a check; ids are those of the plan."""

from __future__ import annotations

import re

import pytest

from inferdock.app.verify.command import CHECKS
from inferdock.verify.report import step
from tests.docs.pages import ROOT

STEPS = (
    *("1.1", "1.2", "1.3", "1.4", "1.5"),
    *("2.1", "2.2", "2.3", "2.4"),
    *("3.1", "3.2", "3.3", "3.4"),
    *("4.1", "4.2", "4.3", "4.4"),
)
CRITERIA = ("ttft", "tpot", "throughput", "rollback", "cost", "downtime")
IDS = [check.id for check in CHECKS]


@pytest.mark.parametrize("name", STEPS)
def test_every_step_has_a_check(name: str) -> None:
    assert [one for one in IDS if step(one) == name]


@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_has_a_check(name: str) -> None:
    assert f"criteria.{name}" in IDS


def test_ids_are_unique_in_the_order_of_the_plan_and_of_no_other_step() -> None:
    assert len(set(IDS)) == len(IDS)
    assert list(dict.fromkeys(map(step, IDS))) == [*STEPS, "criteria"]
    assert [one for one in IDS if not re.fullmatch(r"(\d\.\d|criteria)\.[a-z][a-z-]*", one)] == []


def test_every_line_is_there_once_and_every_step_needs_nothing_that_cannot_be_given() -> None:
    assert all(check.line and check.limit_s > 0 for check in CHECKS)
    assert "make verify" in (ROOT / "docs" / "verify.md").read_text(encoding="utf-8")
