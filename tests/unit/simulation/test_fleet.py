"""The cheapest fleet: what a replica carries, how many stand in for interrupted ones, what it costs."""

from __future__ import annotations

import math

import pytest

from inferdock.cost.prices import Price
from inferdock.simulation.fleet import Load, Machine, Objectives, fleets, most_per_s, needed, spare, within
from inferdock.simulation.profile import Profile, Step
from inferdock.simulation.traffic import Lengths

PROFILE = Profile(steps=(Step(1, 0.01), Step(64, 0.04)), max_num_seqs=64, startup_s=120)
PRICE = Price(instance_type="g5.xlarge", gpu="A10G", gpus=1, region="r", on_demand=1.0, spot=0.4)


def load(rate: float, ttft: float = 0.5, tpot: float = 0.03) -> Load:
    return Load(rate=rate, lengths=Lengths(100, 100, 0.5), objectives=Objectives(ttft, tpot))


def test_what_is_found_keeps_the_objectives_and_a_little_more_does_not() -> None:
    most = most_per_s(PROFILE, 2, load(1))
    assert within(PROFILE, 2, most, load(1))
    assert not within(PROFILE, 2, most * 1.1, load(1))


def test_the_objective_sets_how_many_run_beside_each_other() -> None:
    """TPOT of 30 ms is that of 43 sequences; each is there for 100 tokens of work and more, on average."""
    rate = most_per_s(PROFILE, 8, load(1)) / 8
    mean_tokens = 100 * math.exp(0.5**2 / 2)
    assert rate == pytest.approx(43 / (mean_tokens * 0.03), rel=0.1)


def test_the_fewest_replicas_are_found_for_small_loads_and_counted_for_large_ones() -> None:
    small, large = needed(PROFILE, load(30)), needed(PROFILE, load(10_000))
    assert small is not None
    assert large is not None
    assert within(PROFILE, small[0], 30, load(30))
    assert not within(PROFILE, small[0] - 1, 30, load(30))
    assert large[0] == math.ceil(10_000 / large[1])


def test_an_engine_that_is_too_slow_alone_is_no_answer() -> None:
    assert needed(PROFILE, load(1, tpot=0.005)) is None
    assert list(fleets(Machine(PRICE, PROFILE), load(1, tpot=0.005), floor=0, per_hour=0)) == []


@pytest.mark.parametrize(("replicas", "per_hour"), [(1, 0.02), (10, 0.5), (1000, 1.0), (100_000, 2.0)])
def test_enough_replicas_are_left(replicas: int, per_hour: float) -> None:
    total = replicas + spare(replicas, per_hour, 120)
    missing = per_hour * 120 / 3600
    mean, deviation = total * (1 - missing), math.sqrt(total * missing * (1 - missing))
    assert mean - 3.09 * deviation >= replicas
    assert total <= replicas / (1 - missing) + 4 * deviation + replicas / 500 + 2


def test_without_interruptions_nobody_stands_in() -> None:
    assert spare(10, 0.0, 120) == spare(10, 1.0, 0) == spare(0, 1.0, 120) == 0


def test_spot_costs_less_and_the_floor_stays_on_demand() -> None:
    plain, mixed = fleets(Machine(PRICE, PROFILE), load(100), floor=0.25, per_hour=0.05)
    assert (plain.spot, plain.on_demand) == (0, plain.needed)
    assert mixed.on_demand == math.ceil(plain.needed * 0.25)
    assert mixed.replicas > mixed.needed
    assert mixed.cost_per_hour == pytest.approx(mixed.on_demand * 1.0 + mixed.spot * 0.4)
    assert mixed.cost_per_hour < plain.cost_per_hour
    tokens_per_hour = 100 * 200 * math.exp(0.5**2 / 2) * 3600
    assert plain.cost_per_million == pytest.approx(plain.cost_per_hour / tokens_per_hour * 1e6)


def test_machines_with_several_gpus_are_bought_whole() -> None:
    price = Price(instance_type="g5.12xlarge", gpu="A10G", gpus=4, region="r", on_demand=6.0)
    (fleet,) = fleets(Machine(price, PROFILE), load(100), floor=0, per_hour=0)
    assert fleet.on_demand == math.ceil(fleet.needed / 4)


def test_without_a_price_on_demand_there_is_no_floor() -> None:
    price = Price(instance_type="x", gpu="A10G", gpus=1, region="r", spot=0.4)
    assert list(fleets(Machine(price, PROFILE), load(30), floor=0.2, per_hour=0.05)) == []
    assert len(list(fleets(Machine(price, PROFILE), load(30), floor=0.0, per_hour=0.05))) == 1
