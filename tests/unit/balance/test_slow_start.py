"""Slow start."""

from collections import Counter

import pytest

from inferdock.balance.endpoints import State, Wanted
from inferdock.balance.slow_start import scales
from tests.unit.balance.sets import Clock, lease, named, ready_set


@pytest.mark.parametrize(
    ("ages", "expected"),
    [
        ([20, 10, 5, 2, 0], [1, 1, 2, 5, 10]),
        ([0, 0.01], [1, 1]),
        ([5, 5], [1, 1]),
        ([-3, 10], [10, 1]),
        ([], []),
    ],
    ids=["all ages", "all new", "all half", "before its time", "nobody"],
)
def test_the_younger_counts_as_busier(ages, expected):
    assert scales(ages, 10) == pytest.approx(expected)


def with_a_new_one(clock: Clock):
    endpoints = ready_set("a", "b", clock=clock, slow_start_s=10)
    clock.now += 20
    b = named(endpoints, "b")
    b.state = State.UNREADY
    b.state = State.READY
    return endpoints


@pytest.mark.parametrize(("after_s", "share"), [(0, 0.1), (5, 0.5), (10, 1.0)])
def test_a_new_endpoint_holds_a_growing_share_of_what_the_other_holds(clock, after_s, share):
    endpoints = with_a_new_one(clock)
    clock.now += after_s
    held = Counter(lease(endpoints).endpoint.spec.name for _ in range(100))
    assert held["b"] / held["a"] == pytest.approx(share, abs=0.03)


def test_leases_from_its_first_moments_count_rightly_later(clock):
    endpoints = with_a_new_one(clock)
    leases = [lease(endpoints) for _ in range(50)]
    clock.now += 10
    leases += [lease(endpoints) for _ in range(50)]
    assert [endpoint.in_flight for endpoint in endpoints] == [50, 50]
    for found in leases:
        found.release()
    assert [endpoint.outstanding for endpoint in endpoints] == [0, 0]


def test_an_idle_new_endpoint_is_tried(clock):
    endpoints = with_a_new_one(clock)
    assert {lease(endpoints).endpoint.spec.name for _ in range(2)} == {"a", "b"}


def test_the_only_endpoint_takes_everything(clock):
    endpoints = ready_set("a", clock=clock, slow_start_s=10)
    assert all(endpoints.lease("m") for _ in range(100))


def test_where_all_are_new_sessions_stay_together(clock):
    endpoints = ready_set("a", "b", clock=clock, slow_start_s=10)
    assert len({lease(endpoints, Wanted(session=b"s")).endpoint for _ in range(4)}) == 1


def test_a_readmitted_endpoint_starts_slowly(clock):
    endpoints = ready_set("a", "b", clock=clock, slow_start_s=10)
    clock.now += 20
    endpoints.attempt_failed(named(endpoints, "b"), clock.now, refused=True)
    clock.now += 5
    held = Counter(lease(endpoints).endpoint.spec.name for _ in range(110))
    assert held == {"a": 100, "b": 10}


def test_a_busy_new_endpoint_passes_sessions_on_by_its_scaled_load(clock):
    endpoints = ready_set("a", "b", clock=clock, slow_start_s=10, affinity_floor=1)
    clock.now += 20
    sessions = [Wanted(session=b"%d" % n) for n in range(200)]
    named(endpoints, "b").state = State.UNREADY
    named(endpoints, "b").state = State.READY
    held = Counter(lease(endpoints, wanted).endpoint.spec.name for wanted in sessions)
    assert held["b"] <= 20  # a tenth
