"""The calculation by hand in docs/cost.md is what the model computes."""

import json
import re
from fractions import Fraction
from typing import Any

import pytest

from inferdock.cost.bill import make_bill
from inferdock.cost.observed import ReplicaTime
from inferdock.cost.prices import shipped
from inferdock.cost.rates import catalogue_machines
from inferdock.cost.report import document
from inferdock.cost.usage import Tokens, Usage, Weights
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "cost.md").read_text(encoding="utf-8")
BY_HAND = re.findall(r"^\| `([a-z_.0-9]+)` \| ([0-9.]+) \|$", PAGE, re.MULTILINE)


def usage(row: dict[str, Any]) -> Usage:
    return Usage(
        model="m",
        revision=row["revision"],
        tenant=row["tenant"],
        tokens=Tokens(prompt=row["prompt"], cached=row["cached"], output=row["output"]),
        spared=Tokens(prompt=row.get("spared_prompt", 0), output=row.get("spared_output", 0)),
    )


@pytest.fixture(scope="module")
def computed() -> dict[str, Any]:
    example = json.loads(re.search(r"```json cost-example\n(.*?)```", PAGE, re.DOTALL)[1])
    price = shipped().find(example["instance_type"], example["region"])
    machines = catalogue_machines(price, gpus_per_replica=example["gpus_per_replica"], spot_share=0)
    times = {
        ("m", revision): ReplicaTime(**{state: Fraction(seconds) for state, seconds in states.items()})
        for revision, states in example["times"].items()
    }
    capacities = machines.capacities(times, Fraction(3600), 0)
    bill = make_bill(capacities, [usage(row) for row in example["usages"]], Weights())
    return document(bill, elapsed=Fraction(3600), weights=Weights(), notes=[])


def look_up(found: dict[str, Any], path: str) -> float:
    first, *rest = path.split(".")
    if first == "revisions":
        revision = rest.pop(0)
        at: Any = next(row for row in found["revisions"] if row["revision"] == revision)
    elif first == "tenants":
        revision, tenant = rest.pop(0), rest.pop(0)
        at = next(row for row in found["tenants"] if (row["revision"], row["tenant"]) == (revision, tenant))
    else:
        at = found[first]
    for name in rest:
        at = at[name]
    return float(at)


@pytest.mark.parametrize(("path", "value"), BY_HAND, ids=[path for path, _ in BY_HAND])
def test_it_agrees_with_the_calculation_by_hand(computed, path, value):
    assert look_up(computed, path) == pytest.approx(float(value), rel=0.001)  # the goal is 2 %; these are rounded


def test_the_page_has_the_calculation():
    assert len(BY_HAND) >= 15
