"""The replicas of one revision, with lives that the test watches."""

from __future__ import annotations

import asyncio

import pytest

from inferdock.supervisor.chores import Chores
from inferdock.supervisor.fleet import Fleet
from inferdock.supervisor.replica import GIVE_UP_AFTER
from tests.support.revisions import FakeReplica, version


class Stage:
    """A fleet whose replicas leave when the test lets them."""

    def __init__(self) -> None:
        self.made: list[FakeReplica] = []
        self.may_leave = asyncio.Event()
        self.chores = Chores()
        self.fleet = Fleet(
            model=version("1.0.0"),
            digest="d",
            chores=self.chores,
            new_replica=self._new_replica,
            depart=self._depart,
        )

    def _new_replica(self, fleet: Fleet) -> FakeReplica:
        self.made.append(FakeReplica(len(self.made), fleet.revision, None))
        return self.made[-1]

    async def _depart(self, replica: FakeReplica) -> None:
        await self.may_leave.wait()
        await replica.stop(1)


@pytest.fixture
async def stage():
    one = Stage()
    yield one
    await one.chores.cancel()


async def test_replicas_live_once_the_model_is_there(stage):
    stage.fleet.scale(2)
    await asyncio.sleep(0)
    assert [replica.history for replica in stage.made] == [[], []]
    stage.fleet.start(version("1.0.0"))
    await asyncio.sleep(0)
    assert [replica.history for replica in stage.made] == [["started"], ["started"]]


async def test_a_model_that_is_there_twice_starts_nobody_twice(stage):
    stage.fleet.scale(1)
    stage.fleet.start(version("1.0.0"))
    stage.fleet.start(version("1.0.0"))
    await asyncio.sleep(0.01)
    assert stage.made[0].history == ["started"]


async def test_those_that_leave_are_ours_until_they_have_ended(stage):
    stage.fleet.start(version("1.0.0"))
    stage.fleet.scale(3)
    await asyncio.sleep(0)
    stage.fleet.scale(1)
    await asyncio.sleep(0)
    assert (len(stage.fleet.replicas), len(stage.fleet.leaving), len(stage.fleet.everyone)) == (1, 2, 3)
    assert stage.fleet.row(0.5)["stopping"] == 2
    stage.may_leave.set()
    await stage.fleet.empty()
    assert stage.fleet.everyone == [stage.made[0]]
    assert stage.made[1].history[-1] == stage.made[2].history[-1] == "stopped"


async def test_one_whose_leaving_is_cut_short_is_still_ours_to_stop(stage):
    stage.fleet.start(version("1.0.0"))
    stage.fleet.scale(1)
    stage.fleet.scale(0)
    await asyncio.sleep(0)
    await stage.chores.cancel()
    assert stage.fleet.everyone == [stage.made[0]]


async def test_a_row_says_all_that_a_release_looks_at(stage):
    stage.fleet.start(version("1.0.0"))
    stage.fleet.scale(2)
    stage.made[0].be_ready()
    assert stage.fleet.row(0.25) == {
        "revision": "1.0.0-abc",
        "reference": "m@1.0.0",
        "wanted": 2,
        "ready": 1,
        "serves": [stage.made[0].url],
        "weight": 0.25,
        "problem": "",
        "failed_starts": 0,
        "given_up": False,
        "restarts": 0,
        "stopping": 0,
        "pulling": False,
        "retiring": False,
    }


async def test_a_row_says_when_waiting_is_of_no_use(stage):
    stage.fleet.start(version("1.0.0"))
    stage.fleet.scale(2)
    stage.made[1].failed_starts = GIVE_UP_AFTER - 1
    assert stage.fleet.row(0)["given_up"] is False
    stage.made[1].failed_starts = GIVE_UP_AFTER
    assert stage.fleet.row(0)["given_up"] is True


async def test_a_model_that_could_not_be_fetched_is_given_up_until_it_is_fetched_again(stage):
    stage.fleet.problem = "A byte is wrong."
    assert stage.fleet.row(0)["given_up"] is False  # it is being fetched
    stage.fleet.pulling = False
    assert stage.fleet.row(0)["given_up"] is True


async def test_a_chore_that_fails_is_told_and_others_are_ended_with_it():
    chores = Chores()

    async def fails() -> None:
        raise ValueError("broken")

    forever = chores.start(asyncio.Event().wait())
    chores.start(fails())
    with pytest.raises(ValueError, match="broken"):
        await chores.failed()
    await chores.cancel()
    assert forever.cancelled()
