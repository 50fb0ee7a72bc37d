"""The endpoint set and its leases."""

import pytest

from inferdock.balance.board import Board
from inferdock.balance.endpoints import MAX_ENDPOINTS, Endpoint, EndpointSet, State, Wanted
from inferdock.balance.least_outstanding import LeastOutstanding
from inferdock.config.settings import BalanceSettings
from tests.unit.balance.sets import lease, named, ready_set, spec, visit


def test_a_set_needs_no_more_than_a_policy():
    endpoints = EndpointSet(LeastOutstanding())
    endpoints.replace([spec("a")])
    named(endpoints, "a").state = State.READY
    assert visit(endpoints) == "a"


def test_an_unknown_model_has_no_lease():
    assert ready_set("a").lease("other") is None


def test_releasing_twice_counts_once():
    endpoints = ready_set("a")
    lease(endpoints)
    second = lease(endpoints)
    second.release()
    second.release()
    assert second.endpoint.in_flight == 1


def test_an_endpoint_that_is_not_ready_is_never_chosen():
    endpoints = ready_set("a")
    named(endpoints, "a").state = State.UNREADY
    assert endpoints.lease("m") is None


def test_endpoints_to_avoid_are_taken_only_when_nothing_else_is_ready():
    endpoints = ready_set("a", "b")
    a, b = endpoints
    assert lease(endpoints, avoid=(a,)).endpoint is b
    b.state = State.UNREADY
    assert lease(endpoints, avoid=(a,)).endpoint is a


def test_a_removed_endpoint_drains_and_keeps_its_leases():
    endpoints = ready_set("a", "b")
    held = lease(endpoints)
    gone = endpoints.replace([spec("c")])
    assert {endpoint.state for endpoint in gone} == {State.DRAINING}
    assert held.endpoint.in_flight == 1
    held.release()
    assert held.endpoint.in_flight == 0


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


def test_models_are_told_apart_and_forgotten_with_their_last_endpoint():
    endpoints = ready_set(spec("a"), spec("b", model="n"))
    assert endpoints.models == ["m", "n"]
    endpoints.replace([spec("b", model="n")])
    assert endpoints.models == ["n"]
    assert endpoints.of_model("m") == []


def test_ready_models_and_revisions_are_known():
    endpoints = ready_set(spec("a"), spec("b", revision="r2"))
    named(endpoints, "b").state = State.UNREADY
    assert endpoints.has_ready("m")
    assert endpoints.has_ready("m", "r1")
    assert not endpoints.has_ready("m", "r2")
    assert not endpoints.has_ready("unknown")


def test_no_endpoint_takes_more_than_the_limit():
    endpoints = ready_set("a", "b")
    wanted = Wanted(limit=2)
    leases = [lease(endpoints, wanted) for _ in range(4)]
    assert endpoints.lease("m", wanted) is None
    leases[0].release()
    assert lease(endpoints, wanted).endpoint is leases[0].endpoint


def test_an_endpoint_below_the_limit_is_found_behind_a_long_engine_queue():
    endpoints = ready_set("a", "b")
    a, b = endpoints
    b.waiting = 50
    assert [lease(endpoints, Wanted(limit=1)).endpoint for _ in range(2)] == [a, b]


def test_a_named_revision_is_kept_even_on_a_retry():
    endpoints = ready_set(spec("a"), spec("b", revision="r2"))
    wanted = Wanted(revision="r2")
    assert lease(endpoints, wanted).endpoint.spec.name == "b"
    assert lease(endpoints, wanted, avoid=(named(endpoints, "b"),)).endpoint.spec.name == "b"
    named(endpoints, "b").state = State.UNREADY
    assert endpoints.lease("m", wanted) is None


# -- The board ----------------------------------------------------------------------------------------------------


def test_outstanding_is_the_gateways_and_the_engines_queue():
    endpoint = Endpoint(spec("a"), slot=0, board=Board.private(1))
    endpoint.count(2)
    endpoint.waiting, endpoint.running = 3, 9
    assert (endpoint.outstanding, endpoint.held) == (5, 2)


def test_an_engine_that_reports_a_negative_queue_draws_no_traffic():
    endpoint = Endpoint(spec("a"), slot=0, board=Board.private(1))
    endpoint.waiting = -1000
    assert endpoint.outstanding == 0


def test_columns_are_used_again_only_when_nobody_holds_requests_there():
    endpoints = ready_set("a")
    held = lease(endpoints)
    endpoints.replace([spec("b")])
    assert named(endpoints, "b").slot != held.endpoint.slot
    held.release()
    endpoints.replace([spec("b"), spec("c")])
    assert named(endpoints, "c").slot == held.endpoint.slot


def test_columns_can_be_given():
    endpoints = ready_set()
    endpoints.replace([spec("a"), spec("b")], {"a": 7, "b": 3})
    assert [endpoint.slot for endpoint in endpoints] == [7, 3]


@pytest.mark.parametrize(
    "slots",
    [{}, {"a": -1}, {"a": MAX_ENDPOINTS}, {"a": 0, "b": 0}],
    ids=["missing", "negative", "too large", "shared"],
)
def test_columns_that_do_not_fit_are_refused_and_change_nothing(slots):
    endpoints = ready_set("z")
    with pytest.raises(ValueError, match="column"):
        endpoints.replace([spec("a"), spec("b")], slots)
    assert [endpoint.spec.name for endpoint in endpoints] == ["z"]


def test_an_endpoint_cannot_move_to_another_column():
    endpoints = ready_set()
    endpoints.replace([spec("a")], {"a": 1})
    with pytest.raises(ValueError, match="cannot move"):
        endpoints.replace([spec("a")], {"a": 2})


def test_more_endpoints_than_columns_are_refused():
    with pytest.raises(ValueError, match="1025 endpoints are more than the 1024"):
        ready_set().replace([spec(str(n)) for n in range(MAX_ENDPOINTS + 1)])


def test_endpoints_that_still_hold_requests_count_towards_the_columns():
    endpoints = ready_set("a", "b", board=Board.private(2))
    held = lease(endpoints)
    with pytest.raises(ValueError, match="still hold requests"):
        endpoints.replace([spec("c"), spec("d")])
    held.release()
    assert len(endpoints.replace([spec("c"), spec("d")])) == 2


def test_what_other_workers_hold_counts():
    board = Board.shared(rows=2, columns=4)
    other = Board.attach(board.fd, rows=2, columns=4, row=1)
    other.add(0, 10)
    endpoints = ready_set("a", "b", board=board)
    leases = [lease(endpoints) for _ in range(10)]
    assert {found.endpoint.spec.name for found in leases} == {"b"}
    assert named(endpoints, "a").outstanding == 10


def test_changes_of_other_workers_are_seen_after_some_milliseconds(clock):
    board = Board.shared(rows=2, columns=4)
    other = Board.attach(board.fd, rows=2, columns=4, row=1)
    endpoints = ready_set("a", "b", board=board, clock=clock)
    visit(endpoints)
    other.add(named(endpoints, "a").slot, 10)
    clock.now += 0.01
    assert {visit(endpoints) for _ in range(4)} == {"b"}


def test_the_limit_counts_other_workers_at_once():
    board = Board.shared(rows=2, columns=4)
    endpoints = ready_set("a", board=board)
    visit(endpoints)
    Board.attach(board.fd, rows=2, columns=4, row=1).add(0, 5)
    assert endpoints.lease("m", Wanted(limit=5)) is None


# -- Settings that change -----------------------------------------------------------------------------------------


def test_other_settings_count_at_once_and_leases_stay():
    endpoints = ready_set("a", "b")
    held = lease(endpoints)
    endpoints.configure(BalanceSettings(policy="prefix", slow_start_s=0))
    assert endpoints.reads_prompts
    assert held.endpoint.in_flight == 1
    endpoints.configure(BalanceSettings(max_ejected_share=0))
    assert not endpoints.reads_prompts
    assert not endpoints.attempt_failed(held.endpoint, 1000.0, refused=True)


def test_a_declared_model_is_known_without_endpoints():
    endpoints = ready_set(spec("a"))
    endpoints.declare(["n"])
    assert endpoints.models == ["m", "n"]
    assert [endpoints.knows(model) for model in ("m", "n", "o")] == [True, True, False]
    assert endpoints.lease("n") is None
