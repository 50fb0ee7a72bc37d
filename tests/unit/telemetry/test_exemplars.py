"""Exemplars of workers: the newest of a bucket stays, whatever order they come in and whoever has died since."""

from __future__ import annotations

import json
from itertools import permutations

import pytest
from scripts.render_monitoring import DASHBOARDS

from inferdock.telemetry import names as n
from inferdock.telemetry.instruments import Histogram, exemplars_of, show, show_exemplars


def histogram(*, merged: bool = True) -> Histogram:
    return Histogram("x_seconds", "", ("a",), (1.0, 2.0), merged=merged)


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_the_newest_of_a_bucket_stays(order):
    rows = []
    for at in range(3):
        worker = histogram()
        worker.cell("p").exemplify(1.5, f"trace-{at}", at)
        rows.append(exemplars_of([worker]))
    shown = histogram()
    for worker in order:
        show_exemplars([shown], rows[worker])
    show([shown], {"x_seconds": [(("p",), [0, 3, 0, 4.5])]})
    assert shown.exemplars() == {("p",): {1: ("trace-2", 1.5, 2)}}
    assert shown.cell("p").counts == [0, 3, 0]


def test_an_exemplar_is_in_the_bucket_of_its_observation():
    one = histogram()
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        one.cell("p").observe(value)
        one.cell("p").exemplify(value, f"trace-{value}", value)
    assert {i: found[1] for i, found in one.cell("p").exemplars.items()} == {0: 1.0, 1: 2.0, 2: 9.0}


def test_what_a_parent_knows_itself_is_not_taken_from_workers():
    own = histogram(merged=False)
    own.cell("p").exemplify(1.5, "trace", 1.0)
    assert exemplars_of([own]) == []


def test_the_serving_dashboard_asks_for_exemplars_where_there_are_some():
    board = json.loads((DASHBOARDS / "serving.json").read_text())
    asking = {target["expr"] for panel in board["panels"] for target in panel["targets"] if target.get("exemplar")}
    assert {name for name in n.__dict__.values() if any(f"({name}_bucket{{" in one for one in asking)} == {
        n.TTFT,
        n.DURATION,
    }
