"""Passive ejection: the state machine alone, and in the set."""

import pytest

from inferdock.balance.ejection import CLEAN, Record, Rules, check_passed, failed, readmitted, succeeded
from inferdock.balance.endpoints import EndpointSet, State, Wanted
from tests.unit.balance.sets import Clock, lease, named, ready_set, spec, visit

RULES = Rules(failures=3, base_s=5, max_s=60, max_share=0.5)


def fail(record: Record, now: float, *, refused: bool = False, room: bool = True) -> Record:
    return failed(record, now, refused=refused, room=room, rules=RULES)


def ejected_times(times: int) -> Record:
    record = CLEAN
    for _ in range(times):
        record = fail(record, record.until, refused=True)
    return record


# -- The state machine --------------------------------------------------------------------------------------------


def test_failures_in_a_row_eject():
    record = fail(fail(CLEAN, 1), 2)
    assert record.until == 0
    assert fail(record, 3).until == 8


def test_a_refused_connection_ejects_at_once():
    assert fail(CLEAN, 1, refused=True).until == 6


def test_a_success_in_between_makes_failures_forgotten():
    record = succeeded(fail(fail(CLEAN, 1), 2), 3, rules=RULES)
    assert record is CLEAN


@pytest.mark.parametrize(("times", "length_s"), [(1, 5), (2, 10), (3, 15), (12, 60), (50, 60)])
def test_each_ejection_lasts_longer_up_to_a_cap(times, length_s):
    before = ejected_times(times - 1)
    assert fail(before, before.until, refused=True).until - before.until == length_s


def test_stragglers_do_not_lengthen_an_ejection():
    record = fail(CLEAN, 1, refused=True)
    assert fail(record, 2, refused=True) is record
    assert succeeded(record, 2, rules=RULES) is record


def test_successes_halve_past_ejections_once_per_base_time():
    record = ejected_times(4)
    times = [record.until + seconds for seconds in (1, 5, 6, 10, 15)]
    seen = []
    for now in times:
        record = succeeded(record, now, rules=RULES)
        seen.append(record.ejections)
    assert seen == [4, 2, 2, 1, 0]
    assert record is CLEAN


def test_without_room_failures_are_remembered_but_nobody_is_ejected():
    record = CLEAN
    for _ in range(10):
        record = fail(record, 1, refused=True, room=False)
    assert record.until == 0
    assert fail(record, 2).until == 7


def test_a_passed_check_ends_an_ejection_for_a_refused_connection_only():
    refused = fail(CLEAN, 1, refused=True)
    assert check_passed(refused, 2).until == 2
    failing = fail(fail(fail(CLEAN, 1), 1), 1)
    assert check_passed(failing, 2) is failing


def test_readmission_remembers_how_often_it_was():
    record = readmitted(ejected_times(2), 6)
    assert (record.until, record.ejections) == (6, 2)
    assert readmitted(CLEAN, 6) is CLEAN


@pytest.mark.parametrize(
    ("share", "ready", "allowed"),
    [(0.5, 0, 0), (0.5, 1, 0), (0.5, 2, 1), (0.5, 3, 1), (0.5, 4, 2), (0.1, 4, 1), (1, 4, 3), (0, 4, 0)],
)
def test_so_many_may_be_out_at_once(share, ready, allowed):
    assert Rules(max_share=share).allowed(ready) == allowed


# -- In the set ---------------------------------------------------------------------------------------------------


def names(endpoints: EndpointSet, count: int = 12) -> set[str]:
    return {visit(endpoints) for _ in range(count)}


def test_an_ejected_endpoint_gets_nothing_until_its_time_is_over(clock: Clock):
    endpoints = ready_set("a", "b", clock=clock)
    assert endpoints.attempt_failed(named(endpoints, "a"), clock.now, refused=True)
    assert names(endpoints) == {"b"}
    clock.now += 4.9
    assert names(endpoints) == {"b"}
    clock.now += 0.1
    assert names(endpoints) == {"a", "b"}


def test_three_failed_requests_eject(clock: Clock):
    endpoints = ready_set("a", "b", clock=clock)
    a = named(endpoints, "a")
    assert [endpoints.attempt_failed(a, clock.now, refused=False) for _ in range(3)] == [False, False, True]
    assert a.ejected(clock.now)
    assert names(endpoints) == {"b"}


def test_a_success_between_failures_keeps_an_endpoint_in(clock: Clock):
    endpoints = ready_set("a", "b", clock=clock)
    a = named(endpoints, "a")
    for _ in range(5):
        assert not endpoints.attempt_failed(a, clock.now, refused=False)
        assert not endpoints.attempt_failed(a, clock.now, refused=False)
        endpoints.attempt_succeeded(a, clock.now)


def test_no_more_than_half_are_ejected(clock: Clock):
    endpoints = ready_set("a", "b", "c", "d", clock=clock)
    out = [endpoints.attempt_failed(endpoint, clock.now, refused=True) for endpoint in endpoints]
    assert out == [True, True, False, False]
    assert names(endpoints) == {"c", "d"}


def test_the_only_endpoint_stays(clock: Clock):
    endpoints = ready_set("a", clock=clock)
    assert not endpoints.attempt_failed(named(endpoints, "a"), clock.now, refused=True)
    assert names(endpoints) == {"a"}


def test_when_the_others_become_unready_the_ejected_one_serves_again(clock: Clock):
    endpoints = ready_set("a", "b", clock=clock)
    a, b = endpoints
    endpoints.attempt_failed(a, clock.now, refused=True)
    b.state = State.UNREADY
    assert names(endpoints) == {"a"}


def test_the_one_that_was_out_longest_serves_first_when_too_many_are_out(clock: Clock):
    endpoints = ready_set("a", "b", "c", "d", clock=clock)
    a, b, c, d = endpoints
    endpoints.attempt_failed(a, clock.now, refused=True)
    clock.now += 1
    endpoints.attempt_failed(b, clock.now, refused=True)
    c.state = d.state = State.UNREADY
    assert names(endpoints) == {"a"}


def test_a_passed_check_brings_a_refusing_endpoint_back(clock: Clock):
    endpoints = ready_set("a", "b", clock=clock)
    a = named(endpoints, "a")
    endpoints.attempt_failed(a, clock.now, refused=True)
    endpoints.check_passed(a, clock.now + 1)
    clock.now += 1
    assert names(endpoints) == {"a", "b"}


def test_a_passed_check_does_not_bring_a_failing_endpoint_back(clock: Clock):
    endpoints = ready_set("a", "b", clock=clock)
    a, b = endpoints
    for _ in range(3):
        endpoints.attempt_failed(a, clock.now, refused=False)
    endpoints.check_passed(a, clock.now)
    endpoints.check_passed(b, clock.now)
    assert names(endpoints) == {"b"}


def test_an_endpoint_that_becomes_ready_anew_is_not_ejected_any_more(clock: Clock):
    endpoints = ready_set("a", "b", clock=clock)
    a = named(endpoints, "a")
    endpoints.attempt_failed(a, clock.now, refused=True)
    a.state = State.UNREADY
    a.state = State.READY
    assert names(endpoints) == {"a", "b"}


def test_what_is_gone_or_not_ready_is_not_ejected(clock: Clock):
    endpoints = ready_set("a", "b", "c", clock=clock)
    a, b, _ = endpoints
    b.state = State.UNREADY
    endpoints.replace([endpoint.spec for endpoint in endpoints if endpoint is not a])
    assert not endpoints.attempt_failed(a, clock.now, refused=True)
    assert not endpoints.attempt_failed(b, clock.now, refused=True)
    endpoints.replace([])
    assert not endpoints.attempt_failed(a, clock.now, refused=True)
    endpoints.check_passed(a, clock.now)


def test_a_named_revision_is_served_even_if_all_of_it_is_ejected(clock: Clock):
    endpoints = ready_set(spec("a", revision="r1"), spec("b", revision="r2"), clock=clock)
    endpoints.attempt_failed(named(endpoints, "b"), clock.now, refused=True)
    assert names(endpoints) == {"a"}
    assert lease(endpoints, Wanted(revision="r2")).endpoint.spec.name == "b"
    assert endpoints.lease("m", Wanted(revision="r2", limit=1)) is None


def test_leases_of_an_ejected_endpoint_are_counted_to_the_end(clock: Clock):
    endpoints = ready_set("a", "b", clock=clock)
    held = lease(endpoints)
    endpoints.attempt_failed(held.endpoint, clock.now, refused=True)
    assert held.endpoint.spec.name not in names(endpoints)
    held.release()
    clock.now += 5
    assert names(endpoints) == {"a", "b"}
    assert held.endpoint.in_flight == 0
