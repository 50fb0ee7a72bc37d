"""Releases in a cluster while streams go on: simulated engines behind the pods, a real gateway that follows the API."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from inferdock.domain.errors import ConflictError
from inferdock.domain.verdict import Verdict
from inferdock.release.machine import State
from inferdock.release.plan import Plan
from inferdock.release.records.mailbox import Wish
from inferdock.release.steps import Shadow, Shift
from inferdock.sim.options import SimOptions
from tests.support.cluster_platform import NAME, NEW, OLD, add_template, objects
from tests.support.cluster_traffic import (
    PATIENCE,
    Service,
    body,
    judge,
    release_plan,
    rollback_plan,
    service,
)
from tests.support.fake_cluster_pods import PodPlan
from tests.support.fake_driver import FakeGate
from tests.support.release_load import Streams

pytestmark = pytest.mark.timeout(240)
RATE = 8.0


def streams(made: Service) -> Streams:
    return Streams(f"{made.url}/v1/chat/completions", rate=RATE, body=body, judge=judge)


async def _settled(made: Service, sent: Streams, revision: str, within_s: float = 30.0) -> float:
    """Seconds until every new stream is answered by one revision."""
    began = time.monotonic()
    async with asyncio.timeout(within_s):
        while True:
            fresh = [one for one in sent.all if one.sent > time.monotonic() - 0.7 and one.revision]
            if len(fresh) > 3 and {one.revision for one in fresh} == {revision}:
                break
            await asyncio.sleep(0.05)
    others = [one.sent for one in sent.all if one.sent > began and one.revision not in ("", revision)]
    return max(others, default=began) - began


async def test_a_release_its_rollback_and_an_abort_lose_nothing(tmp_path: Path) -> None:
    async with service(tmp_path) as made, streams(made) as sent:
        await sent.reach(5)
        progress = await made.start(release_plan("r1"))
        assert progress.state is State.COMPLETED, progress.outcome
        assert made.champion.champion_is == NEW.reference
        await _settled(made, sent, NEW.revision)
        await made.platform.until_gone(OLD)

        progress = await made.start(rollback_plan("r2"))
        assert progress.state is State.COMPLETED, progress.outcome
        assert made.champion.champion_is == OLD.reference
        assert progress.flip_s is not None
        await _settled(made, sent, OLD.revision)

        running = asyncio.create_task(made.start(release_plan("r3", hold_s=20)))
        await made.until("r3", lambda now: isinstance(now.plan.steps[now.next - 1], Shift))
        await asyncio.sleep(1)
        began = time.monotonic()
        aborted = await made.command("r3", Wish.ABORT, 7)
        settled = await _settled(made, sent, OLD.revision)
        assert aborted.answered
        progress = await running
        assert progress.state is State.ABORTED, progress.outcome
        await sent.end()
        flips = [f"{seconds:.2f}" for seconds in (progress.flip_s or -1, settled, time.monotonic() - began)]
        shares = {name: sum(one.revision == name for one in sent.all) for name in (OLD.revision, NEW.revision)}
        print(f"\n{len(sent.all)} streams at {sent.rate:.1f}/s, {shares}; flip, last stray stream, all: {flips} s")
        assert sent.faults == []
        assert all(shares.values())


async def test_a_release_is_rolled_back_during_the_bake_in_a_second(tmp_path: Path) -> None:
    async with service(tmp_path) as made, streams(made) as sent:
        running = asyncio.create_task(made.start(release_plan("r1", bake_s=60, hold_s=0.5)))
        await made.until("r1", lambda now: now.state is State.BAKING)
        await made.command("r1", Wish.ROLLBACK, 7)
        seconds = await _settled(made, sent, OLD.revision)
        progress = await running
        assert progress.state is State.ROLLED_BACK, progress.outcome
        assert made.champion.champion_is == OLD.reference
        await sent.end()
        print(f"\nflip {progress.flip_s:.2f} s, last stray stream after {seconds:.2f} s, {len(sent.all)} streams")
        assert sent.faults == []
        assert progress.flip_s is not None
        assert progress.flip_s < 30


async def test_a_gate_that_fails_takes_all_back(tmp_path: Path) -> None:
    async with service(tmp_path) as made, streams(made) as sent:
        made.gates["smoke"] = FakeGate(made.champion, Verdict.FAIL)
        progress = await made.start(release_plan("r1"))
        assert progress.state is State.ABORTED, progress.outcome
        await made.platform.until_gone(NEW)
        await sent.end()
        assert sent.faults == []
        assert {one.revision for one in sent.all} == {OLD.revision}


async def test_a_worse_revision_is_stopped_by_its_figures(tmp_path: Path) -> None:
    slow = {NEW.revision: SimOptions(model=NAME, ttft_s=0.8, itl_s=0.005, weights=2)}
    async with service(tmp_path, engines=slow) as made, streams(made) as sent:
        rules = release_plan("r1", hold_s=2, weights=(0.5, 1.0))
        judged = replace(rules, limits=replace(rules.limits, ttft_p95_s=0.4))
        progress = await made.start(judged)
        assert progress.state is State.ABORTED, progress.outcome
        assert "TTFT" in progress.outcome or "ttft" in progress.outcome.lower()
        await sent.end()
        assert sent.faults == []


async def test_with_a_pod_that_has_no_place_the_release_says_so_and_goes_back(tmp_path: Path) -> None:
    plan = replace(release_plan("r1"), patience=replace(PATIENCE, start_s=10))
    async with service(tmp_path) as made, streams(made) as sent:
        made.platform.work.room = len(made.platform.work.lives)
        progress = await made.start(plan)
        assert progress.state is State.ABORTED, progress.outcome
        assert "Insufficient nvidia.com/gpu" in progress.outcome
        assert made.champion.champion_is == OLD.reference
        await sent.end()
        assert sent.faults == []


async def test_a_revision_that_crashes_is_given_up_at_its_deadline(tmp_path: Path) -> None:
    async with service(tmp_path, work={"deadline_s": 1.0}) as made:
        made.platform.work.plan = lambda pod: PodPlan(trouble="CrashLoopBackOff", exit_code=11)
        progress = await made.start(release_plan("r1"))
        assert progress.state is State.ABORTED, progress.outcome
        assert "exit code 11" in progress.outcome


async def test_slow_rollouts_and_an_api_that_comes_and_goes_only_take_longer(tmp_path: Path) -> None:
    async with service(tmp_path, work={"slices_late_s": 0.3}) as made, streams(made) as sent:
        made.platform.work.plan = lambda pod: PodPlan(startup_s=1.5)
        over = asyncio.Event()
        weather = asyncio.create_task(_weather(made, over))
        progress = await made.start(release_plan("r1"))
        while progress.state is State.PAUSED:
            progress = await made.command("r1", Wish.RESUME, int(time.monotonic() * 1000))
        over.set()
        await weather
        assert progress.state is State.COMPLETED, progress.outcome
        await _settled(made, sent, NEW.revision)
        await sent.end()
        assert sent.faults == []


async def _weather(made: Service, over: asyncio.Event) -> None:
    """The API is away for half a second, watches expire, answers are lost; over and over."""
    cluster = made.platform.cluster
    while not over.is_set():
        for number in range(3):
            await asyncio.sleep(1.5)
            if number == 0:
                await cluster.go_away()
                await asyncio.sleep(0.4)
                cluster.away = False
            elif number == 1:
                await cluster.expire()
            else:
                cluster.fault("lose", 2, method="PATCH")


async def test_two_runners_do_not_work_at_once_and_the_second_may_command_the_first(tmp_path: Path) -> None:
    async with service(tmp_path) as made, streams(made) as sent:
        running = asyncio.create_task(made.start(release_plan("r1", hold_s=30)))
        await made.until("r1", lambda now: now.next > 3)
        with pytest.raises(ConflictError, match="a runner of the test"):
            await made.start(release_plan("r2"))
        paused = await made.command("r1", Wish.PAUSE, 5)
        assert paused.state is State.PAUSED
        assert (await running).state is State.PAUSED
        with pytest.raises(ConflictError, match="r1 is paused"):
            await made.start(release_plan("r2"))
        assert (await made.command("r1", Wish.ABORT, 6)).state is State.ABORTED
        await sent.end()
        assert sent.faults == []


async def test_somebody_who_scales_by_hand_is_named_and_the_release_pauses_or_goes_back(tmp_path: Path) -> None:
    plan = replace(release_plan("r1", bake_s=1, hold_s=0.5), patience=replace(PATIENCE, drain_s=4))
    async with service(tmp_path) as made, streams(made) as sent:
        name = made.platform.deployment(OLD)["metadata"]["name"]
        made.platform.cluster.scale("ns", name, 3, manager="kubectl")
        progress = await made.start(plan)
        assert progress.state is State.PAUSED, progress.outcome
        assert "kubectl" in progress.outcome
        await sent.end()
        assert sent.faults == []
        assert made.champion.champion_is == NEW.reference


async def test_a_release_of_another_model_goes_on_beside(tmp_path: Path) -> None:
    async with service(tmp_path) as made, streams(made) as sent:
        other = replace_model(release_plan("other-1"))
        cluster, work = made.platform.cluster, made.platform.work
        add_template(cluster, "other", _named(objects("other"), "llm-other"), name="llm-other-template")
        beside = Service(type(made.platform)(cluster, made.platform.api, work, "other"), made.url, tmp_path)
        beside.platform.made_of = _named(objects("other"), "llm-other")
        await beside.platform.install(OLD)
        await beside.platform.until_ready(OLD, 2)
        beside.champion.champion_is = OLD.reference
        both = await asyncio.gather(made.start(release_plan("r1")), beside.start(other))
        assert [one.state for one in both] == [State.COMPLETED, State.COMPLETED], [one.outcome for one in both]
        for one in (made, beside):
            seen = await one.platform.driver().observe()
            assert seen.weights == {NEW.revision: 100.0}
        await sent.end()
        assert sent.faults == []


def replace_model(plan: Plan) -> Plan:
    """Of the other model, whose figures nobody has."""
    steps = tuple(step for step in plan.steps if getattr(step, "gate", "") != "slo")
    return replace(plan, model="other", steps=tuple(_short(step) for step in steps))


def _short(step: object) -> object:
    return replace(step, samples=0, seconds=0.2) if hasattr(step, "samples") else step  # type: ignore[type-var]


def _named(made_of: list[dict], base: str) -> list[dict]:
    for one in made_of:
        one["metadata"] = {**one["metadata"], "name": one["metadata"]["name"].replace("llm-demo", base)}
    return made_of


async def test_with_an_autoscaler_the_canary_has_all_its_replicas_before_it_has_the_traffic(tmp_path: Path) -> None:
    async with service(tmp_path, scaler="keda", least=1, most=4) as made, streams(made) as sent:
        progress = await made.start(release_plan("r1"))
        assert progress.state is State.COMPLETED, progress.outcome
        assert made.platform.scaled_object(NEW)["spec"]["minReplicaCount"] == 1
        await made.platform.until_gone(OLD)
        with contextlib.suppress(TimeoutError):
            await made.platform.until(lambda: len(made.platform.pods(NEW)) == 2, 5)
        await sent.end()
        assert sent.faults == []


async def test_copies_go_to_the_new_revision_before_the_canary_and_nobody_notices(tmp_path: Path) -> None:
    async with service(tmp_path) as made, streams(made) as sent:
        rules = Shadow(share=0.5, hold_s=2, hold_limit_s=60, min_samples=5)
        progress = await made.start(release_plan("r1", shadow=rules))
        assert progress.state is State.COMPLETED, progress.outcome
        (copies,) = [event for event in progress.judged if getattr(event.entry, "gate", "") == "shadow"]
        print(f"\n{copies.reason}")
        assert getattr(copies.entry, "verdict", None) is Verdict.PASS
        await sent.end()
        assert sent.faults == []


async def test_without_room_for_both_the_fleets_change_places_one_by_one(tmp_path: Path) -> None:
    async with service(tmp_path) as made, streams(made) as sent:
        made.platform.work.room = 2
        room = await made.platform.driver().room(NEW)
        assert room.replicas is not None  # the pods of this template ask for no GPU, so it is the fake that counts
        progress = await made.start(release_plan("r1", spare=0))
        assert progress.state is State.COMPLETED, progress.outcome
        assert progress.plan.mode == "replace"
        await made.platform.until_ready(NEW, 2)
        await sent.end()
        assert sent.faults == []
