"""The chart's tables of cards and nodes: as the price list and public tables have them, and what is left for pods."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from inferdock.domain.errors import ConfigError
from tests.support.chart import CHART, ROOT, chart_objects

NODES = yaml.safe_load((CHART / "files/instances.yaml").read_text())
CARDS = yaml.safe_load((CHART / "files/gpus.yaml").read_text())
PRICES = json.loads((ROOT / "src/inferdock/cost/prices.json").read_text())["prices"]
ALLOCATABLE_MIB = {
    "g5.xlarge": 14162, "g5.2xlarge": 29317, "g5.4xlarge": 57691, "g5.8xlarge": 118312, "g5.12xlarge": 173400,
    "g5.48xlarge": 723299, "g6.xlarge": 14162, "g6.12xlarge": 178933, "g6e.xlarge": 29317, "g6e.2xlarge": 59627,
    "g6e.12xlarge": 360157, "p3.2xlarge": 56786, "p4d.24xlarge": 1082712, "p5.48xlarge": 1938410,
}  # fmt: skip
"""Memory for pods in MiB by Karpenter's reference, see the head of files/instances.yaml."""
ALLOCATABLE_M = {4: 3920, 8: 7910, 16: 15890, 32: 31850, 48: 47810, 96: 95690, 192: 191450}
"""Thousandths of a processor for pods by the same reference, by vCPUs."""


def asks(kind: str, **requests: object) -> list[object]:
    """The chart's objects for an engine that asks for so much on such a node."""
    values = {"instanceTypes": [kind], "resources": {"requests": requests}, "maxModelLen": 64}
    facts = {"weightGiB": 1, "layers": 1, "kvHeads": 1, "headDim": 64}
    return chart_objects({"models": {"mistral-7b-instruct": {"facts": facts}}, "engine": values})


@pytest.mark.parametrize("price", PRICES, ids=lambda one: f"{one['instance_type']}-{one['region']}")
def test_cards_of_a_type_are_those_that_its_price_is_for(price):
    node = NODES.get(price["instance_type"])
    if node is not None:
        assert price["gpus"] == node["gpus"]
        assert price["gpu"].removeprefix("NVIDIA ").startswith(node["product"].partition("-")[0])


def test_the_tables_know_each_other_and_most_types_have_a_price():
    assert {node["product"] for node in NODES.values()} <= set(CARDS)
    assert len(NODES.keys() & {price["instance_type"] for price in PRICES}) > len(NODES) / 2


def test_a_card_has_less_than_its_name_says():
    for name, card in CARDS.items():
        if size := re.search(r"(\d+)GB", name):
            assert 0.95 * int(size[1]) < card["memoryGiB"] < int(size[1])


@pytest.mark.parametrize("kind", ALLOCATABLE_MIB)
def test_a_node_has_for_pods_what_the_reference_says(kind):
    most = ALLOCATABLE_MIB[kind]
    assert asks(kind, memory=f"{most - 2}Mi", cpu=1)
    with pytest.raises(ConfigError, match="of memory, and a node"):
        asks(kind, memory=f"{most + 2}Mi", cpu=1)


@pytest.mark.parametrize(
    "kind", ["g5.xlarge", "g5.2xlarge", "g5.8xlarge", "g5.12xlarge", "p4d.24xlarge", "p5.48xlarge"]
)
def test_a_node_has_processors_as_the_reference_says_less_our_margin(kind):
    most = ALLOCATABLE_M[NODES[kind]["cpu"]] - 150
    assert asks(kind, memory="8Gi", cpu=f"{most}m")
    with pytest.raises(ConfigError, match="processors, and a node"):
        asks(kind, memory="8Gi", cpu=f"{most + 2}m")
