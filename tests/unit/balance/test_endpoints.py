"""The endpoint set, leases, and the least-outstanding policy."""

import pytest

from inferdock.balance.endpoints import Endpoint, EndpointSet, State
from inferdock.balance.least_outstanding import LeastOutstanding
from inferdock.domain.endpoint import EndpointSpec


def spec(name: str, *, model: str = "m", port: int = 1, revision: str = "r1") -> EndpointSpec:
    return EndpointSpec(name=name, host="127.0.0.1", port=port, model=model, revision=revision)


def ready_set(*names: str) -> EndpointSet:
    endpoints = EndpointSet(LeastOutstanding())
    endpoints.replace([spec(name) for name in names])
    for endpoint in endpoints:
        endpoint.state = State.READY
    return endpoints


def test_the_least_loaded_endpoint_is_chosen():
    endpoints = ready_set("a", "b")
    first, second = endpoints.lease("m"), endpoints.lease("m")
    assert first is not None
    assert second is not None
    assert {first.endpoint.spec.name, second.endpoint.spec.name} == {"a", "b"}


def test_requests_that_wait_in_the_engine_count():
    endpoints = ready_set("a", "b")
    busy = next(iter(endpoints))
    busy.waiting = 5
    leases = [endpoints.lease("m") for _ in range(4)]
    assert all(lease is not None and lease.endpoint is not busy for lease in leases)


def test_equals_take_turns():
    endpoints = ready_set("a", "b", "c")
    names = []
    for _ in range(6):
        lease = endpoints.lease("m")
        assert lease is not None
        names.append(lease.endpoint.spec.name)
        lease.release()
    assert sorted(names) == ["a", "a", "b", "b", "c", "c"]


def test_releasing_twice_counts_once():
    endpoints = ready_set("a")
    lease = endpoints.lease("m")
    assert lease is not None
    lease.release()
    lease.release()
    assert lease.endpoint.in_flight == 0


def test_an_endpoint_that_is_not_ready_is_never_chosen():
    endpoints = ready_set("a")
    next(iter(endpoints)).state = State.UNREADY
    assert endpoints.lease("m") is None


def test_endpoints_to_avoid_are_taken_only_when_nothing_else_is_ready():
    endpoints = ready_set("a", "b")
    avoided = next(iter(endpoints))
    lease = endpoints.lease("m", avoid=[avoided])
    assert lease is not None
    assert lease.endpoint is not avoided
    lease.endpoint.state = State.UNREADY
    last = endpoints.lease("m", avoid=[avoided])
    assert last is not None
    assert last.endpoint is avoided


def test_a_removed_endpoint_drains_and_keeps_its_leases():
    endpoints = ready_set("a", "b")
    lease = endpoints.lease("m")
    assert lease is not None
    gone = endpoints.replace([spec("c")])
    assert {endpoint.state for endpoint in gone} == {State.DRAINING}
    assert lease.endpoint.in_flight == 1
    lease.release()
    assert lease.endpoint.in_flight == 0


def test_an_unchanged_endpoint_keeps_its_state():
    endpoints = ready_set("a")
    before = next(iter(endpoints))
    assert endpoints.replace([spec("a"), spec("b")]) == []
    assert next(iter(endpoints)) is before


def test_an_endpoint_whose_address_changed_is_a_new_one():
    endpoints = ready_set("a")
    old = next(iter(endpoints))
    assert endpoints.replace([spec("a", port=2)]) == [old]
    assert next(iter(endpoints)).state is State.UNREADY


def test_two_endpoints_of_one_name_are_refused():
    with pytest.raises(ValueError, match="share a name"):
        EndpointSet(LeastOutstanding()).replace([spec("a"), spec("a", port=2)])


def test_outstanding_is_ours_and_the_engines_queue():
    endpoint = Endpoint(spec("a"))
    endpoint.in_flight, endpoint.waiting, endpoint.running = 2, 3, 9
    assert endpoint.outstanding == 5
