"""Fleets that grow, shrink, lose machines, and wake."""

from __future__ import annotations

import random

import pytest

from inferdock.autoscale.figures import KV_CACHE, REQUESTS
from inferdock.autoscale.policy import Behavior, MetricType, Policy, Target
from inferdock.simulation.profile import Profile, Step
from inferdock.simulation.scenario import Scenario, Spot
from inferdock.simulation.traffic import Asked, Lengths, burst, plan_users, poisson
from inferdock.simulation.world import simulate

PROFILE = Profile(steps=(Step(1, 0.01), Step(32, 0.04)), max_num_seqs=32, startup_s=40)
LENGTHS = Lengths(prompt=50, output=60)


def policy(least: int = 1, most: int = 8, target: float = 16, **more: object) -> Policy:
    load = Target(metric=REQUESTS, type=MetricType.AVERAGE_VALUE, value=target)
    kv = Target(metric=KV_CACHE, type=MetricType.VALUE, value=0.85)
    return Policy(min_replicas=least, max_replicas=most, targets=(load, kv), **more)  # type: ignore[arg-type]


def traffic(peak: float, seconds: float, seed: int = 1):
    return poisson(burst(peak / 10, peak, seconds / 4, seconds / 2), peak, seconds, LENGTHS, random.Random(seed))


def test_a_fleet_grows_for_a_burst_and_shrinks_after_it() -> None:
    result = simulate(Scenario(profile=PROFILE, policy=policy()), traffic(40, 3600))
    assert result.answered == result.asked
    assert result.most_replicas > 1
    assert result.history[-1].wanted < result.most_replicas
    assert [action.replicas for action in result.actions if action.at < 900] == []


def test_the_same_seed_gives_the_same_result() -> None:
    scenario = Scenario(profile=PROFILE, policy=policy(), spot=Spot(per_hour=2))
    first, second = (simulate(scenario, traffic(30, 1200)) for _ in range(2))
    assert (first.ttft, first.actions, first.history) == (second.ttft, second.actions, second.history)


def test_interruptions_lose_nothing_and_what_is_cut_goes_on_elsewhere() -> None:
    spot = Spot(per_hour=30, notice_s=1.0, price_share=0.3)
    scenario = Scenario(profile=PROFILE, replicas=3, spot=spot, price_per_hour=1.0)
    result = simulate(scenario, traffic(60, 1800))
    assert result.answered == result.asked
    assert result.moved > 0
    assert result.cost == pytest.approx(result.spot_s / 3600 * 0.3 + (result.replica_s - result.spot_s) / 3600)


def test_the_floor_is_never_interrupted() -> None:
    scenario = Scenario(profile=PROFILE, replicas=2, spot=Spot(per_hour=100, on_demand=2))
    assert simulate(scenario, traffic(20, 1800)).actions == []


def test_an_idle_fleet_sleeps_and_wakes_for_a_request() -> None:
    asked = [Asked(10, 10, 10), Asked(2000, 10, 10)]
    scenario = Scenario(profile=PROFILE, replicas=1, policy=policy(least=0, up=Behavior(), idle_s=300))
    result = simulate(scenario, asked)
    assert result.answered == 2
    assert any(sample.wanted == 0 for sample in result.history)
    assert 40 <= max(result.ttft) <= 60  # start-up, and up to a look


def test_old_figures_make_it_late() -> None:
    fresh, old = (
        simulate(Scenario(profile=PROFILE, policy=policy(up=Behavior()), figures_age_s=age), traffic(60, 2400))
        for age in (0.0, 60.0)
    )
    assert old.actions[0].at >= fresh.actions[0].at + 45


def test_the_procedure_of_the_plan_goes_up_and_down_again() -> None:
    users = plan_users(LENGTHS)
    assert [users.at(at) for at in (0, 150, 300, 599, 601)] == [1, 26, 50, 50, 5]
    profile = Profile(steps=(Step(1, 0.02), Step(64, 0.2)), max_num_seqs=64, startup_s=40)
    result = simulate(Scenario(profile=profile, policy=policy(target=12)), users=users)
    assert result.answered == result.asked > 1000
    assert 3 <= result.most_replicas <= 5
    assert result.history[-1].wanted < result.most_replicas


def test_a_closed_loop_never_has_more_requests_than_users() -> None:
    result = simulate(Scenario(profile=PROFILE, sample_s=1.0), users=plan_users(LENGTHS))
    assert max(sample.running + sample.waiting for sample in result.history) <= 50


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: Scenario(profile=PROFILE, replicas=0), id="no replica"),
        pytest.param(lambda: Scenario(profile=PROFILE, sync_s=0), id="no time between looks"),
        pytest.param(lambda: Spot(per_hour=-1), id="negative interruptions"),
        pytest.param(lambda: Spot(price_share=float("nan")), id="price of NaN"),
    ],
)
def test_fleets_that_make_no_sense_are_refused(make) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        make()


def test_machines_go_at_the_seconds_that_are_given_and_others_come() -> None:
    spot = Spot(per_hour=0, notice_s=0.0, at=(100.0, 101.0, 110.0), on_demand=1)
    result = simulate(Scenario(profile=PROFILE, replicas=3, spot=spot), traffic(20, 600))
    assert [action.at for action in result.actions] == [100.0, 101.0], "the third comes when none is left to take"
    assert result.answered == result.asked
    ready = {look.at: look.ready for look in result.history}
    assert (min(ready.values()), list(ready.values())[-1]) == (1, 3)
