"""Commands to a runner in another process: taken, refused, or not answered."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from inferdock.domain.errors import ConflictError, RegistryError, UnreachableError
from inferdock.domain.verdict import Verdict
from inferdock.release.machine import State
from inferdock.release.records.lease import FileLease
from inferdock.release.records.mailbox import Wish
from tests.support.fake_driver import FakeGate
from tests.support.releases import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def _until_it_runs(bench: Bench) -> None:
    while (progress := bench.look()) is None or progress.next < 3:
        await asyncio.sleep(0)


async def test_a_command_returns_when_the_runner_has_taken_it(bench: Bench) -> None:
    bench.gates["smoke"] = FakeGate(bench.world, Verdict.PASS, takes_s=1000)
    running = asyncio.ensure_future(bench.start())
    await _until_it_runs(bench)
    assert (await bench.command(Wish.PAUSE)).state is State.PAUSED
    assert (await running).state is State.PAUSED


async def test_a_command_that_cannot_be_followed_is_refused_by_the_runner(bench: Bench) -> None:
    bench.gates["smoke"] = FakeGate(bench.world, Verdict.PASS, takes_s=20)
    running = asyncio.ensure_future(bench.start())
    await _until_it_runs(bench)
    with pytest.raises(ConflictError, match="is running, and cannot resume"):
        await bench.command(Wish.RESUME)
    assert (await running).state is State.COMPLETED


async def test_a_runner_that_does_not_answer_is_named_and_the_command_is_taken_back(bench: Bench) -> None:
    bench.world.rate = 0.01
    await bench.start()
    stuck = FileLease(bench.folder / "lease")
    await stuck.acquire("ada, process 7")
    with pytest.raises(UnreachableError, match="ada, process 7"):
        await bench.command(Wish.ABORT)
    assert await bench.mailbox("r1").waiting() == []
    await stuck.release()
    assert (await bench.command(Wish.ABORT)).state is State.ABORTED


async def test_a_command_for_no_release_is_said_so(bench: Bench) -> None:
    with pytest.raises(RegistryError, match="no release r1"):
        await bench.command(Wish.ABORT)


async def test_what_is_over_takes_no_command(bench: Bench) -> None:
    await bench.start()
    for number, wish in enumerate(Wish):
        with pytest.raises(ConflictError, match=f"is completed, and cannot {wish}"):
            await bench.command(wish, number)


async def test_a_release_promoted_by_hand_names_who_did_it_and_what_was_left_out(
    bench: Bench,
) -> None:
    bench.gates["smoke"] = FakeGate(bench.world, Verdict.INCONCLUSIVE)
    await bench.start()
    progress = await bench.command(Wish.PROMOTE)
    assert progress.state is State.COMPLETED
    events = await bench.journals.events("r1")
    promoted = progress.answered[f"{1:032x}"]
    assert (promoted.actor, promoted.origin) == ("bob", "elsewhere")
    assert any(getattr(event.entry, "note", "") == "left out: promoted by hand" for event in events)


async def test_the_registrys_history_names_the_release(bench: Bench) -> None:
    await bench.start()
    ((reference, reason),) = bench.world.moves
    assert reference == "m@1.1.0"
    assert reason.startswith("release r1: ")
