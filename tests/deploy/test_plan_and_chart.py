"""`inferdock plan` and the chart judge alike whether a model fits: one table of GPUs, one sum, one limit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferdock.app.render import merged, read_values
from inferdock.cost.gpus import memory_gib, product
from inferdock.cost.prices import shipped
from inferdock.domain.errors import ConfigError
from inferdock.simulation.memory import GIB, Footprint, Room
from tests.support.chart import CHART, chart_objects

MODEL = "mistral-7b-instruct"
CARDS: dict[str, dict[str, float]] = yaml.safe_load((CHART / "files/gpus.yaml").read_text())
NODES: dict[str, dict[str, Any]] = yaml.safe_load((CHART / "files/instances.yaml").read_text())
PROD = read_values([CHART / "values-prod.yaml"], [])


def as_planned(values: dict[str, Any], memory: float, length: int, gpus: int = 1) -> Room:
    """What the plan makes of the same facts."""
    facts = values["models"][MODEL]["facts"]
    token = 2 * facts["layers"] * facts["kvHeads"] * facts["headDim"] * 2
    model = Footprint(weights_gib=facts["weightGiB"], kv_bytes_per_token=token, max_model_len=length)
    return Room(footprint=model, gpus=gpus, memory_gib=memory)


def rendered(values: dict[str, Any], **of_model: object) -> list[Any]:
    return chart_objects(merged(values, {"models": {MODEL: of_model}}))


def test_both_tables_of_gpus_are_one() -> None:
    assert memory_gib() == {name: card["memoryGiB"] for name, card in CARDS.items()}


def test_the_memory_of_every_gpu_in_the_price_list_is_known() -> None:
    assert {product(price.gpu) for price in shipped().prices.values()} <= memory_gib().keys()


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in shipped().prices} & NODES.keys()))
def test_a_type_has_the_same_gpus_here_and_there(kind: str) -> None:
    price = next(price for (name, _), price in shipped().prices.items() if name == kind)
    assert (product(price.gpu), price.gpus) == (NODES[kind]["product"], NODES[kind]["gpus"])


def test_production_fits_by_both() -> None:
    memory = PROD["engine"]["gpu"]["memoryGiB"]
    assert as_planned(PROD, memory, PROD["models"][MODEL]["maxModelLen"]).fits
    assert chart_objects(PROD)


@pytest.mark.parametrize(
    ("weights", "memory", "gpus"), [(3.9, 14, 1), (13.5, 22, 1), (27, 22, 2), (0.3, 15, 1), (70, 39, 4)]
)
def test_both_have_the_same_limit_and_the_same_sum(weights: float, memory: float, gpus: int) -> None:
    facts = {**PROD["models"][MODEL]["facts"], "weightGiB": weights}
    gpu = {"count": gpus, "memoryGiB": memory}
    values = merged(PROD, {"models": {MODEL: {"facts": facts, "gpu": gpu}}, "engine": {"instanceTypes": []}})
    token = as_planned(values, memory, 1, gpus).footprint.kv_bytes_per_token
    longest = math.floor(as_planned(values, memory, 1, gpus).left_gib * GIB / int(token))
    assert as_planned(values, memory, longest, gpus).fits
    assert rendered(values, maxModelLen=longest)
    beyond = as_planned(values, memory, longest + 1, gpus)
    assert not beyond.fits
    with pytest.raises(ConfigError) as refused:
        rendered(values, maxModelLen=longest + 1)
    assert beyond.sum in str(refused.value)


def test_the_table_is_part_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read beside the module, not in the checkout."""
    monkeypatch.chdir(tmp_path)
    assert memory_gib()["A10G"] == 22
