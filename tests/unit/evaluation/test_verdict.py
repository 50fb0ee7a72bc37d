"""Verdicts: pass, fail, and when neither can be said."""

from __future__ import annotations

import pytest

from inferdock.domain.verdict import Verdict
from inferdock.evaluation.answers import Answer
from inferdock.evaluation.bootstrap import Drawing
from inferdock.evaluation.limits import rules
from inferdock.evaluation.texts import Texts
from inferdock.evaluation.verdict import Finding, judge, measure, overall
from tests.support.evaluation_values import RIGHT, outcome, task

TEXTS = Texts()
DRAWING = Drawing(resamples=400)
WRONG = "nobody knows"


def judged(limit: str, outcomes, *, groups=(), least: int = 30) -> Finding:
    (found,) = judge(measure(outcomes, groups, TEXTS, DRAWING), rules([limit], least_samples=least), groups)
    return found


def losses(lost: int, of: int, **changes):
    return [outcome(RIGHT, WRONG if i < lost else RIGHT, name=str(i), **changes) for i in range(of)]


@pytest.mark.parametrize(
    ("lost", "verdict"), [(0, Verdict.PASS), (3, Verdict.INCONCLUSIVE), (40, Verdict.FAIL)], ids=["none", "few", "many"]
)
def test_a_limit_is_decided_when_its_interval_is_on_one_side(lost, verdict):
    found = judged("exact >= -5%", losses(lost, 100))
    assert found.verdict is verdict
    assert found.samples == 100
    assert found.measured.low <= found.measured.value <= found.measured.high


def test_an_open_verdict_says_how_many_tasks_would_decide():
    found = judged("exact >= -5%", losses(3, 100))
    assert found.needed > 100
    assert f"about {found.needed} tasks would decide" in found.reason


def test_too_few_tasks_decide_nothing_however_clear_they_are():
    found = judged("exact >= -5%", losses(10, 10))
    assert (found.verdict, found.reason) == (Verdict.INCONCLUSIVE, "10 tasks are too few, the least is 30")
    assert judged("exact >= -5%", losses(10, 10), least=5).verdict is Verdict.FAIL


def test_a_given_limit_that_nothing_measures_is_open_and_a_default_is_passed_over():
    bare = [outcome(name=str(i), task=task(str(i), reference=None, checks=())) for i in range(40)]
    assert judged("exact >= -5%", bare).reason == "nothing measures exact here"
    defaults = judge(measure(bare, (), TEXTS, DRAWING), rules([]), ())
    assert {finding.limit.metric for finding in defaults} == {"refusal", "length", "failed"}


def test_a_group_is_judged_by_its_own_tasks():
    good = [outcome(name=f"g{i}", task=task(f"g{i}", group="good")) for i in range(40)]
    bad = [outcome(RIGHT, WRONG, name=f"b{i}", task=task(f"b{i}", group="bad")) for i in range(40)]
    assert judged("good:exact >= -5%", good + bad, groups=("bad", "good")).verdict is Verdict.PASS
    assert judged("bad:exact >= -5%", good + bad, groups=("bad", "good")).verdict is Verdict.FAIL


def test_a_candidate_that_answers_nothing_fails():
    dead = [outcome(name=str(i), candidate=Answer(error="HTTP 500")) for i in range(40)]
    findings = judge(measure(dead, (), TEXTS, DRAWING), rules([]), ())
    assert overall(findings) is Verdict.FAIL


def test_a_champion_that_answers_nothing_leaves_it_open():
    dead = [outcome(name=str(i), champion=Answer(error="HTTP 500")) for i in range(40)]
    assert overall(judge(measure(dead, (), TEXTS, DRAWING), rules([]), ())) is Verdict.INCONCLUSIVE


def test_a_better_candidate_than_a_champion_without_a_right_answer_passes():
    better = [outcome(WRONG, RIGHT, name=str(i)) for i in range(40)]
    assert judged("exact >= -5%", better).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], Verdict.INCONCLUSIVE),
        ([Verdict.PASS], Verdict.PASS),
        ([Verdict.PASS, Verdict.INCONCLUSIVE], Verdict.INCONCLUSIVE),
        ([Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL], Verdict.FAIL),
    ],
    ids=["nothing judged", "all hold", "one open", "one broken"],
)
def test_the_worst_finding_decides(verdicts, expected):
    limit = rules(["exact >= -5%"]).limits[0]
    findings = [Finding(limit=limit, verdict=v, samples=1, measured=None, reason="") for v in verdicts]
    assert overall(findings) is expected
