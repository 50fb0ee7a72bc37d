"""What docs/spot.md and the page of the GPU nodes say of the chart is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from inferdock.app.render import merged
from tests.docs.pages import ROOT
from tests.support.chart import CHART, COMBINATIONS, chart_objects
from tests.support.kubernetes_checks import engines

SPOT = ROOT / "docs" / "spot.md"
NODES = ROOT / "terraform" / "eks-nodegroup" / "README.md"
VALUES = re.compile(r"```yaml values\.yaml\n(.*?)```", re.DOTALL)
EXAMPLES = VALUES.findall(SPOT.read_text(encoding="utf-8"))
NAMED = re.compile(r"`((?:engine|gateway)(?:\.[a-zA-Z]+)+)(?:: ([^`]+))?`")
SETTINGS_OF_THE_GATEWAY = {"gateway.stall_timeout_s"}


def rows() -> list[list[str]]:
    """Rows of the page's table of the two minutes."""
    table = SPOT.read_text(encoding="utf-8").partition("## The two minutes\n")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_values_of_the_page_are_the_charts(example):
    values = merged(COMBINATIONS["prod"], yaml.safe_load(example))
    graces = {template["spec"]["terminationGracePeriodSeconds"] for _, template, _ in engines(chart_objects(values))}
    assert graces == {90}


def test_the_table_adds_up_to_the_grace_that_the_chart_computes():
    drain = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["engine"]["drain"]
    stop = drain["preStopSeconds"]
    moved = 1 + drain["shutdownTimeoutSeconds"] - 5
    ended = stop + drain["shutdownTimeoutSeconds"]
    seconds = [int(re.sub(r"\D", "", row[0])) for row in rows()]
    assert seconds == [0, 1, stop, moved, ended, ended + drain["marginSeconds"], 120]


@pytest.mark.parametrize("page", [SPOT, NODES], ids=["spot", "nodes"])
def test_values_that_a_page_names_exist_with_the_defaults_it_gives(page: Path):
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    for path, given in NAMED.findall(page.read_text(encoding="utf-8")):
        if path in SETTINGS_OF_THE_GATEWAY:
            continue
        found = defaults
        for key in path.split("."):
            assert key in found, f"{page.name} names {path}"
            found = found[key]
        if given:
            assert found == yaml.safe_load(given), f"{page.name} says that {path} is {given}"
