"""Task files: what is read, and what is refused with file, line and reason."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from scripts.demo_model.eval_tasks import render

from inferdock.domain.errors import ConfigError
from inferdock.evaluation.tasks import DEMO, MAX_GROUPS, MAX_LINE, MAX_TASKS, Contains, Exact, Regex, read_tasks
from tests.support.evaluation_values import task_file

GOOD = {"id": "a", "messages": [{"role": "user", "content": "Hello?"}]}


def test_a_task_has_all_its_fields(tmp_path):
    checks = [{"kind": "exact"}, {"kind": "contains", "value": "b"}, {"kind": "regex", "pattern": "c+"}]
    line = GOOD | {"reference": "abc", "checks": checks, "group": "g", "max_tokens": 7}
    task = read_tasks(task_file(tmp_path, line)).tasks[0]
    assert task.checks == (Exact(), Contains(value="b"), Regex(pattern="c+"))
    assert (task.question, task.reference, task.group, task.max_tokens) == ("Hello?", "abc", "g", 7)


def test_empty_lines_are_passed_over_and_a_missing_last_line_end_is_fine(tmp_path):
    found = read_tasks(task_file(tmp_path, GOOD, "", "  ", {"id": "b", "prompt": "Once"}))
    assert [task.id for task in found.tasks] == ["a", "b"]


def test_the_digest_is_that_of_the_bytes(tmp_path):
    one = read_tasks(task_file(tmp_path, GOOD)).digest
    two = read_tasks(task_file(tmp_path, GOOD, "")).digest
    assert (len(one), one == two) == (64, False)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param("not json", "malformed", id="not JSON"),
        pytest.param("[1]", "Expected `object`", id="not an object"),
        pytest.param("[" * 100_000, "", id="nested without end"),
        pytest.param(b'{"id": "\xff"}', "", id="not UTF-8"),
        pytest.param('{"id": "\\ud800", "prompt": "x"}', "", id="half a character"),
        pytest.param({"messages": GOOD["messages"]}, "missing required field `id`", id="no id"),
        pytest.param({"id": "b"}, "either `messages` or `prompt`", id="nothing asked"),
        pytest.param({"id": "b", "messages": []}, "either `messages` or `prompt`", id="an empty conversation"),
        pytest.param(GOOD | {"id": "b", "prompt": "x"}, "either `messages` or `prompt`", id="both"),
        pytest.param(GOOD | {"id": "b", "refrence": "x"}, "unknown field `refrence`", id="a typing error"),
        pytest.param(GOOD | {"id": "b", "checks": [{"kind": "exakt"}]}, "'exakt'", id="an unknown kind of check"),
        pytest.param(GOOD | {"id": "b", "checks": [{"kind": "exact"}]}, "needs a `reference`", id="exact with nothing"),
        pytest.param(GOOD | {"id": "b", "checks": [{"kind": "contains", "value": ""}]}, ">= 1", id="contains nothing"),
        pytest.param(GOOD | {"id": "b", "checks": [{"kind": "regex", "pattern": "a" * 2000}]}, "1000", id="pattern"),
        pytest.param(GOOD | {"id": "b", "max_tokens": 0}, ">= 1", id="no tokens"),
        pytest.param(GOOD | {"id": "b", "max_tokens": 10**9}, "<= 100000", id="tokens without end"),
        pytest.param(GOOD | {"id": "b", "group": "a:b"}, "matching regex", id="a group that no limit could name"),
        pytest.param(GOOD | {"id": "b", "group": "a\n"}, "matching regex", id="a group with a line end"),
        pytest.param(GOOD, "was there before", id="an id twice"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, reason):
    with pytest.raises(ConfigError) as caught:
        read_tasks(task_file(tmp_path, GOOD, line))
    assert "tasks.jsonl, line 2" in caught.value.message
    assert reason in caught.value.message
    assert len(caught.value.message) < 500


def test_a_line_of_a_gigabyte_is_refused_without_reading_it(tmp_path):
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError, match=r"huge\.jsonl, line 1 is longer than 1 MiB"):
        read_tasks(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
    assert MAX_LINE == 1 << 20


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "has no tasks"),
        ([GOOD | {"id": str(i)} for i in range(MAX_TASKS + 1)], "more than 10,000 tasks"),
        ([GOOD | {"id": str(i), "group": f"g{i}"} for i in range(MAX_GROUPS + 1)], "more than 50 groups"),
    ],
    ids=["empty", "too many", "too many groups"],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path, lines, reason):
    with pytest.raises(ConfigError, match=reason):
        read_tasks(task_file(tmp_path, *lines))


@pytest.mark.parametrize("name", ["absent.jsonl", "."])
def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path, name):
    with pytest.raises(ConfigError, match="Cannot read the tasks"):
        read_tasks(tmp_path / name)


def test_the_demo_set_follows_from_what_the_demo_model_is_measured_on():
    assert DEMO.read_text(encoding="utf-8") == render(), "python -m scripts.demo_model.eval_tasks"


def test_the_demo_set_ships_and_has_enough_tasks_in_each_group():
    found = read_tasks(Path(DEMO))
    assert found.groups == ("held-out", "known")
    assert min(sum(t.group == group for t in found.tasks) for group in found.groups) >= 100
