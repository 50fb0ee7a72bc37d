"""Every metric that rules, dashboards, chart and docs name exists; the page of metrics is up to date."""

from __future__ import annotations

import re

import pytest
from scripts import render_metrics_docs, render_monitoring

from inferdock.telemetry.table import TABLE
from tests.support.chart import ROOT

PLACES = (
    "prometheus/**/*.yaml",
    "grafana/**/*.json",
    "helm/**/*.yaml",
    "helm/**/*.tpl",
    "k8s/**/*.yaml",
    "docs/**/*.md",
    "src/inferdock/console/*",
    "README.md",
)
FILES = sorted(path.relative_to(ROOT).as_posix() for place in PLACES for path in ROOT.glob(place))
NAMED = re.compile(
    r"\b(?:llm_(?:gateway|cache|release|autoscale|cost)_[a-z_]*"
    r"|vllm:[a-z_]+|kube_[a-z_]+|DCGM_[A-Z_]+|inferdock:[a-z0-9_:]+)"
)
KNOWN = {name for row in TABLE for name in (row.name, *(alias.name for alias in row.aliases), *row.every_sample())}
RECORDED = {rule["record"] for rule in render_metrics_docs.rules() if "record" in rule}
OTHER_ENGINES = {"vllm:request_success_total", "vllm:request_success", "vllm:avg_generation_throughput_toks_per_s"}
"""Named in docs only: nobody of ours reads them, and the last one is gone."""


def known(name: str) -> bool:
    """In the table, or the beginning of such names, as docs and `grep` in consoles write it."""
    if name.startswith("inferdock:"):
        return name in RECORDED or any(one.startswith(name) for one in RECORDED)
    return name in KNOWN | OTHER_ENGINES or any(one.startswith(name) for one in KNOWN)


@pytest.mark.parametrize("file", FILES)
def test_every_metric_that_is_named_exists(file):
    found = set(NAMED.findall((ROOT / file).read_text(encoding="utf-8")))
    found = {name.rstrip(":") for name in found if name != "inferdock:"}
    assert [name for name in sorted(found) if not known(name)] == []


def test_what_is_asked_for_is_a_whole_name():
    """Beginnings are for prose: a query that names one gives nothing."""
    whole = KNOWN | RECORDED
    for file in FILES:
        if file.startswith(("prometheus/", "grafana/", "helm/llm-inference/templates")):
            text = re.sub(r"(?m)^\s*#.*$", "", (ROOT / file).read_text(encoding="utf-8"))
            assert set(NAMED.findall(text)) <= whole, file


def test_the_page_is_up_to_date():
    said = "run `make docs` and commit the result"
    assert render_metrics_docs.PAGE.read_text(encoding="utf-8") == render_metrics_docs.render(), said


def test_the_rules_and_dashboards_that_are_written_are_up_to_date():
    for path, text in render_monitoring.outputs():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run `python -m scripts.render_monitoring`"


def test_every_recorded_series_is_explained_and_no_other():
    assert {render_metrics_docs.short_name(name) for name in RECORDED} == set(render_metrics_docs.RECORDED)


def test_every_dashboard_is_written_by_us():
    there = {path.name for path in render_monitoring.DASHBOARDS.glob("*")}
    assert there == {f"{board.name}.json" for board in render_monitoring.BOARDS}
