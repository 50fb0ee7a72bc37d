"""Time of replicas at the price of machines."""

from fractions import Fraction

import pytest

from inferdock.cost.observed import ReplicaTime
from inferdock.cost.prices import Price, shipped
from inferdock.cost.rates import NOBODY, ByModel, OneMachine, catalogue_machines
from inferdock.cost.usage import HOUR_S, Capacity, Purchase
from inferdock.domain.errors import ConfigError

R1, R2 = ("m", "r1"), ("m", "r2")
MACHINE = OneMachine(Fraction(2))


def paid(capacities: list[Capacity]) -> Fraction:
    return sum((one.dollars(one.seconds) for one in capacities), Fraction(0))


def time(**seconds: int) -> ReplicaTime:
    return ReplicaTime(**{name: Fraction(value) for name, value in seconds.items()})


def test_one_machine_costs_the_same_however_many_replicas_it_has():
    two = {R1: time(idle=3600), R2: time(busy=3600)}
    assert paid(MACHINE.capacities(two, Fraction(HOUR_S), 2)) == 2
    assert paid(MACHINE.capacities({R1: time(idle=3600)}, Fraction(HOUR_S), 1)) == 2


def test_a_replica_that_is_missing_is_start_up_time():
    found = MACHINE.capacities({R1: time(idle=3600, busy=1800)}, Fraction(HOUR_S), 2)
    assert paid(found) == 2
    assert sum(one.starting for one in found) == Fraction(HOUR_S) / 4
    assert {(one.model, one.revision) for one in found} == {R1}


def test_where_several_revisions_could_be_blamed_nobody_is():
    found = MACHINE.capacities({R1: time(idle=1800), R2: time(idle=900)}, Fraction(HOUR_S), 1)
    assert paid([one for one in found if (one.model, one.revision) == NOBODY]) == Fraction(1, 2)
    assert paid(found) == 2


def test_a_machine_without_replicas_costs_too_and_no_time_costs_nothing():
    assert paid(MACHINE.capacities({}, Fraction(HOUR_S), 0)) == 2
    assert MACHINE.capacities({}, Fraction(0), 3) == []


def test_replicas_have_their_part_of_a_machine_and_of_spot():
    price = Price(instance_type="x", gpu="L4", gpus=4, region="r", on_demand=8.0, spot=4.0)
    machines = catalogue_machines(price, gpus_per_replica=1, spot_share=0.5)
    found = machines.capacities({R1: time(idle=7200, unready=7200, busy=14400)}, Fraction(HOUR_S), 0)
    assert {one.purchase: one.dollars(one.seconds) for one in found} == {Purchase.SPOT: 4, Purchase.ON_DEMAND: 8}
    assert {one.on_demand_price for one in found} == {8}


def test_models_have_machines_of_their_own():
    small = Price(instance_type="s", gpu="L4", gpus=1, region="r", on_demand=1.0)
    large = Price(instance_type="l", gpu="H100", gpus=8, region="r", on_demand=80.0)
    one = catalogue_machines(small, gpus_per_replica=1, spot_share=0)
    rates = ByModel(one, {"big": catalogue_machines(large, gpus_per_replica=4, spot_share=0)})
    hour = {("m", "r1"): time(busy=HOUR_S), ("big", "r1"): time(busy=HOUR_S)}
    found = {one.model: one.dollars(one.seconds) for one in rates.capacities(hour, Fraction(HOUR_S), 0)}
    assert found == {"m": 1, "big": 40}
    with pytest.raises(ConfigError, match="machines of 'm'"):
        ByModel(None, rates.models).capacities(hour, Fraction(HOUR_S), 0)


def test_prices_that_are_not_known_are_asked_for():
    with pytest.raises(ConfigError, match=r"spot price of p5\.48xlarge"):
        catalogue_machines(shipped().find("p5.48xlarge", "us-east-1"), gpus_per_replica=1, spot_share=0.1)
    only_spot = Price(instance_type="x", gpu="L4", gpus=1, region="r", spot=1.0)
    assert catalogue_machines(only_spot, gpus_per_replica=1, spot_share=1)
    with pytest.raises(ConfigError, match="on-demand price of x"):
        catalogue_machines(only_spot, gpus_per_replica=1, spot_share=0.5)


@pytest.mark.parametrize(("gpus", "spot"), [(0, 0), (-1, 0), (float("nan"), 0), (1, 1.5), (1, -0.5)])
def test_numbers_that_make_no_sense_are_refused(gpus, spot):
    with pytest.raises(ConfigError):
        catalogue_machines(shipped().find("g5.xlarge", "us-east-1"), gpus_per_replica=gpus, spot_share=spot)
