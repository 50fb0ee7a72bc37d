"""Sessions, bounded load and the ring."""

from collections import Counter

import pytest

from inferdock.balance.board import Board
from inferdock.balance.endpoint import Endpoint
from inferdock.balance.endpoints import State, Wanted
from inferdock.balance.hashing import key_of
from inferdock.balance.ring import Ring
from tests.unit.balance.sets import lease, named, ready_set, spec, visit

SESSIONS = [Wanted(session=b"user-%d" % number) for number in range(400)]


@pytest.mark.parametrize("policy", ["least_outstanding", "prefix"])
def test_a_session_stays_with_its_endpoint_under_every_policy(policy):
    endpoints = ready_set("a", "b", "c", policy=policy)
    for wanted in SESSIONS[:20]:
        assert len({visit(endpoints, wanted) for _ in range(5)}) == 1


def test_sessions_spread_over_the_endpoints():
    endpoints = ready_set("a", "b", "c", "d")
    found = Counter(visit(endpoints, wanted) for wanted in SESSIONS)
    assert min(found.values()) > 60  # 100 each, give or take the ring's unevenness


def test_requests_of_one_session_stay_together_up_to_the_floor():
    endpoints = ready_set("a", "b", affinity_floor=4)
    leases = [lease(endpoints, SESSIONS[0]) for _ in range(5)]
    assert len({found.endpoint for found in leases[:4]}) == 1
    assert leases[4].endpoint is not leases[0].endpoint


def test_a_session_leaves_a_busy_endpoint_and_comes_back():
    endpoints = ready_set("a", "b", "c")
    home = named(endpoints, visit(endpoints, SESSIONS[0]))
    home.waiting = 20
    away = visit(endpoints, SESSIONS[0])
    assert away != home.spec.name
    assert visit(endpoints, SESSIONS[0]) == away
    home.waiting = 0
    assert visit(endpoints, SESSIONS[0]) == home.spec.name


def test_load_that_all_share_parts_no_session():
    endpoints = ready_set("a", "b", "c")
    home = visit(endpoints, SESSIONS[0])
    for endpoint in endpoints:
        endpoint.waiting = 20
    assert visit(endpoints, SESSIONS[0]) == home


def test_sessions_of_an_unready_endpoint_move_and_only_they():
    endpoints = ready_set("a", "b", "c")
    before = [visit(endpoints, wanted) for wanted in SESSIONS]
    named(endpoints, "b").state = State.UNREADY
    after = [visit(endpoints, wanted) for wanted in SESSIONS]
    assert all(was == "b" for was, now in zip(before, after, strict=True) if was != now)
    assert "b" not in after


def test_a_session_keeps_to_the_limit():
    endpoints = ready_set("a", "b")
    wanted = Wanted(session=b"s", limit=1)
    assert lease(endpoints, wanted).endpoint is not lease(endpoints, wanted).endpoint
    assert endpoints.lease("m", wanted) is None


def test_a_session_avoids_what_failed():
    endpoints = ready_set("a", "b")
    home = lease(endpoints, SESSIONS[0]).endpoint
    assert lease(endpoints, SESSIONS[0], avoid=(home,)).endpoint is not home


def test_workers_agree_on_the_ring():
    members = [Endpoint(spec(f"replica-{n}"), slot=n, board=Board.private(8)) for n in range(4)]
    one, other = Ring(members), Ring(members[::-1])
    for number in range(50):
        key = key_of(b"%d" % number)
        assert list(one.walk(key, 5)) == list(other.walk(key, 5))


def test_the_ring_of_nobody_is_empty():
    assert list(Ring([]).walk(0, 5)) == []


def test_keys_are_the_same_in_every_process():
    assert key_of(b"inferdock") == 1413469877
