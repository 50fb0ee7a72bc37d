"""Copies of requests and room, on a world of numbers: sent while they are judged, ended whatever happens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from msgspec.structs import replace

from inferdock.domain.errors import ConfigError
from inferdock.domain.verdict import Verdict
from inferdock.release.judging.gate import Context, Finding
from inferdock.release.machine import State
from inferdock.release.plan import Plan
from inferdock.release.records.mailbox import Wish
from inferdock.release.steps import Shadow, Target
from tests.support.fake_driver import FakeGate, World
from tests.support.releases import NEW, OLD, QUICK, Bench, plan

COPIED = replace(QUICK, shadow=Shadow(share=0.25))


def copied() -> Plan:
    return plan(rules=COPIED)


class Looking(FakeGate):
    """Notes what is copied while it is asked."""

    def __init__(self, world: World, *says: Verdict | BaseException) -> None:
        super().__init__(world, *says)
        self.world = world
        self.seen: list[dict[str, float]] = []

    async def check(self, target: Target, context: Context) -> Finding:
        self.seen.append(dict(self.world.copies))
        return await super().check(target, context)


def bench_of(folder: Path, *says: Verdict | BaseException) -> tuple[Bench, Looking]:
    bench = Bench(folder)
    gate = Looking(bench.world, *says)
    bench.gates["shadow"] = gate
    return bench, gate


async def test_copies_are_sent_while_they_are_judged_and_then_no_more(tmp_path: Path) -> None:
    bench, gate = bench_of(tmp_path)
    progress = await bench.start(copied())
    assert (progress.state, gate.seen) == (State.COMPLETED, [{NEW.revision: 0.25}])
    first = next(n for n, act in enumerate(bench.world.acts) if act.startswith("shift") and NEW.revision in act)
    assert bench.world.acts.index("mirror None 0") < first
    assert bench.world.copies == {}
    assert bench.world.broken_laws == []


@pytest.mark.parametrize(
    ("says", "state"), [(Verdict.FAIL, State.ABORTED), (Verdict.INCONCLUSIVE, State.PAUSED)], ids=["fail", "unsure"]
)
async def test_a_bad_verdict_ends_the_copies_with_the_way_back(tmp_path: Path, says: Verdict, state: State) -> None:
    bench, _ = bench_of(tmp_path, says)
    assert (await bench.start(copied())).state is state
    assert bool(bench.world.copies) is (state is State.PAUSED)
    if state is State.PAUSED:
        assert (await bench.command(Wish.ABORT)).state is State.ABORTED
    assert bench.world.copies == {}
    assert NEW.revision not in bench.world.fleets


async def test_who_resumes_has_them_sent_again_and_judged_anew(tmp_path: Path) -> None:
    bench, gate = bench_of(tmp_path, Verdict.INCONCLUSIVE, Verdict.PASS)
    assert (await bench.start(copied())).state is State.PAUSED
    bench.world.copies = {}  # the platform was restarted, and knows nothing of it
    assert (await bench.command(Wish.RESUME)).state is State.COMPLETED
    assert gate.seen == [{NEW.revision: 0.25}] * 2


async def test_who_promotes_by_hand_leaves_no_copies_behind(tmp_path: Path) -> None:
    bench, _ = bench_of(tmp_path, Verdict.INCONCLUSIVE)
    assert (await bench.start(copied())).state is State.PAUSED
    assert (await bench.command(Wish.PROMOTE)).state is State.COMPLETED
    assert bench.world.copies == {}


@dataclass
class WithoutCopies(World):
    async def mirror(self, revision: str | None, share: float) -> None:
        raise ConfigError("This platform sends no copies.")


async def test_a_platform_that_sends_none_ends_the_release_but_not_its_way_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path, WithoutCopies())
    bench.gates["shadow"] = FakeGate(bench.world)
    progress = await bench.start(copied())
    assert progress.state is State.ABORTED
    assert "sends no copies" in progress.outcome


async def test_what_takes_the_place_of_a_replica_waits_until_that_has_drained(tmp_path: Path) -> None:
    bench = Bench(tmp_path, World(fits=2, drain_s=30.0))
    early: list[str] = []

    def hook(what: str) -> None:
        if what.startswith(f"start {NEW.revision}"):
            drains = any(
                one["gone_at"] is not None for one in bench.world.fleets.get(OLD.revision, {"replicas": []})["replicas"]
            )
            early.extend([what] * drains)

    bench.world.hook = hook
    progress = await bench.start(plan(spare=0))
    assert progress.state is State.COMPLETED
    assert early == []
    assert bench.world.broken_laws == []
