"""Tables of the cache's benchmark."""

from __future__ import annotations

from typing import Any

import pytest
from bench.cache import report
from bench.cache.figures import Round, ratio, score, summary


def document(*, p95: float = 3.0, wrong: int = 0) -> dict[str, Any]:
    """A result with a look-up of ours and one of the peer."""
    ours = [Round([p95], [p95 / 2], answered=1)]
    theirs = [Round([10 * p95], [5 * p95], answered=0)]
    kinds = [("exact", 0), ("surface", 1), *(("unrelated", None) for _ in range(8))]
    answers = score(kinds, [0, 1, *range(wrong), *([None] * (8 - wrong))]).as_dict()
    return {
        "started": "2026-01-01T00:00:00Z",
        "machine": {"commit": "abc", "processor": "P", "cpus": 2},
        "workload": "made up",
        "prompts": {"count": 1, "tokens_p50": 9, "tokens_max": 9},
        "inferdock": {"versions": {"numpy": "2"}},
        "gptcache": {"missing": "not installed"},
        "latency": {"semantic, 1k": summary(ours), "exact, 100k": summary(ours), "GPTCache, 1k": summary(theirs)},
        "ratios": {
            "semantic, 1k": {name: ratio(ours, theirs, "wall_ms", 50) for name in ("wall_p50", "wall_p95", "cpu_p50")}
        },
        "answers": {"Inferdock, default": answers},
    }


def met(found: dict[str, Any]) -> dict[str, str]:
    return {goal: verdict for goal, _, _, verdict in report.goals(found)}


def test_goals_are_judged_by_what_was_measured() -> None:
    assert met(document()) == {
        "semantic, 1k: p95, embedding included": "yes",
        "exact: p95": "no",
        "look-ups answered": "yes",
        "wrong answers in 1,000 look-ups": "yes",
        "exact and surface variants hit": "yes",
    }


@pytest.mark.parametrize(
    ("changes", "goal"),
    [({"p95": 5.1}, "semantic, 1k: p95, embedding included"), ({"wrong": 1}, "wrong answers in 1,000 look-ups")],
    ids=["slow", "wrong"],
)
def test_a_goal_that_is_missed_says_no(changes: dict[str, Any], goal: str) -> None:
    assert met(document(**changes))[goal] == "no"


def test_without_labels_there_are_no_goals_about_answers() -> None:
    assert set(met(document() | {"answers": {}})) == {"semantic, 1k: p95, embedding included", "exact: p95"}


def test_the_tables_have_latencies_ratios_and_answers_by_kind() -> None:
    text = report.tables(document(wrong=2))
    assert "| semantic, 1k | 3 | 3 | 3 | 1.5 | 1.5 | 100 % | 0.1 [0.1-0.1] | 0.1 [0.1-0.1] | 0.1 [0.1-0.1] |" in text
    assert "| GPTCache, 1k | 30 | 30 | 30 | 15 | 15 | 0 % |  |  |  |" in text
    assert "| Inferdock, default | 40.0 % | 200 | 50.0 % | 1/1 | 1/1 | - | - | 2/8 (2) |" in text


def test_a_table_is_markdown() -> None:
    assert report.table(("a", "b"), [("1", "2")]) == "| a | b |\n|---|---|\n| 1 | 2 |"
