"""Weights of revisions."""

from collections import Counter

import pytest

from inferdock.balance.endpoints import EndpointSet, State, Wanted
from inferdock.balance.traffic import Traffic
from tests.unit.balance.sets import lease, named, ready_set, spec, visit

SESSIONS = [Wanted(session=b"user-%d" % number) for number in range(1000)]


def two_revisions(stable: int = 2, canary: int = 1) -> EndpointSet:
    return ready_set(
        *(spec(f"stable-{n}", revision="stable") for n in range(stable)),
        *(spec(f"canary-{n}", revision="canary") for n in range(canary)),
    )


def revisions(endpoints: EndpointSet, count: int, wanted: Wanted | None = None) -> Counter[str]:
    return Counter(visit(endpoints, wanted).partition("-")[0] for _ in range(count))


def test_without_weights_all_endpoints_share():
    assert revisions(two_revisions(), 30) == {"stable": 20, "canary": 10}


@pytest.mark.parametrize("weight", [1, 5, 10, 33, 50, 99])
def test_a_canary_has_its_share_of_every_hundred_requests(weight):
    endpoints = two_revisions()
    endpoints.set_traffic("m", {"stable": 100 - weight, "canary": weight})
    assert [revisions(endpoints, 100)["canary"] for _ in range(3)] == [weight] * 3


def test_a_revision_of_weight_0_gets_what_names_it_and_nothing_else():
    endpoints = two_revisions()
    endpoints.set_traffic("m", {"stable": 1, "canary": 0})
    assert revisions(endpoints, 50) == {"stable": 50}
    assert revisions(endpoints, 5, Wanted(revision="canary")) == {"canary": 5}
    assert revisions(endpoints, 50, SESSIONS[0]) == {"stable": 50}


def test_a_revision_that_is_not_named_gets_nothing():
    endpoints = two_revisions()
    endpoints.set_traffic("m", {"stable": 100})
    assert revisions(endpoints, 50) == {"stable": 50}


def test_the_share_of_a_revision_that_is_not_ready_goes_to_the_others():
    endpoints = two_revisions()
    endpoints.set_traffic("m", {"stable": 90, "canary": 10})
    named(endpoints, "canary-0").state = State.UNREADY
    assert revisions(endpoints, 50) == {"stable": 50}
    named(endpoints, "canary-0").state = State.READY
    assert revisions(endpoints, 100) == {"stable": 90, "canary": 10}


def test_when_no_weighted_revision_is_ready_one_without_weight_serves():
    endpoints = two_revisions()
    endpoints.set_traffic("m", {"stable": 0, "canary": 1})
    named(endpoints, "canary-0").state = State.UNREADY
    assert revisions(endpoints, 10) == {"stable": 10}
    assert endpoints.has_ready("m")


def test_when_nothing_is_ready_there_is_no_lease():
    endpoints = two_revisions(stable=1)
    endpoints.set_traffic("m", {"stable": 9, "canary": 1})
    for endpoint in endpoints:
        endpoint.state = State.UNREADY
    assert endpoints.lease("m") is None
    assert not endpoints.has_ready("m")


def test_weights_without_any_endpoint_make_no_lease():
    endpoints = ready_set()
    endpoints.set_traffic("m", {"stable": 1})
    assert endpoints.lease("m") is None


def test_weights_stay_while_endpoints_come_and_go():
    endpoints = two_revisions()
    endpoints.set_traffic("m", {"stable": 100})
    endpoints.replace([])
    endpoints.replace([spec("stable-0", revision="stable"), spec("canary-0", revision="canary")])
    for endpoint in endpoints:
        endpoint.state = State.READY
    assert revisions(endpoints, 10) == {"stable": 10}


def test_setting_the_same_weights_again_keeps_the_count():
    endpoints = two_revisions()
    found: Counter[str] = Counter()
    for _ in range(100):
        endpoints.set_traffic("m", {"stable": 90, "canary": 10})
        found += revisions(endpoints, 1)
    assert found == {"stable": 90, "canary": 10}


@pytest.mark.parametrize("nothing", [None, {}])
def test_weights_can_be_taken_away(nothing):
    endpoints = two_revisions()
    endpoints.set_traffic("m", {"stable": 100})
    endpoints.set_traffic("m", nothing)
    assert revisions(endpoints, 30) == {"stable": 20, "canary": 10}


@pytest.mark.parametrize("weights", [{"a": -1}, {"a": float("nan")}, {"a": float("inf")}, {"a": 0, "b": 0}])
def test_weights_that_make_no_sense_are_refused(weights):
    with pytest.raises(ValueError, match="weight"):
        Traffic(weights)


def test_within_a_revision_the_policy_chooses():
    endpoints = two_revisions()
    endpoints.set_traffic("m", {"stable": 100})
    assert [visit(endpoints) for _ in range(4)] == ["stable-0", "stable-1"] * 2


def test_sessions_stay_with_their_revision_and_spread_by_weight():
    endpoints = two_revisions()
    endpoints.set_traffic("m", {"stable": 90, "canary": 10})
    first = [visit(endpoints, wanted).partition("-")[0] for wanted in SESSIONS]
    assert first == [visit(endpoints, wanted).partition("-")[0] for wanted in SESSIONS]
    assert 70 <= first.count("canary") <= 130


def test_more_weight_only_brings_sessions_to_a_revision():
    endpoints = two_revisions()
    endpoints.set_traffic("m", {"stable": 90, "canary": 10})
    before = [visit(endpoints, wanted).partition("-")[0] for wanted in SESSIONS]
    endpoints.set_traffic("m", {"stable": 70, "canary": 30})
    after = [visit(endpoints, wanted).partition("-")[0] for wanted in SESSIONS]
    assert {now for was, now in zip(before, after, strict=True) if was != now} == {"canary"}


# -- Full and failing revisions -----------------------------------------------------------------------------------


def test_what_is_too_much_for_the_canary_goes_to_the_stable_revision():
    endpoints = two_revisions()
    endpoints.set_traffic("m", {"stable": 50, "canary": 50})
    found = Counter(lease(endpoints, Wanted(limit=10)).endpoint.spec.revision for _ in range(30))
    assert found == {"stable": 20, "canary": 10}


def test_what_is_too_much_for_the_stable_revision_waits():
    endpoints = two_revisions(stable=1)
    endpoints.set_traffic("m", {"stable": 90, "canary": 10})
    wanted = Wanted(limit=5)
    leases = [endpoints.lease("m", wanted) for _ in range(40)]
    held = Counter(found.endpoint.spec.revision for found in leases if found is not None)
    assert held == {"stable": 5, "canary": 1}  # after nine for the stable one it would be the canary's turn again


def test_a_request_that_failed_on_the_canary_is_tried_on_the_stable_revision():
    endpoints = two_revisions()
    endpoints.set_traffic("m", {"stable": 1, "canary": 99})
    canary = named(endpoints, "canary-0")
    assert {lease(endpoints, avoid=(canary,)).endpoint.spec.revision for _ in range(50)} == {"stable"}


def test_a_request_that_failed_everywhere_is_tried_again_where_its_turn_is():
    endpoints = two_revisions(stable=1)
    endpoints.set_traffic("m", {"stable": 1, "canary": 0})
    everyone = tuple(endpoints)
    assert lease(endpoints, avoid=everyone).endpoint.spec.revision == "stable"
