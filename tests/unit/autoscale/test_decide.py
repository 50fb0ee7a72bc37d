"""Cases of the HorizontalPodAutoscaler's algorithm, worked out by hand from its documentation."""

from __future__ import annotations

import pytest

from inferdock.autoscale.decide import Decision, Memory, Seen, decide
from inferdock.autoscale.policy import Behavior, MetricType, Policy, Rate, Select, Target, Unit

AT_ONCE = Behavior()
LOAD = Target(metric="load", type=MetricType.AVERAGE_VALUE, value=10)
KV = Target(metric="kv", type=MetricType.VALUE, value=0.85)


def policy(*targets: Target, up: Behavior = AT_ONCE, down: Behavior = AT_ONCE, least: int = 1, most: int = 100, **more):
    return Policy(min_replicas=least, max_replicas=most, targets=targets or (LOAD,), up=up, down=down, **more)


def look(rules: Policy, replicas: int, *, now: float = 0, ready: int | None = None, memory=None, **figures) -> Decision:
    seen = Seen(now=now, replicas=replicas, ready=replicas if ready is None else ready, figures=figures)
    return decide(rules, seen, memory or Memory())


@pytest.mark.parametrize(
    ("replicas", "load", "wanted"),
    [
        pytest.param(1, 50, 5, id="five times the target"),
        pytest.param(4, 10, 1, id="a quarter"),
        pytest.param(2, 21, 2, id="within a tenth above"),
        pytest.param(2, 22, 2, id="a tenth above"),
        pytest.param(2, 22.1, 3, id="just beyond a tenth"),
        pytest.param(10, 91, 10, id="within a tenth below"),
        pytest.param(10, 89, 9, id="beyond a tenth below"),
        pytest.param(3, 0, 1, id="nothing: the least"),
        pytest.param(3, 1e300, 100, id="absurd: the most"),
    ],
)
def test_a_sum_is_divided_among_replicas(replicas: int, load: float, wanted: int) -> None:
    assert look(policy(), replicas, load=load).replicas == wanted


@pytest.mark.parametrize(
    ("replicas", "ready", "kv", "wanted"),
    [
        pytest.param(2, 2, 0.95, 3, id="above"),
        pytest.param(2, 2, 0.93, 2, id="within a tenth"),
        pytest.param(4, 4, 0.425, 2, id="half"),
        pytest.param(3, 2, 1.0, 3, id="one still starts"),
    ],
)
def test_a_value_changes_in_inverse_proportion(replicas: int, ready: int, kv: float, wanted: int) -> None:
    assert look(policy(KV), replicas, ready=ready, kv=kv).replicas == wanted


def test_the_target_that_wants_most_counts() -> None:
    assert look(policy(LOAD, KV), 2, load=20, kv=1.7).replicas == 4
    assert look(policy(LOAD, KV), 2, load=60, kv=0.1).replicas == 6


def test_without_a_figure_no_replica_goes_but_one_may_come() -> None:
    assert look(policy(LOAD, KV), 4, load=10).replicas == 4
    assert look(policy(LOAD, KV), 4, load=60).replicas == 6
    assert look(policy(LOAD, KV), 4, load=10, kv=float("nan")).replicas == 4
    assert look(policy(LOAD), 4, load=-1).replicas == 4


def test_the_fallback_holds_after_some_blind_looks() -> None:
    rules, memory = policy(fallback=6, fallback_after=3), Memory()
    wanted = []
    for _ in range(4):
        decision = look(rules, 2, memory=memory)
        memory = decision.memory
        wanted.append(decision.replicas)
    assert wanted == [2, 2, 6, 6]


def test_bounds_hold_without_any_figure() -> None:
    assert look(policy(least=3), 1).replicas == 3
    assert look(policy(most=3), 7).replicas == 3


def test_growing_waits_until_the_wish_has_held_for_the_window() -> None:
    rules, memory, replicas = policy(up=Behavior(window_s=30)), Memory(), 1
    seen = []
    for now, load in [(0, 10), (15, 50), (30, 50), (45, 50), (60, 50)]:
        decision = look(rules, replicas, now=now, load=load, memory=memory)
        memory, replicas = decision.memory, decision.replicas
        seen.append(replicas)
    assert seen == [1, 1, 5, 5, 5]  # the wish of second 0 is 30 s old at second 30, and counts no longer


def test_shrinking_keeps_to_the_largest_wish_of_the_window() -> None:
    rules, memory, replicas = policy(down=Behavior(window_s=300)), Memory(), 5
    seen = {}
    for now in range(0, 400, 15):
        decision = look(rules, replicas, now=now, load=50 if now < 30 else 10, memory=memory)
        memory, replicas = decision.memory, decision.replicas
        seen[now] = replicas
    assert seen[300] == 5
    assert seen[315] == 1


@pytest.mark.parametrize(
    ("select", "wanted"),
    [(Select.MAX, 8), (Select.MIN, 6), (Select.DISABLED, 4)],
)
def test_of_two_rates_one_is_selected(select: Select, wanted: int) -> None:
    rates = (Rate(unit=Unit.PERCENT, value=100, period_s=60), Rate(unit=Unit.PODS, value=2, period_s=60))
    assert look(policy(up=Behavior(rates=rates, select=select)), 4, load=500).replicas == wanted


@pytest.mark.parametrize(("select", "wanted"), [(Select.MAX, 4), (Select.MIN, 8), (Select.DISABLED, 10)])
def test_rates_downwards(select: Select, wanted: int) -> None:
    rates = (Rate(unit=Unit.PERCENT, value=60, period_s=60), Rate(unit=Unit.PODS, value=2, period_s=60))
    assert look(policy(down=Behavior(rates=rates, select=select)), 10, load=1).replicas == wanted


def test_a_rate_counts_what_was_done_within_its_period() -> None:
    rules = policy(down=Behavior(rates=(Rate(unit=Unit.PODS, value=1, period_s=60),)))
    memory, replicas, seen = Memory(), 5, {}
    for now in range(0, 241, 15):
        decision = look(rules, replicas, now=now, load=10, memory=memory)
        memory, replicas = decision.memory, decision.replicas
        seen[now] = replicas
    assert [seen[now] for now in (0, 45, 60, 105, 120, 180, 240)] == [4, 4, 3, 3, 2, 1, 1]


def test_the_first_replica_wakes_when_something_is_asked() -> None:
    rules = policy(least=0)
    assert look(rules, 0, load=0).replicas == 0
    assert look(rules, 0).replicas == 0
    assert look(rules, 0, load=1).replicas == 1
    assert look(policy(Target(metric="load", type=LOAD.type, value=10, activation=2), least=0), 0, load=2).replicas == 0


def test_the_last_replica_goes_after_the_idle_time() -> None:
    rules, memory, seen = policy(least=0, idle_s=300), Memory(), {}
    for now in range(0, 400, 20):
        decision = look(rules, 1, now=now, load=3 if now == 40 else 0, memory=memory)
        memory = decision.memory
        seen[now] = decision.replicas
    assert seen[320] == 1
    assert seen[340] == 0


def test_a_replica_that_starts_is_not_idle() -> None:
    rules, memory = policy(least=0, idle_s=60), Memory()
    for now in range(0, 600, 20):
        decision = look(rules, 1, now=now, ready=0, load=0, memory=memory)
        memory = decision.memory
        assert decision.replicas == 1
    assert look(rules, 1, now=600, load=0, memory=memory).replicas == 1
    assert look(rules, 1, now=640, load=0, memory=memory).replicas == 0


def test_blindness_is_no_idleness() -> None:
    rules, memory = policy(least=0, idle_s=60), Memory()
    for now in range(0, 400, 20):
        decision = look(rules, 1, now=now, memory=memory)
        memory = decision.memory
        assert decision.replicas == 1


def test_a_reason_names_figure_target_and_limits() -> None:
    rates = (Rate(unit=Unit.PODS, value=1, period_s=60),)
    reason = look(policy(up=Behavior(rates=rates), most=50), 2, load=900).reason
    assert reason == "load is 900, wanted 10 for each replica: 90, 50 within the bounds, 3 at this rate."
