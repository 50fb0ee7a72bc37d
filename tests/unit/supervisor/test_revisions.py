"""Revisions come, are scaled, get weight and go, while others serve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from inferdock.config.settings import EngineSettings, Settings
from inferdock.domain.errors import IntegrityError, ModelError, RequestError
from inferdock.domain.shadow import Shadow
from inferdock.supervisor.chores import Chores
from inferdock.supervisor.drain import Drain
from inferdock.supervisor.engine import Machine
from inferdock.supervisor.replica import ReplicaState
from inferdock.supervisor.revisions import MOST_REVISIONS, Revisions
from tests.support.revisions import FakeFinder, FakeGateway, FakeReplica, version

GIB = 1024**3
OLD, NEW, NEWER = version("1.0.0"), version("1.1.0"), version("1.2.0")
CPU = Machine(cpus=(0, 1))
ONE_GPU = Machine(cpus=(0, 1), gpu_names=("0",))


class Stage:
    """Revisions on a machine of the test's choice; version 1.0.0 serves with one replica."""

    def __init__(self, *, machine: Machine = CPU, kind: str = "sim", available: int | None = None) -> None:
        self.replicas: list[FakeReplica] = []
        self.gateway = FakeGateway()
        self.finder = FakeFinder(OLD, NEW, NEWER, version("2.0.0", name="other"))
        self.chores = Chores()
        self.said: list[str] = []
        self.seats: list = []
        self.left_in_engine: int | None = 0
        self.it = Revisions(
            settings=Settings(engine=EngineSettings(kind=kind)),
            machine=machine,
            name="m",
            finder=self.finder,
            launch=lambda model, seat, port: self.seats.append((model.folder, seat)),
            new_replica=self._new_replica,
            chores=self.chores,
            gateway=self.gateway,
            drain=Drain(self.gateway, self._requests_in),
            available=lambda: available,
            changed=lambda: None,
            say=self.said.append,
        )
        self.gateway.offer = self.it.offer
        self.it.begin(OLD)
        self.replicas[0].be_ready()

    def _new_replica(self, index: int, revision: str, launch) -> FakeReplica:
        self.replicas.append(FakeReplica(index, revision, launch))
        return self.replicas[-1]

    async def _requests_in(self, url: str) -> int | None:
        return self.left_in_engine

    def row(self, model=NEW) -> dict:
        return next(row for row in self.it.rows()["revisions"] if row["revision"] == model.revision)

    async def until(self, wanted: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not wanted():
                await asyncio.sleep(0.01)

    async def add(self, model=NEW, replicas: int = 1) -> None:
        """Start a further revision, and make its replicas ready."""
        await self.it.put(model.source, replicas)
        await self.until(lambda: not self.row(model)["pulling"])
        for replica in self.replicas:
            if replica.revision == model.revision:
                replica.be_ready()


@pytest.fixture
async def stages():
    """Make stages; all are cleared."""
    made: list[Stage] = []

    def make(**options) -> Stage:
        made.append(Stage(**options))
        return made[-1]

    yield make
    for one in made:
        await one.chores.cancel()


@pytest.fixture
async def stage(stages) -> Stage:
    return stages()


def refused(code: str):
    return pytest.raises(RequestError, check=lambda error: error.code == code)


async def test_one_revision_has_all_requests_without_weights_at_the_gateway(stage):
    assert stage.it.weights == {OLD.revision: 1.0}
    assert stage.it.offer().weights == {}


async def test_a_new_revision_is_pulled_started_and_gets_no_request(stage):
    assert await stage.it.put(NEW.source, 2) == NEW.revision
    assert (stage.row()["pulling"], stage.row()["wanted"]) == (True, 2)
    assert stage.it.offer().weights == {OLD.revision: 1.0, NEW.revision: 0.0}
    await stage.until(lambda: stage.replicas[-1].alive)
    stage.replicas[-1].be_ready()
    assert (stage.row()["ready"], stage.row()["serves"]) == (1, [stage.replicas[-1].url])
    assert stage.it.weights == {OLD.revision: 1.0, NEW.revision: 0.0}
    assert stage.finder.found == ["m@1.1.0"]


async def test_replicas_keep_their_numbers_to_themselves(stage):
    await stage.add(NEW, 2)
    stage.it.scale(NEW.revision, 1)
    await stage.until(lambda: stage.row()["stopping"] == 0)
    stage.it.scale(NEW.revision, 2)
    assert [replica.name for replica in stage.replicas] == ["replica-0", "replica-1", "replica-2", "replica-3"]


async def test_asking_for_the_same_again_changes_nothing(stage):
    await stage.add(NEW, 2)
    await stage.it.put(NEW.source, 2)
    await stage.it.put(OLD.source, 1)
    assert (len(stage.replicas), stage.finder.found) == (3, ["m@1.1.0"])


async def test_endpoints_of_all_revisions_are_offered_under_one_name(stage):
    await stage.add()
    offer = stage.it.offer()
    assert {(e["model"], e["revision"]) for e in offer.endpoints} == {("m", OLD.revision), ("m", NEW.revision)}
    assert len({e["digest"] for e in offer.endpoints}) == 2


async def test_replicas_share_the_processors_with_those_of_their_own_revision_only(stage):
    await stage.add(NEW, 2)
    for replica in stage.replicas:
        replica.launch(replica.index, 1)
    assert [(seat.index, seat.replicas) for _, seat in stage.seats] == [(0, 1), (0, 2), (1, 2)]
    assert stage.seats[1][0] is not None  # the folder that was pulled, not what was looked up


async def test_what_is_not_there_is_said(stage):
    with pytest.raises(ModelError, match="There is no nowhere"):
        await stage.it.put("nowhere", 1)


async def test_a_version_of_another_model_is_refused(stage):
    with refused("another_model"):
        await stage.it.put("other@2.0.0", 1)
    assert list(stage.it.fleets) == [OLD.revision]


async def test_more_revisions_than_any_release_needs_are_refused(stage):
    more = [version(f"3.0.{n}") for n in range(MOST_REVISIONS)]
    stage.finder.models |= {model.source: model for model in more}
    for model in more[:-1]:
        await stage.it.put(model.source, 1)
    with refused("too_many_revisions"):
        await stage.it.put(more[-1].source, 1)


@pytest.mark.parametrize(
    ("options", "replicas", "reason"),
    [
        ({}, None, "Neither main memory nor GPUs"),
        ({"kind": "vllm"}, None, "Neither main memory nor GPUs"),
        ({"kind": "vllm", "available": 5 * GIB}, 2, "5.0 GiB are free and a replica takes 1.9 GiB."),
        ({"kind": "vllm", "available": 1 * GIB}, 0, "1.0 GiB are free and a replica takes 1.9 GiB."),
        ({"kind": "vllm", "available": 1000 * GIB}, 64, "1000.0 GiB are free and a replica takes 1.9 GiB."),
        ({"kind": "vllm", "machine": ONE_GPU}, 0, "1 of 1 GPUs are in use and a replica takes 1."),
    ],
    ids=["simulated", "unknown", "two fit", "none fits", "as many as there may be", "the GPU is taken"],
)
async def test_room_is_what_could_be_started_now_and_its_reason(stages, options, replicas, reason):
    stage = stages(**options)
    found = await stage.it.room(NEW.source)
    assert (found["replicas"], reason in found["reason"]) == (replicas, True), found
    if replicas:
        await stage.it.put(NEW.source, replicas)


async def test_replicas_on_their_way_have_their_memory_already(stages):
    stage = stages(kind="vllm", available=5 * GIB)
    await stage.it.put(NEW.source, 2)
    assert (await stage.it.room(NEWER.source))["replicas"] == 0


async def test_one_that_is_being_taken_away_has_the_room_that_it_has(stages):
    stage = stages(kind="vllm", machine=Machine(cpus=(0, 1), gpu_names=("0", "1")))
    await stage.add()
    await stage.it.weigh({NEW.revision: 1})
    stage.gateway.in_flight = 1
    stage.it.retire(OLD.revision)
    found = await stage.it.room(OLD.source)
    assert (found["replicas"], "may stay" in found["reason"]) == (1, True)
    assert (await stage.it.room(NEWER.source))["replicas"] == 0


async def test_what_stops_holds_its_room_and_that_is_said(stages):
    stage = stages(kind="vllm", machine=Machine(cpus=(0, 1), gpu_names=("0", "1")))
    await stage.add()
    stage.left_in_engine = 1
    stage.it.scale(NEW.revision, 0)
    found = await stage.it.room(NEWER.source)
    assert (found["replicas"], "1 replica(s) are stopping" in found["reason"]) == (0, True)


async def test_what_does_not_fit_into_memory_is_refused_before_it_is_fetched(stages):
    stage = stages(kind="vllm", available=3 * GIB)
    with refused("no_memory"):
        await stage.it.put(NEW.source, 2)
    await stage.it.put(NEW.source, 1)
    with refused("no_memory"):  # the first has not taken its memory yet, but it will
        await stage.it.put(NEWER.source, 1)


async def test_without_a_spare_gpu_a_replica_must_go_first(stages):
    stage = stages(kind="vllm", machine=ONE_GPU)
    with refused("no_spare_gpu"):
        await stage.it.put(NEW.source, 1)
    stage.it.scale(OLD.revision, 0)
    await stage.until(lambda: stage.row(OLD)["stopping"] == 0)
    await stage.it.put(NEW.source, 1)


@pytest.mark.parametrize(
    ("failure", "words"),
    [(IntegrityError("A byte is wrong."), "A byte is wrong."), (OSError("disk"), "could not be fetched")],
    ids=["damaged", "unexpected"],
)
async def test_one_that_cannot_be_fetched_says_why_and_may_be_tried_again(stage, failure, words):
    stage.finder.failures[NEW.source] = failure
    await stage.it.put(NEW.source, 1)
    await stage.until(lambda: not stage.row()["pulling"])
    assert words in stage.row()["problem"]
    assert stage.replicas[-1].history == []
    del stage.finder.failures[NEW.source]
    await stage.add()
    assert (stage.row()["problem"], stage.row()["ready"]) == ("", 1)


async def test_what_has_changed_since_it_was_looked_up_is_not_started(stage):
    await stage.it.put(NEW.source, 1)
    stage.finder.models[NEW.source] = NEWER
    await stage.until(lambda: not stage.row()["pulling"])
    assert "has changed" in stage.row()["problem"]


async def test_one_that_is_taken_away_while_it_is_fetched_never_starts(stage):
    await stage.it.put(NEW.source, 1)
    stage.it.retire(NEW.revision)
    await stage.until(lambda: len(stage.it.fleets) == 1)
    await stage.until(lambda: bool(stage.finder.found))
    await asyncio.sleep(0.05)
    assert "started" not in stage.replicas[-1].history


async def test_weights_are_passed_on_as_shares(stage):
    await stage.add()
    assert await stage.it.weigh({OLD.revision: 3, NEW.revision: 1}) == {OLD.revision: 0.75, NEW.revision: 0.25}
    assert stage.gateway.offers[-1].weights == {OLD.revision: 3, NEW.revision: 1}
    assert [row["weight"] for row in stage.it.rows()["revisions"]] == [0.75, 0.25]


async def test_a_revision_that_is_not_named_gets_no_weight(stage):
    await stage.add()
    assert await stage.it.weigh({NEW.revision: 0.5}) == {OLD.revision: 0.0, NEW.revision: 1.0}
    assert stage.it.main.revision == NEW.revision


async def test_a_silent_gateway_is_said_and_gets_the_weights_later(stage):
    await stage.add()
    stage.gateway.answers = False
    with refused("gateway_silent"):
        await stage.it.weigh({NEW.revision: 1})
    assert stage.it.offer().weights == {OLD.revision: 0, NEW.revision: 1}


@pytest.mark.parametrize(
    ("weights", "code"),
    [({}, "bad_request"), ({OLD.revision: 0}, "bad_request"), ({"nobody": 1}, "unknown_revision")],
    ids=["none", "all are 0", "unknown"],
)
async def test_weights_that_make_no_sense_change_nothing(stage, weights, code):
    await stage.add()
    with refused(code):
        await stage.it.weigh(weights)
    assert stage.it.weights == {OLD.revision: 1.0, NEW.revision: 0.0}


async def test_copies_of_requests_are_offered_until_their_revision_goes(stage):
    new = await stage.it.put("m@1.1.0", 1)
    await stage.it.mirror(Shadow(new, 0.1))
    assert stage.gateway.offers[-1].shadow == Shadow(new, 0.1)
    assert stage.it.rows()["shadow"] == {"revision": new, "share": 0.1}
    stage.it.retire(new)
    assert stage.gateway.offers[-1].shadow is None
    assert stage.it.rows()["shadow"] is None


async def test_copies_of_requests_can_be_ended_at_any_time(stage):
    await stage.it.mirror(None)
    await stage.it.mirror(Shadow(OLD.revision, 1.0))
    await stage.it.mirror(None)
    assert stage.gateway.offers[-1].shadow is None


@pytest.mark.parametrize(("revision", "code"), [("9.9.9-abc", "unknown_revision"), ("1.1.0-abc", "retiring")])
async def test_copies_for_a_revision_that_is_not_there_are_refused(stage, revision, code):
    stage.it.retire(await stage.it.put("m@1.1.0", 1))
    with pytest.raises(RequestError) as refused:
        await stage.it.mirror(Shadow(revision, 0.1))
    assert refused.value.code == code
    assert stage.it.rows()["shadow"] is None


async def test_the_last_revision_stays(stage):
    with refused("last_revision"):
        stage.it.retire(OLD.revision)
    await stage.add()
    stage.it.retire(NEW.revision)
    with refused("last_revision"):  # the other one is going already
        stage.it.retire(OLD.revision)


async def test_a_revision_with_weight_stays(stage):
    await stage.add()
    await stage.it.weigh({OLD.revision: 99, NEW.revision: 1})
    with refused("has_weight"):
        stage.it.retire(NEW.revision)


async def test_a_revision_goes_once_its_requests_have_ended(stage):
    await stage.add()
    await stage.it.weigh({NEW.revision: 1})
    stage.gateway.in_flight = 1
    stage.it.retire(OLD.revision)
    stage.it.retire(OLD.revision)  # again: the same
    await asyncio.sleep(0.6)
    assert [e["revision"] for e in stage.it.offer().endpoints] == [OLD.revision, NEW.revision]
    stage.gateway.in_flight = 0
    await stage.until(lambda: list(stage.it.fleets) == [NEW.revision])
    assert stage.replicas[0].history == ["started", "drained", "stopped"]
    assert stage.it.offer().weights == {}  # the one that is left has all


async def test_requests_that_do_not_end_hold_a_revision_for_the_drain_time_only(stage):
    await stage.add()
    stage.gateway.in_flight = stage.left_in_engine = 1
    stage.gateway.settings.drain_timeout_s = 0.3
    stage.it.retire(NEW.revision)
    await stage.until(lambda: NEW.revision not in stage.it.fleets)


async def test_a_replica_is_stopped_only_after_the_gateway_has_let_it_go_and_its_engine_is_idle(stage):
    await stage.add(NEW, 2)
    stage.left_in_engine = 1
    stage.it.scale(NEW.revision, 1)
    going = stage.replicas[2]
    await asyncio.sleep(0.6)
    assert (going.state, stage.row()["stopping"]) == (ReplicaState.DRAINING, 1)
    assert going.name not in [endpoint["name"] for endpoint in stage.gateway.offers[-1].endpoints]
    stage.left_in_engine = 0
    await stage.until(lambda: stage.row()["stopping"] == 0)
    assert going.history == ["started", "drained", "stopped"]


async def test_of_several_the_one_that_does_not_serve_goes_first(stage):
    await stage.add(NEW, 2)
    stage.replicas[1].state = ReplicaState.WAITING
    stage.it.scale(NEW.revision, 1)
    await stage.until(lambda: stage.row()["stopping"] == 0)
    assert [replica.name for replica in stage.it.fleets[NEW.revision].replicas] == ["replica-2"]


async def test_a_revision_that_still_serves_stays_when_it_is_wanted_after_all(stage):
    await stage.add()
    stage.gateway.in_flight = 1
    stage.it.retire(NEW.revision)
    assert (stage.row()["wanted"], stage.row()["ready"]) == (0, 1)
    with refused("retiring"):
        stage.it.scale(NEW.revision, 2)
    with refused("retiring"):
        await stage.it.weigh({NEW.revision: 1})
    await stage.it.put(NEW.source, 1)
    stage.gateway.in_flight = 0
    await asyncio.sleep(0.6)
    assert (stage.row()["retiring"], stage.row()["wanted"], stage.row()["ready"]) == (False, 1, 1)
    assert stage.replicas[-1].history == ["started"]


async def test_a_revision_whose_replicas_stop_is_refused_until_it_is_gone(stage):
    await stage.add()
    stage.left_in_engine = 1
    stage.it.retire(NEW.revision)
    await stage.until(lambda: stage.row()["stopping"] == 1)
    with refused("retiring"):
        await stage.it.put(NEW.source, 1)


@pytest.mark.parametrize("ask", ["scale", "retire"])
async def test_a_revision_that_is_not_there_is_said(stage, ask):
    with refused("unknown_revision"):
        stage.it.scale("nobody", 1) if ask == "scale" else stage.it.retire("nobody")


async def test_a_replica_that_does_not_start_is_a_problem_of_its_revision_only(stage):
    await stage.add()
    broken = stage.replicas[-1]
    broken.state, broken.problem, broken.failed_starts = ReplicaState.WAITING, "It said nothing.", 2
    assert (stage.row()["problem"], stage.row()["failed_starts"]) == ("It said nothing.", 2)
    assert stage.row(OLD)["problem"] == ""
