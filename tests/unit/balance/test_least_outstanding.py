"""The default policy."""

from inferdock.balance.endpoints import Wanted
from tests.unit.balance.sets import lease, named, ready_set, visit


def test_the_least_loaded_endpoint_is_chosen():
    endpoints = ready_set("a", "b", "c")
    leases = [lease(endpoints) for _ in range(6)]
    leases[4].release()
    assert lease(endpoints).endpoint is leases[4].endpoint


def test_requests_that_wait_in_the_engine_count():
    endpoints = ready_set("a", "b")
    named(endpoints, "a").waiting = 5
    assert [lease(endpoints).endpoint.spec.name for _ in range(5)] == ["b"] * 5
    named(endpoints, "a").waiting = 0
    assert [lease(endpoints).endpoint.spec.name for _ in range(5)] == ["a"] * 5


def test_equals_take_turns():
    endpoints = ready_set("a", "b", "c")
    assert [visit(endpoints) for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]


def test_equals_take_turns_among_busier_ones():
    endpoints = ready_set("a", "b", "c", "d")
    named(endpoints, "a").waiting = named(endpoints, "d").waiting = 1
    assert [visit(endpoints) for _ in range(4)] == ["b", "c", "b", "c"]


def test_retries_of_many_requests_spread_over_the_rest():
    endpoints = ready_set("a", "b", "c")
    failed = named(endpoints, "a")
    found = [lease(endpoints, avoid=(failed,)).endpoint.spec.name for _ in range(6)]
    assert (found.count("b"), found.count("c")) == (3, 3)


def test_prefixes_mean_nothing_to_it():
    endpoints = ready_set("a", "b")
    assert endpoints.prefix_bytes == 0
    assert not endpoints.reads_prompts
    assert {visit(endpoints, Wanted(prefix=b"x" * 4096)) for _ in range(4)} == {"a", "b"}
