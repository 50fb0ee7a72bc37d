"""What ``inferdock status`` draws."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from inferdock.cli.platform_view import replica_table, shares, worker_lines

ROW = {"worker": 0, "pid": 7, "state": "serving", "in_flight": 3, "connections": 4, "deaths": 0}


def test_several_workers_have_a_line_each():
    lines = worker_lines({"workers": [ROW, {**ROW, "worker": 1, "deaths": 2}]})
    assert lines[0] == "worker 0: serving, pid 7, 3 in flight, 4 connections"
    assert lines[1].endswith("died 2 times")


def test_one_process_needs_no_line_and_a_silent_gateway_has_none():
    assert worker_lines({"workers": [ROW]}) == worker_lines(None) == []


def drawn(rows: list[dict[str, object]]) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(replica_table(rows))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_replicas_of_several_revisions_are_told_apart():
    rows = [{"name": f"replica-{n}", "revision": f"1.{n}.0-abc", "state": "ready"} for n in range(2)]
    assert "1.0.0-abc" in drawn(rows)
    assert "1.1.0-abc" in drawn(rows)
    assert "revision" not in drawn(rows[:1])


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ({}, "a"),
        ({"a": 1.0}, "a"),
        ({"a": 0.995, "b": 0.005}, "a 99.5 % · b 0.5 %"),
        ({"a": 0.0, "b": 1}, "a 0 % · b 100 %"),
    ],
)
def test_each_revision_has_its_share_beside_it(weights, text):
    assert shares("a", weights) == text
