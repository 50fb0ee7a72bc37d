"""Dashboards as files: of the form that Grafana reads, without overlaps, with units, variables and links."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from scripts.render_monitoring import DASHBOARDS

BOARDS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(DASHBOARDS.glob("*.json"))}
UNITS = {"s", "short", "reqps", "ops", "percentunit", "currencyUSD", "bytes"}
PLAN = ("Cost per 1M tokens", "Spot and on-demand", "Cache hit rate", "GPU utilisation beside cost")
MACROS = {"__rate_interval", "__range", "datasource", "runbooks"}

TEXT = {"type": "string", "minLength": 1}
SOURCE = {"type": "object", "required": ["type", "uid"], "properties": {"type": {"const": "prometheus"}, "uid": TEXT}}
LINK = {"type": "object", "required": ["title"], "properties": {"title": TEXT, "url": TEXT}}
TARGET = {
    "type": "object",
    "required": ["refId", "datasource", "expr", "legendFormat"],
    "properties": {"refId": {"pattern": "^[A-Z]$"}, "expr": TEXT, "datasource": SOURCE, "legendFormat": TEXT},
}
GRID = {
    "type": "object",
    "required": ["x", "y", "w", "h"],
    "properties": {
        "x": {"type": "integer", "minimum": 0, "maximum": 23},
        "y": {"type": "integer", "minimum": 0},
        "w": {"type": "integer", "minimum": 1, "maximum": 24},
        "h": {"type": "integer", "minimum": 1},
    },
}
STEPS = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "object", "required": ["color", "value"], "properties": {"value": {"type": ["number", "null"]}}},
}
DEFAULTS = {
    "type": "object",
    "required": ["unit", "thresholds", "noValue"],
    "properties": {
        "unit": {"enum": sorted(UNITS)},
        "thresholds": {"properties": {"mode": {"const": "absolute"}, "steps": STEPS}, "required": ["mode", "steps"]},
    },
}
PANEL = {
    "type": "object",
    "required": ["id", "type", "title", "description", "gridPos", "targets", "fieldConfig", "datasource", "options"],
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "type": {"enum": ["timeseries", "stat", "bargauge"]},
        "title": TEXT,
        "description": TEXT,
        "datasource": SOURCE,
        "gridPos": GRID,
        "targets": {"type": "array", "minItems": 1, "items": TARGET},
        "fieldConfig": {"type": "object", "required": ["defaults"], "properties": {"defaults": DEFAULTS}},
        "links": {"type": "array", "items": LINK},
    },
}
ANNOTATION = {
    "type": "object",
    "required": ["name", "datasource", "enable", "expr", "iconColor", "titleFormat", "textFormat"],
    "properties": {"datasource": SOURCE, "enable": {"type": "boolean"}, "expr": TEXT},
}
VARIABLE = {
    "type": "object",
    "required": ["name", "type", "query"],
    "properties": {"name": {"pattern": "^[a-z]+$"}, "type": {"enum": ["query", "datasource", "textbox"]}},
}


def _list_of(kind: dict[str, Any]) -> dict[str, Any]:
    one = {"type": "array", "minItems": 1, "items": kind}
    return {"type": "object", "required": ["list"], "properties": {"list": one}}


BOARD = {
    "type": "object",
    "required": ["uid", "title", "tags", "schemaVersion", "templating", "annotations", "panels", "time", "refresh"],
    "properties": {
        "uid": {"pattern": "^[a-z-]{1,40}$"},
        "schemaVersion": {"type": "integer", "minimum": 39},
        "templating": _list_of(VARIABLE),
        "annotations": _list_of(ANNOTATION),
        "panels": {"type": "array", "minItems": 1, "items": PANEL},
        "links": {"type": "array", "items": LINK},
    },
}


def names(board: dict[str, Any]) -> set[str]:
    return {variable["name"] for variable in board["templating"]["list"]}


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_has_the_form_that_grafana_reads(name):
    jsonschema.validate(BOARDS[name], BOARD)


@pytest.mark.parametrize("name", BOARDS)
def test_panels_have_ids_of_their_own_and_do_not_overlap(name):
    panels = BOARDS[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    cells = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) <= 23


@pytest.mark.parametrize("name", BOARDS)
def test_one_may_choose_model_and_revision_and_queries_use_only_what_one_may_choose(name):
    board = BOARDS[name]
    assert {"datasource", "namespace", "model", "revision"} <= names(board)
    used = set(re.findall(r"\$\{?([a-z_]+)", json.dumps(board)))
    assert used - {"__all"} <= names(board) | MACROS


@pytest.mark.parametrize("name", BOARDS)
def test_releases_are_marked(name):
    assert "Release" in {one["name"] for one in BOARDS[name]["annotations"]["list"]}


@pytest.mark.parametrize("name", BOARDS)
def test_limits_rise_and_links_lead_to_runbooks(name):
    for panel in BOARDS[name]["panels"]:
        limits = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]]
        assert limits == sorted(limits)
        assert all(link["url"].startswith("${runbooks}/Inferdock") for link in panel["links"])
    assert any("url" in link for link in BOARDS[name]["links"])


def test_the_four_panels_of_the_plan_are_there_and_tenants_may_be_chosen():
    assert set(PLAN) <= {panel["title"] for panel in BOARDS["cost"]["panels"]}
    assert "tenant" in names(BOARDS["cost"])


def test_addresses_are_different():
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS) == 4
