"""Releases from the first step to the last, on a world of numbers: the story each tells, and what it leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from inferdock.domain.errors import ConflictError, IntegrityError, UnreachableError
from inferdock.domain.verdict import Verdict
from inferdock.release.judging.gate import Context, Finding
from inferdock.release.machine import State
from inferdock.release.records.mailbox import Wish
from inferdock.release.steps import Target
from tests.support.fake_driver import BY, FakeGate
from tests.support.releases import NEW, OLD, Bench, drafted, plan, request, rollback


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_a_good_revision_ends_as_champion_with_all_traffic_and_the_old_one_gone(bench: Bench) -> None:
    progress = await bench.start()
    world = bench.world
    assert progress.state is State.COMPLETED, progress.outcome
    assert (world.champion_is, world.weights, list(world.fleets)) == ("m@1.1.0", {NEW.revision: 1.0}, [NEW.revision])
    assert world.broken_laws == []
    assert [event.entry.gate for event in progress.judged] == ["digests", "smoke", "slo", "slo", "slo", "slo"]


async def test_the_canary_gets_no_traffic_before_its_gates_are_passed(bench: Bench) -> None:
    bench.gates["smoke"] = FakeGate(bench.world, Verdict.FAIL)
    progress = await bench.start()
    assert progress.state is State.ABORTED
    assert bench.world.counted.keys() <= {OLD.revision}
    assert bench.world.moves == []
    assert (bench.world.weights, list(bench.world.fleets)) == ({OLD.revision: 1.0}, [OLD.revision])


async def test_a_flipped_byte_stops_a_release_before_anything_starts(bench: Bench) -> None:
    bench.gates["digests"] = FakeGate(bench.world, IntegrityError("model.safetensors is not what was pushed."))
    progress = await bench.start()
    assert progress.state is State.ABORTED
    assert not any(act.startswith("start") for act in bench.world.acts)
    assert "model.safetensors" in progress.outcome


async def test_a_revision_that_does_not_start_is_taken_away_again(bench: Bench) -> None:
    bench.world.dead.add(NEW.revision)
    progress = await bench.start()
    assert progress.state is State.ABORTED
    assert "it crashes" in progress.outcome
    assert list(bench.world.fleets) == [OLD.revision]


@pytest.mark.parametrize(
    ("errors", "ttft_s"), [({NEW.revision: 0.2}, {}), ({}, {NEW.revision: 0.9})], ids=["errors", "slow"]
)
async def test_worse_figures_take_the_traffic_away_and_leave_the_champion(
    bench: Bench, errors: dict[str, float], ttft_s: dict[str, float]
) -> None:
    bench.world.errors, bench.world.ttft_s = errors, ttft_s
    progress = await bench.start()
    assert progress.state is State.ABORTED
    assert bench.world.champion_is == "m@1.0.0"
    assert bench.world.weights == {OLD.revision: 1.0}
    assert progress.judged[-1].entry.verdict is Verdict.FAIL
    assert progress.judged[-1].entry.evidence["limits"]


async def test_too_few_requests_pause_and_resume_looks_again(bench: Bench) -> None:
    bench.world.rate = 0.01
    progress = await bench.start()
    assert progress.state is State.PAUSED
    assert bench.world.weights[NEW.revision] == pytest.approx(0.1)
    bench.world.rate = 50
    await bench.world.sleep(60)
    progress = await bench.command(Wish.RESUME)
    assert progress.state is State.COMPLETED, progress.outcome


async def test_a_gate_that_cannot_tell_pauses_and_is_asked_again(bench: Bench) -> None:
    bench.gates["smoke"] = FakeGate(bench.world, UnreachableError("Nobody answers."), RuntimeError("x"), Verdict.PASS)
    for number in (1, 2):
        progress = await (bench.start() if number == 1 else bench.command(Wish.RESUME, number))
        assert progress.state is State.PAUSED
    assert (await bench.command(Wish.RESUME, 3)).state is State.COMPLETED


async def test_errors_during_the_bake_roll_back_by_themselves_to_the_warm_predecessor(bench: Bench) -> None:
    world = bench.world

    def spoil() -> None:
        if world.champion_is == "m@1.1.0":
            world.errors[NEW.revision] = 0.3

    world.passing = spoil
    progress = await bench.start()
    assert progress.state is State.ROLLED_BACK
    assert (world.champion_is, world.weights, list(world.fleets)) == ("m@1.0.0", {OLD.revision: 1.0}, [OLD.revision])
    assert progress.flip_s is not None
    assert progress.flip_s < 1
    assert world.broken_laws == []


async def test_a_new_revision_that_loses_its_replicas_during_the_bake_is_rolled_back(bench: Bench) -> None:
    world = bench.world

    def kill() -> None:
        if world.champion_is == "m@1.1.0":
            world.dead.add(NEW.revision)
            world.kill(NEW.revision)

    world.passing = kill
    assert (await bench.start()).state is State.ROLLED_BACK
    assert world.champion_is == "m@1.0.0"


async def test_without_room_for_both_the_old_fleet_gives_way_and_never_all_of_it(bench: Bench) -> None:
    bench.world.fits = 2
    progress = await bench.start(plan(spare=0))
    assert progress.state is State.COMPLETED, progress.outcome
    assert bench.world.broken_laws == []
    assert bench.world.ready(NEW.revision) >= 1
    assert bench.world.fleets[NEW.revision]["wanted"] == 2


async def test_an_abort_without_room_gives_the_old_fleet_its_replicas_back(bench: Bench) -> None:
    bench.world.fits = 2
    bench.world.errors = {NEW.revision: 0.5}
    progress = await bench.start(plan(spare=0))
    assert progress.state is State.ABORTED
    assert bench.world.fleets[OLD.revision]["wanted"] == 2
    assert bench.world.broken_laws == []


@pytest.mark.parametrize("errors", [0.0, 0.5], ids=["good", "bad"])
async def test_with_room_for_one_and_a_gap_allowed_the_release_ends_either_way(bench: Bench, errors: float) -> None:
    world = bench.world
    world.fits, world.gap, world.errors = 1, True, {NEW.revision: errors}
    one = plan(stable=replace(OLD, replicas=1), to=replace(NEW, replicas=1), spare=0, allow_gap=True)
    progress = await bench.start(one)
    assert progress.state is (State.ABORTED if errors else State.COMPLETED), progress.outcome
    assert world.serving()


async def test_a_champion_that_somebody_moved_meanwhile_is_left_to_them(bench: Bench) -> None:
    bench.world.hook = lambda what: setattr(bench.world, "champion_is", "m@0.9.0") if what == "champion" else None
    progress = await bench.start()
    assert progress.state is State.ROLLED_BACK
    assert bench.world.champion_is == "m@0.9.0"
    assert bench.world.weights == {OLD.revision: 1.0}


async def test_a_warm_rollback_flips_first_and_says_how_long_it_took(bench: Bench) -> None:
    world = bench.world
    world.serve(OLD)
    world.serve(NEW)
    progress = await bench.start(rollback())
    assert progress.state is State.COMPLETED
    assert world.acts[0].startswith("shift")
    assert progress.flip_s == 0
    assert (world.champion_is, list(world.fleets)) == ("m@1.0.0", [OLD.revision])


async def test_a_cold_rollback_starts_the_predecessor_first(bench: Bench) -> None:
    world = bench.world
    world.serve(NEW)
    progress = await bench.start(rollback(ready=0))
    assert progress.state is State.COMPLETED
    assert progress.flip_s is not None
    assert progress.flip_s == pytest.approx(world.start_s, abs=1)
    assert world.broken_laws == []


async def test_a_rollback_is_not_undone_because_the_registry_is_away(bench: Bench) -> None:
    world = bench.world

    def away(what: str) -> None:
        if what == "champion" and world.time < 300:
            raise UnreachableError("No registry.")

    world.serve(OLD)
    world.serve(NEW)
    world.hook = away
    progress = await bench.start(rollback())
    assert progress.state is State.PAUSED
    assert world.weights == {OLD.revision: 1.0}
    await world.sleep(300)
    assert (await bench.command(Wish.RESUME, release="r2")).state is State.COMPLETED
    assert world.champion_is == "m@1.0.0"


async def test_failures_that_pass_are_waited_out(bench: Bench) -> None:
    failed: set[str] = set()

    def once(what: str) -> None:
        if what not in failed:
            failed.add(what)
            raise UnreachableError("Not now.")

    bench.world.hook = once
    progress = await bench.start()
    assert progress.state is State.COMPLETED, progress.outcome
    assert bench.world.broken_laws == []


@pytest.mark.parametrize(
    ("wish", "at", "ends"),
    [
        (Wish.ABORT, "canary", State.ABORTED),
        (Wish.PAUSE, "canary", State.PAUSED),
        (Wish.PROMOTE, "start", State.COMPLETED),
        (Wish.ROLLBACK, "bake", State.ROLLED_BACK),
        (Wish.ABORT, "bake", State.ROLLED_BACK),
    ],
    ids=["abort", "pause", "promote early", "roll back in the bake", "abort in the bake"],
)
async def test_a_command_reaches_the_runner_that_is_at_work(bench: Bench, wish: Wish, at: str, ends: State) -> None:
    world = bench.world
    posted: list[Wish] = []

    def post() -> None:
        reached = {"start": True, "canary": NEW.revision in world.weights, "bake": world.champion_is == "m@1.1.0"}
        if reached[at] and not posted:
            posted.append(wish)
            bench.mailbox("r1").put(request(wish, world, 7, reason="because"))

    world.passing = post
    progress = await bench.start()
    assert progress.state is ends, progress.outcome
    answer = progress.answered[f"{7:032x}"]
    assert (answer.actor, answer.origin) == ("bob", "elsewhere")
    assert world.broken_laws == []


async def test_what_cannot_be_done_now_is_refused_and_the_release_goes_on(bench: Bench) -> None:
    world = bench.world
    posted: list[int] = []

    def post() -> None:
        if world.champion_is == "m@1.1.0" and not posted:
            posted.append(1)
            bench.mailbox("r1").put(request(Wish.PAUSE, world, 7))

    world.passing = post
    progress = await bench.start()
    assert progress.state is State.COMPLETED
    assert "cannot pause" in progress.answered[f"{7:032x}"].reason


async def test_one_release_at_a_time(bench: Bench) -> None:
    bench.world.rate = 0.01
    await bench.start()
    with pytest.raises(ConflictError, match="r1 is paused"):
        await bench.start(plan(id="r3"))


async def test_a_second_runner_is_told_who_is_at_work(bench: Bench) -> None:
    seen: list[str] = []

    class Intruder(FakeGate):
        async def check(self, target: Target, context: Context) -> Finding:
            try:
                await bench.desk().start(drafted(plan(id="r9")), BY)
            except ConflictError as exc:
                seen.append(exc.message)
            return await super().check(target, context)

    bench.gates["smoke"] = Intruder(bench.world)
    await bench.start()
    assert seen == ["A release is being worked on by the test."]


async def test_what_cannot_be_put_back_fails_and_can_be_tried_again_or_closed(bench: Bench) -> None:
    world = bench.world
    world.errors = {NEW.revision: 0.5}

    def away(what: str) -> None:
        if what.startswith("shift") and NEW.revision not in what and world.time > 25 and world.time < 5000:
            raise UnreachableError("No gateway.")

    world.hook = away
    progress = await bench.start()
    assert progress.state is State.FAILED
    assert "No gateway" in progress.outcome
    await world.sleep(5000)
    assert (await bench.command(Wish.RESUME)).state is State.ABORTED
    assert world.weights == {OLD.revision: 1.0}


async def test_evidence_that_no_journal_can_hold_does_not_stop_a_release(bench: Bench) -> None:
    class Odd(FakeGate):
        async def check(self, target: Target, context: Context) -> Finding:
            finding = await super().check(target, context)
            return Finding(verdict=finding.verdict, reason="\udcff" * 9000, evidence={"x": object()})

    bench.gates["smoke"] = Odd(bench.world)
    progress = await bench.start()
    assert progress.state is State.COMPLETED
    assert "left_out" in progress.judged[1].entry.evidence


async def test_resuming_brings_back_what_a_restarted_platform_lost(bench: Bench) -> None:
    world = bench.world
    world.rate = 0.01
    assert (await bench.start()).state is State.PAUSED
    del world.fleets[NEW.revision]
    world.weights, world.rate = {OLD.revision: 1.0}, 50
    assert (await bench.command(Wish.RESUME)).state is State.COMPLETED


async def test_a_pause_in_a_gap_can_be_resumed(bench: Bench) -> None:
    world = bench.world
    world.fits, world.gap = 1, True
    bench.gates["smoke"] = FakeGate(world, Verdict.INCONCLUSIVE, Verdict.PASS)
    one = plan(stable=replace(OLD, replicas=1), to=replace(NEW, replicas=1), spare=0, allow_gap=True)
    assert (await bench.start(one)).state is State.PAUSED
    assert (await bench.command(Wish.RESUME)).state is State.COMPLETED


async def test_a_fleet_that_is_not_whole_is_not_made_smaller(bench: Bench) -> None:
    world = bench.world
    world.fits = 2
    ready: list[int] = []
    world.hook = lambda what: ready.append(world.ready(OLD.revision)) if what.startswith("scale") else None
    world.serve(OLD)
    world.kill(OLD.revision)
    assert (await bench.start(plan(spare=0))).state is State.COMPLETED
    assert ready == [2]
