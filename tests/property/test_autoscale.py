"""Laws of the autoscaler's decisions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferdock.autoscale.decide import Memory, Seen, decide
from inferdock.autoscale.policy import Behavior, MetricType, Policy, Rate, Target, Unit

FIGURES = st.one_of(st.none(), st.floats(), st.floats(0, 1000))
RATES = st.builds(Rate, unit=st.sampled_from(Unit), value=st.integers(1, 200), period_s=st.sampled_from([15, 60, 600]))
BEHAVIORS = st.builds(Behavior, window_s=st.sampled_from([0, 30, 300]), rates=st.tuples(RATES) | st.just(()))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    least = draw(st.integers(0, 5))
    return Policy(
        min_replicas=least,
        max_replicas=draw(st.integers(max(least, 1), 20)),
        targets=(
            Target(metric="load", type=MetricType.AVERAGE_VALUE, value=draw(st.floats(0.1, 100))),
            Target(metric="kv", type=MetricType.VALUE, value=0.85),
        ),
        up=draw(BEHAVIORS),
        down=draw(BEHAVIORS),
        fallback=draw(st.none() | st.integers(0, 30)),
    )


@given(policy=policies(), looks=st.lists(st.tuples(FIGURES, FIGURES, st.integers(0, 5)), max_size=40))
def test_decisions_stay_within_bounds_and_rates(policy: Policy, looks: list) -> None:
    replicas, memory = max(policy.min_replicas, 1), Memory()
    for number, (load, kv, starting) in enumerate(looks):
        figures = {name: figure for name, figure in (("load", load), ("kv", kv)) if figure is not None}
        ready = max(0, replicas - starting)
        decision = decide(policy, Seen(now=15.0 * number, replicas=replicas, ready=ready, figures=figures), memory)
        assert policy.min_replicas <= decision.replicas <= policy.max_replicas
        assert decision.reason
        assert len(decision.memory.wishes) <= 22
        assert len(decision.memory.changes) <= 121
        replicas, memory = decision.replicas, decision.memory


@given(load=st.floats(0, 10_000), replicas=st.integers(1, 20))
def test_a_steady_load_leads_to_one_number_and_stays_there(load: float, replicas: int) -> None:
    policy = Policy(max_replicas=20, targets=(Target(metric="load", type=MetricType.AVERAGE_VALUE, value=16),))
    memory, seen = Memory(), []
    for number in range(200):
        decision = decide(
            policy, Seen(now=15.0 * number, replicas=replicas, ready=replicas, figures={"load": load}), memory
        )
        replicas, memory = decision.replicas, decision.memory
        seen.append(replicas)
    assert len(set(seen[-100:])) == 1
    assert replicas == 20 or load / replicas <= 16 * 1.1 * (1 + 1e-9)


@given(load=st.floats(0, 10_000), more=st.floats(0, 1000), replicas=st.integers(1, 20))
def test_more_load_never_wants_fewer_replicas(load: float, more: float, replicas: int) -> None:
    policy = Policy(
        max_replicas=50,
        targets=(Target(metric="load", type=MetricType.AVERAGE_VALUE, value=16),),
        up=Behavior(),
        down=Behavior(),
    )

    def wanted(figure: float) -> int:
        seen = Seen(now=0, replicas=replicas, ready=replicas, figures={"load": figure})
        return decide(policy, seen, Memory()).replicas

    assert wanted(load + more) >= wanted(load)
