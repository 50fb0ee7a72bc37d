"""A runner that is killed at any change it makes on disk, and the one that takes over.

The platform is a file of numbers that outlives the runner. A write is cut in the middle, so half a line is among what
the next runner finds.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from inferdock.domain.errors import RegistryError
from inferdock.domain.verdict import Verdict
from inferdock.release.machine import State
from inferdock.release.plan import Plan
from inferdock.release.progress import Progress
from inferdock.release.records.mailbox import Wish
from inferdock.release.steps import Patience
from tests.support.crash import deaths
from tests.support.fake_driver import BY, FakeGate, World
from tests.support.releases import NEW, OLD, QUICK, Bench, drafted, plan, request, rollback


class Spoiling(World):
    """Its new revision begins to fail once it is champion."""

    async def sleep(self, seconds: float) -> None:
        if self.champion_is == "m@1.1.0":
            self.errors[NEW.revision] = 0.4
        await super().sleep(seconds)


def bench(folder: Path, case: str) -> Bench:
    """What a process finds when it starts."""
    kind = Spoiling if case == "bake" else World
    world = kind(path=folder / "world.json", fits=2 if case == "replace" else 1000)
    if case == "worse":
        world.errors = {NEW.revision: 0.5}
    made = Bench(folder, world.load())
    if case == "gate":
        made.gates["smoke"] = FakeGate(world, Verdict.FAIL)
    return made


CASES: dict[str, tuple[State, dict[str, Any]]] = {
    "good": (State.COMPLETED, {}),
    "replace": (State.COMPLETED, {"spare": 0}),
    "gate": (State.ABORTED, {}),
    "worse": (State.ABORTED, {}),
    "bake": (State.ROLLED_BACK, {}),
    "rollback": (State.COMPLETED, {}),
}


SLOW_LOOKS = Patience(poll_s=5, watch_s=5)


def planned(case: str) -> Plan:
    if case == "rollback":
        return rollback(id="r1", patience=SLOW_LOOKS)
    return plan(**CASES[case][1], rules=replace(QUICK, patience=SLOW_LOOKS))


async def take_over(folder: Path, case: str) -> Progress:
    """What a person does after a crash: resume, or start again where nothing had begun."""
    late = bench(folder, case)
    try:
        return await late.command(Wish.RESUME)
    except RegistryError:
        progress = late.look()
        if progress is not None:
            return progress
        return await late.desk().start(drafted(planned(case)), BY)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES)
def test_whoever_takes_over_brings_the_release_to_its_end(tmp_path: Path, case: str) -> None:
    folder = tmp_path / "platform"
    ends = CASES[case][0]

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        world = bench(folder, case).world
        world.serve(OLD)
        if case == "rollback":
            world.serve(NEW)

    def work() -> None:
        asyncio.run(bench(folder, case).desk().start(drafted(planned(case)), BY))

    steps = 0
    for step in deaths(work, prepare):
        progress = asyncio.run(take_over(folder, case))
        world = bench(folder, case).world
        home = OLD if ends is not State.COMPLETED or case == "rollback" else NEW
        assert progress.state is ends, f"step {step}: {progress.state}, {progress.outcome}"
        assert world.broken_laws == [], f"step {step}"
        assert world.weights == {home.revision: 1.0}, f"step {step}"
        assert world.champion_is == home.reference, f"step {step}"
        assert world.fleets[home.revision]["wanted"] == home.replicas, f"step {step}"
        assert NEW.revision in world.fleets or home is OLD, f"step {step}"
        steps = step
    assert steps > 30


def test_a_command_that_was_taken_before_the_crash_is_not_followed_twice(tmp_path: Path) -> None:
    made = Bench(tmp_path)
    made.world.rate = 0.01
    asyncio.run(made.start())
    wish = request(Wish.ABORT, made.world, 5)
    asyncio.run(made.desk().command("r1", wish))
    asyncio.run(made.mailbox("r1").post(wish))
    progress = asyncio.run(made.desk().command("r1", wish))
    assert progress.state is State.ABORTED
    assert asyncio.run(made.mailbox("r1").waiting()) == []
