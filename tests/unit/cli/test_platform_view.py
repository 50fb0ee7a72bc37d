"""What ``inferdock status`` draws."""

from __future__ import annotations

from inferdock.cli.platform_view import worker_lines

ROW = {"worker": 0, "pid": 7, "state": "serving", "in_flight": 3, "connections": 4, "deaths": 0}


def test_several_workers_have_a_line_each():
    lines = worker_lines({"workers": [ROW, {**ROW, "worker": 1, "deaths": 2}]})
    assert lines[0] == "worker 0: serving, pid 7, 3 in flight, 4 connections"
    assert lines[1].endswith("died 2 times")


def test_one_process_needs_no_line_and_a_silent_gateway_has_none():
    assert worker_lines({"workers": [ROW]}) == worker_lines(None) == []
