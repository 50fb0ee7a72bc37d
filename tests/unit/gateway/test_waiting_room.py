"""Who waits, in which order, for how long, and who is turned away with which word."""

from __future__ import annotations

import math

import pytest

from inferdock.balance.endpoints import EndpointSet, Lease, State
from inferdock.balance.least_outstanding import LeastOutstanding
from inferdock.balance.wanted import Wanted
from inferdock.config.settings import GatewaySettings
from inferdock.domain.endpoint import EndpointSpec
from inferdock.domain.errors import RequestError
from inferdock.gateway.waiting_room import FRONT, WaitingRoom


class Caller:
    """A waiter that writes down what happens to it."""

    def __init__(
        self, name: str, *, priority: int = 0, deadline: float = math.inf, revision: str | None = None, limit: int = 1
    ) -> None:
        self.name = name
        self.model = "m"
        self.wanted = Wanted(revision=revision, limit=limit)
        self.avoided: list = []
        self.priority = priority
        self.deadline = deadline
        self.lease: Lease | None = None
        self.error: RequestError | None = None
        self.beats = 0

    def granted(self, lease: Lease) -> None:
        self.lease = lease

    def turned_away(self, error: RequestError) -> None:
        self.error = error

    def beat(self, now: float) -> None:
        self.beats += 1


class House:
    """A waiting room with a clock that the test turns."""

    def __init__(self, replicas: int = 1, **settings: object) -> None:
        self.now = 100.0
        self.timers: list = []
        self.endpoints = EndpointSet(LeastOutstanding())
        self.endpoints.replace([EndpointSpec(f"r{i}", "127.0.0.1", 1000 + i, "m", f"v{i}") for i in range(replicas)])
        self.set_state(State.READY)
        self.settings = GatewaySettings(**settings)
        self.room = WaitingRoom(
            endpoints=self.endpoints,
            settings=lambda: self.settings,
            clock=lambda: self.now,
            call_later=lambda after, call: self.timers.append(call),
        )

    def set_state(self, state: State) -> None:
        for endpoint in self.endpoints:
            endpoint.state = state

    def enter(self, caller: Caller) -> Caller:
        lease = self.room.enter(caller)
        if lease is not None:
            caller.granted(lease)
        return caller

    def release(self, caller: Caller) -> None:
        assert caller.lease is not None
        caller.lease.release()
        self.room.released("m")

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        timers, self.timers[:] = list(self.timers), []
        for call in timers:
            call()


def test_a_free_replica_is_given_at_once_and_no_timer_runs():
    house = House()
    assert house.enter(Caller("a")).lease is not None
    assert house.timers == []


def test_who_came_first_goes_first():
    house = House()
    first, second, third = (house.enter(Caller(name)) for name in "abc")
    house.release(first)
    assert (second.lease is not None, third.lease) == (True, None)


def test_a_lower_priority_number_goes_first():
    house = House()
    first = house.enter(Caller("a"))
    slow, quick = house.enter(Caller("slow", priority=5)), house.enter(Caller("quick", priority=-5))
    house.release(first)
    assert (quick.lease is not None, slow.lease) == (True, None)


def test_a_stream_to_be_resumed_goes_before_all_others_even_into_a_full_queue():
    house = House(queue_length=1)
    first, _ = house.enter(Caller("a")), house.enter(Caller("b", priority=-100))
    resumed = house.enter(Caller("resumed", priority=FRONT))
    house.release(first)
    assert resumed.lease is not None


def test_a_full_queue_turns_away_with_the_time_that_it_takes_to_empty():
    house = House(replicas=1, queue_length=10)
    current = house.enter(Caller("first"))
    for _ in range(40):  # ten a second
        house.now += 0.1
        house.release(current)
        current = house.enter(Caller("next"))
    for number in range(10):
        house.enter(Caller(str(number)))
    with pytest.raises(RequestError) as caught:
        house.enter(Caller("too many"))
    assert (caught.value.status, caught.value.code) == (429, "queue_full")
    assert 1 <= (caught.value.retry_after_s or 0) <= 4  # eleven at nearly ten a second


def test_who_cannot_be_served_before_its_deadline_is_told_at_once():
    house = House(queue_length=100)
    current = house.enter(Caller("first"))
    for _ in range(20):  # two a second
        house.now += 0.5
        house.release(current)
        current = house.enter(Caller("next"))
    for number in range(10):
        house.enter(Caller(str(number)))
    with pytest.raises(RequestError) as caught:
        house.enter(Caller("hurry", deadline=house.now + 1))
    assert (caught.value.status, caught.value.code) == (503, "queue_timeout")
    assert house.enter(Caller("patient", deadline=house.now + 60)).error is None


def test_a_wait_that_lasts_too_long_ends_with_503():
    house = House(queue_timeout_s=5)
    house.enter(Caller("a"))
    waiting = house.enter(Caller("b"))
    house.pass_time(4)
    assert (waiting.error, waiting.beats) == (None, 1)
    house.pass_time(2)
    assert waiting.error is not None
    assert (waiting.error.status, waiting.error.code) == (503, "queue_timeout")
    assert house.room.waiting("m") == 0


def test_a_deadline_passes_while_waiting():
    house = House()
    house.enter(Caller("a"))
    waiting = house.enter(Caller("b", deadline=house.now + 1))
    house.pass_time(2)
    assert waiting.error is not None


def test_requests_are_held_while_no_replica_is_ready_and_go_when_one_is():
    house = House(hold_timeout_s=60, queue_timeout_s=1)
    house.set_state(State.UNREADY)
    held = house.enter(Caller("a"))
    house.pass_time(30)
    assert (held.lease, held.error) == (None, None)
    house.set_state(State.READY)
    house.pass_time(0.1)
    assert held.lease is not None


def test_the_hold_ends_too():
    house = House(hold_timeout_s=60)
    house.set_state(State.UNREADY)
    held = house.enter(Caller("a"))
    house.pass_time(61)
    assert held.error is not None
    assert held.error.code == "no_ready_replica"


def test_without_a_hold_the_answer_comes_at_once():
    house = House(hold_timeout_s=0)
    house.set_state(State.UNREADY)
    with pytest.raises(RequestError) as caught:
        house.enter(Caller("a"))
    assert caught.value.code == "no_ready_replica"


def test_who_waits_for_another_revision_does_not_block_the_others():
    house = House(replicas=2)
    on_zero, on_one = house.enter(Caller("a", revision="v0")), house.enter(Caller("b", revision="v1"))
    for_zero, for_one = house.enter(Caller("c", revision="v0")), house.enter(Caller("d", revision="v1"))
    house.release(on_one)
    assert (for_zero.lease, for_one.lease is not None) == (None, True)
    house.release(on_zero)
    assert for_zero.lease is not None


def test_who_leaves_gives_its_place_up():
    house = House(queue_length=1)
    first, second = house.enter(Caller("a")), house.enter(Caller("b"))
    house.room.leave(second)
    third = house.enter(Caller("c"))
    house.release(first)
    assert (second.lease, third.lease is not None) == (None, True)


def test_the_heap_does_not_grow_with_those_who_left():
    house = House(queue_length=10)
    house.enter(Caller("a"))
    for number in range(1000):
        house.room.leave(house.enter(Caller(str(number))))
    assert len(house.room._queues["m"].heap) < 100


def test_at_the_end_of_a_drain_all_are_turned_away():
    house = House()
    house.enter(Caller("a"))
    waiting = house.enter(Caller("b"))
    house.room.turn_all_away(RequestError(503, "over"))
    assert waiting.error is not None
    assert house.room.all_waiting() == {"m": 0}
