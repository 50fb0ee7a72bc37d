"""A platform's life: releases and rollbacks one after the other, with deaths, commands and mishaps all along.

Whatever one release leaves is what the next begins on, so what a single one may leave undone shows here.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from inferdock.domain.errors import ConflictError, RegistryError, ResourceError
from inferdock.domain.verdict import Verdict
from inferdock.release.machine import OVER, State
from inferdock.release.plan import Plan
from inferdock.release.planner import make_release, make_rollback
from inferdock.release.records.mailbox import Wish
from inferdock.release.steps import Patience, Shadow, Target
from tests.property.test_release import HAPPENINGS, QUIET, CrashError, Fate, _rest
from tests.support.fake_driver import BY, FakeGate, World
from tests.support.releases import NEW, OLD, QUICK, Bench

PATIENCE = Patience(poll_s=2, watch_s=4, start_s=120, drain_s=120)
RULES = replace(QUICK, patience=PATIENCE)
KINDS = ("release", "shadowed", "rollback")
RESTART = "restart"
"""The platform is started anew: with the champion, and nothing else of what it was told."""


@dataclass(frozen=True, slots=True)
class Chapter:
    """One release of a life, and what happens meanwhile.

    Attributes:
        kind: one of ``KINDS``.
        gate: what its gates say first.
        story: what happens, each so many seconds after the one before.
    """

    kind: str
    gate: Verdict
    story: list[tuple[float, str]]


class Restarts(Fate):
    """Fate that also starts the platform anew."""

    def _happen(self, what: str) -> None:
        world = self._bench.world
        if what != RESTART:
            return super()._happen(what)
        champion = next(target for target in (OLD, NEW) if target.reference == world.champion_is)
        world.fleets, world.copies = {}, {}
        world.serve(champion)
        for replica in world.fleets[champion.revision]["replicas"]:
            replica["ready_at"] = world.time + world.start_s


CHAPTER = st.builds(
    Chapter,
    kind=st.sampled_from(KINDS),
    gate=st.sampled_from(list(Verdict)),
    story=st.lists(st.tuples(st.floats(0, 60), HAPPENINGS | st.just(RESTART)), max_size=6),
)


def home_of(world: World) -> tuple[Target, Target]:
    """What serves, and the other one."""
    return (OLD, NEW) if world.weights == {OLD.revision: 1.0} else (NEW, OLD)


def planned(bench: Bench, chapter: Chapter, id: str) -> Plan:
    """As the command line plans: on what it finds.

    Raises:
        ResourceError: there is no room.
    """
    world = bench.world
    home, other = home_of(world)
    spare = world.fits - sum(len(fleet["replicas"]) for fleet in world.fleets.values())
    if chapter.kind == "rollback":
        return make_rollback(
            id=id,
            model="m",
            bad=home,
            to=other,
            champion=world.champion_is,
            ready=world.ready(other.revision),
            spare=spare,
            patience=PATIENCE,
        )
    shadow = Shadow(share=0.5, hold_s=5, hold_limit_s=60) if chapter.kind == "shadowed" else None
    rules = replace(RULES, shadow=shadow)
    champion = world.champion_is
    return make_release(id=id, model="m", stable=home, to=other, rules=rules, champion=champion, spare=spare)


async def live(bench: Bench, chapter: Chapter, id: str) -> State | None:
    """One release to its end, resumed after each death and pause; None where there was no room for it."""
    bench.gates = {name: FakeGate(bench.world, chapter.gate, Verdict.PASS) for name in ("smoke", "shadow")}
    fate = Restarts(bench, chapter.story)

    async def draft() -> Plan:
        return planned(bench, chapter, id)

    for number in range(100, 200):
        if number == 130:
            fate.over()
        try:
            if id not in bench.ids:
                await bench.desk().start(draft, BY)
            else:
                await bench.command(Wish.RESUME, number, release=id)
        except ResourceError:
            return None
        except (CrashError, ConflictError, RegistryError):
            pass
        if (progress := bench.look(id)) is not None and progress.state in OVER:
            fate.over()
            return progress.state
        await _rest(bench.world)
    raise AssertionError("the release has no end")


async def settle(world: World) -> None:
    """Until what was told to go has gone, and what was killed is back."""
    for _ in range(20):
        await world.sleep(5)


def check(world: World, home: Target) -> None:
    """What holds between two releases."""
    assert world.broken_laws == []
    assert world.weights == {home.revision: 1.0}
    assert world.champion_is == home.reference
    assert world.fleets[home.revision]["wanted"] == home.replicas
    assert world.copies == {}
    assert world.serving()
    assert list(world.fleets) == [home.revision], "something was left running"


async def run(bench: Bench, chapters: Sequence[Chapter]) -> None:
    """A whole life."""
    world = bench.world
    for number, chapter in enumerate(chapters, 1):
        home, other = home_of(world)
        state = await live(bench, chapter, f"r{number}")
        Fate(bench, []).over()
        await settle(world)
        check(world, other if state is State.COMPLETED else home)


@settings(QUIET, max_examples=25)
@given(chapters=st.lists(CHAPTER, min_size=2, max_size=4), room=st.sampled_from([1000, 4, 3, 2]))
def test_whatever_happens_in_a_life_of_releases_something_serves_and_nothing_is_left_behind(
    chapters: list[Chapter], room: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), World(fits=room))
        bench.world.serve(OLD)
        asyncio.run(run(bench, chapters))
