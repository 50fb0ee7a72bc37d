"""Laws of the cheapest fleet: smaller weights never make it dearer, and none counts on memory that is not there."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from inferdock.cost.prices import Price
from inferdock.simulation import fleet
from inferdock.simulation.fleet import Load, Machine, Objectives, fleets, spare
from inferdock.simulation.memory import Footprint, Room
from inferdock.simulation.profile import Profile, Step
from inferdock.simulation.traffic import Lengths

PROFILE = Profile(steps=(Step(1, 0.01), Step(64, 0.04)), max_num_seqs=64, kv_cache_tokens=100_000, startup_s=120)
TOKEN = 131_072
KINDS = (("small", 1, 14, 0.5, 0.2), ("large", 1, 22, 1.0, 0.4), ("four", 4, 22, 5.6, None))
"""Type, GPUs, GiB of each, dollars an hour on demand and spot."""


def cheapest(weights: float, load: Load, gpus: int) -> tuple[float, list[str]]:
    """(dollars an hour, kinds that the model fits on); infinite where there is no fleet."""
    footprint = Footprint(weights_gib=weights, kv_bytes_per_token=TOKEN, max_model_len=2048)
    costs, fitting = [float("inf")], []
    for kind, count, memory, on_demand, spot in KINDS:
        room = Room(footprint=footprint, gpus=gpus, memory_gib=memory)
        if count < gpus or not room.fits:
            continue
        fitting.append(kind)
        price = Price(instance_type=kind, gpu="A10G", gpus=count, region="r", on_demand=on_demand, spot=spot)
        machine = Machine(price, PROFILE, gpus, room.kv_cache_tokens)
        ways = list(fleets(machine, load, floor=0.2, per_hour=0.05))
        assert all(way.kv_cache_tokens <= room.kv_cache_tokens for way in ways)
        costs += [way.cost_per_hour for way in ways]
    return min(costs), fitting


@settings(max_examples=6)
@given(
    weights=st.tuples(st.floats(0.5, 18.6), st.floats(15, 18.6)),
    rate=st.sampled_from([3.0, 40.0, 5000.0]),
    objectives=st.sampled_from([Objectives(0.5, 0.03), Objectives(5, 0.03), Objectives(2, 0.1)]),
    gpus=st.sampled_from([1, 2]),
)
@example(weights=(16.4, 17.1), rate=5000.0, objectives=Objectives(5, 0.03), gpus=1)  # where more room makes it slower
def test_smaller_weights_never_make_the_plan_dearer(
    weights: tuple[float, float], rate: float, objectives: Objectives, gpus: int
) -> None:
    light, heavy = sorted(weights)
    load = Load(rate=rate, lengths=Lengths(200, 150, 0.3), objectives=objectives)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fleet, "REQUESTS", 800)  # the law holds for any number; more take longer
        less, more = cheapest(light, load, gpus), cheapest(heavy, load, gpus)
    assert less[0] <= more[0]
    assert set(less[1]) >= set(more[1])


@given(replicas=st.integers(1, 200_000), per_hour=st.floats(0.001, 5), startup_s=st.floats(1, 600))
def test_more_replicas_are_never_fewer_with_their_spares(replicas: int, per_hour: float, startup_s: float) -> None:
    here, there = spare(replicas, per_hour, startup_s), spare(replicas + 1, per_hour, startup_s)
    assert 0 < replicas + here <= replicas + 1 + there
