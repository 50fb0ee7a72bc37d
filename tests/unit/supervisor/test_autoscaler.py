"""The loop around the autoscaler's decisions: what it looks at, what it leaves alone, what it does when refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from inferdock.autoscale.figures import KV_CACHE, REQUESTS
from inferdock.autoscale.policy import Behavior, MetricType, Policy, Rate, Target, Unit
from inferdock.domain.errors import RequestError
from inferdock.supervisor.autoscaler import Autoscaler, figures_of
from inferdock.telemetry import names

LOAD = Target(metric=REQUESTS, type=MetricType.AVERAGE_VALUE, value=10)


class FakePlatform:
    """One revision, or more; scaling is remembered, or refused."""

    def __init__(self, wanted: int = 1) -> None:
        self.fleets: dict[str, Any] = {"a": self.fleet("a", wanted)}
        self.room = 100
        self.asked: list[int] = []

    @staticmethod
    def fleet(revision: str, wanted: int) -> Any:
        return SimpleNamespace(revision=revision, wanted=wanted, ready=[None] * wanted, retiring=False)

    def scale(self, revision: str, replicas: int) -> None:
        self.asked.append(replicas)
        if replicas > self.room:
            raise RequestError(422, "There is no room.", code="no_memory")
        self.fleets[revision] = self.fleet(revision, replicas)


class Stage:
    """An autoscaler with everything around it."""

    def __init__(self, **policy: Any) -> None:
        rules = {"max_replicas": 8, "targets": (LOAD,), "up": Behavior(), "down": Behavior(), **policy}
        self.platform = FakePlatform()
        self.status: dict[str, Any] | None = {"in_flight": 0, "endpoints": []}
        self.now = 0.0
        self.said: list[str] = []
        self.scaler = Autoscaler(
            policy=Policy(**rules),
            sync_s=15,
            platform=self.platform,
            status=lambda: self.status,
            say=self.said.append,
            monotonic=lambda: self.now,
        )

    def look(self, in_flight: int | None = None) -> int:
        if in_flight is not None:
            self.status = {"in_flight": in_flight, "endpoints": []}
        self.scaler.look()
        self.now += 15
        return next(iter(self.platform.fleets.values())).wanted


def test_the_fleet_follows_the_load_and_says_why() -> None:
    stage = Stage()
    assert [stage.look(load) for load in (5, 38, 38, 12, 0)] == [1, 4, 4, 2, 1]
    assert stage.said[0] == "1 -> 4 replicas. requests is 38, wanted 10 for each replica: 4."
    assert len(stage.said) == 3


def test_while_two_revisions_are_there_their_replicas_are_not_touched() -> None:
    stage = Stage()
    stage.platform.fleets["b"] = FakePlatform.fleet("b", 1)
    assert stage.look(80) == 1
    assert "a release owns" in stage.scaler.reason
    del stage.platform.fleets["b"]
    assert stage.look(80) == 8


def test_a_revision_that_goes_is_left_alone() -> None:
    stage = Stage()
    stage.platform.fleets["a"].retiring = True
    assert stage.look(80) == 1


def test_a_gateway_that_does_not_answer_changes_nothing() -> None:
    stage = Stage()
    assert stage.look(30) == 3
    stage.status = None
    assert stage.look() == 3


def test_no_room_is_said_once_and_does_not_count_as_done() -> None:
    stage = Stage(up=Behavior(rates=(Rate(unit=Unit.PODS, value=2, period_s=60),)))
    stage.platform.room = 1
    assert [stage.look(80) for _ in range(3)] == [1, 1, 1]
    assert stage.said == ["3 replicas are wanted, but: There is no room."]
    assert stage.scaler.reason.endswith("But: There is no room.")
    stage.platform.room = 100
    assert stage.look(80) == 3


async def test_nothing_wakes_until_something_is_asked() -> None:
    stage = Stage(min_replicas=0, idle_s=30)
    assert [stage.look(0) for _ in range(4)] == [1, 1, 0, 0]
    assert stage.look(1) == 1


@pytest.mark.parametrize(
    ("status", "figures"),
    [
        (None, {}),
        ({}, {KV_CACHE: 0.0}),
        ({"in_flight": 3, "endpoints": []}, {REQUESTS: 3.0, KV_CACHE: 0.0}),
        (
            {
                "in_flight": 3,
                "endpoints": [
                    {"state": "ready", "kv_cache_usage_ratio": 0.5},
                    {"state": "ready", "kv_cache_usage_ratio": 0.7},
                    {"state": "ready", "kv_cache_usage_ratio": None},
                    {"state": "draining", "kv_cache_usage_ratio": 1.0},
                ],
            },
            {REQUESTS: 3.0, KV_CACHE: 0.6},
        ),
        ({"in_flight": "3", "endpoints": [{"state": "ready", "kv_cache_usage_ratio": float("nan")}]}, {}),
    ],
    ids=["no answer", "empty", "no endpoint", "some", "nonsense"],
)
def test_figures_come_from_the_status(status: dict | None, figures: dict) -> None:
    assert figures_of(status) == pytest.approx(figures)


def told(stage: Stage) -> dict[tuple[str, ...], float]:
    return {(one.name, *one.labels): one.value for one in stage.scaler.figures("m")}


def test_metrics_say_what_is_wanted_measured_and_what_holds_it_back() -> None:
    stage = Stage(max_replicas=2)
    stage.look(in_flight=200)
    seen = told(stage)
    assert seen[names.AUTOSCALE_WANTED, "m", "a"] == 2
    assert seen[names.AUTOSCALE_SIGNAL, "m", REQUESTS] == 200
    assert seen[names.AUTOSCALE_TARGET, "m", REQUESTS, "AverageValue"] == 10
    assert seen[names.AUTOSCALE_DECISIONS, "m", "up", "done"] == 1
    assert (seen[names.AUTOSCALE_HELD_BACK, "m", "max_replicas"], seen[names.AUTOSCALE_HELD_BACK, "m", "room"]) == (
        1,
        0,
    )
    stage.look(in_flight=20)
    assert told(stage)[names.AUTOSCALE_HELD_BACK, "m", "max_replicas"] == 0


def test_metrics_say_that_there_was_no_room_and_that_a_release_owns_the_number() -> None:
    stage = Stage()
    stage.platform.room = 1
    stage.look(in_flight=200)
    seen = told(stage)
    assert (seen[names.AUTOSCALE_DECISIONS, "m", "up", "refused"], seen[names.AUTOSCALE_HELD_BACK, "m", "room"]) == (
        1,
        1,
    )
    stage.platform.fleets["b"] = FakePlatform.fleet("b", 1)
    stage.look()
    seen = told(stage)
    assert (seen[names.AUTOSCALE_HELD_BACK, "m", "room"], seen[names.AUTOSCALE_HELD_BACK, "m", "release"]) == (0, 1)
    assert (names.AUTOSCALE_SIGNAL, "m", REQUESTS) not in seen
