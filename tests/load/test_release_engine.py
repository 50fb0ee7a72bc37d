"""Releases of the demo model on real vLLM under streams: one goes through, bad ones are stopped, a cold way back.

``RELEASE_WORSE_MODEL`` is a folder with a worse model, instead of one that is trained for a moment here.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from inferdock.evaluation.tasks import DEMO
from inferdock.release.machine import OVER, State
from tests.docs.pages import ROOT
from tests.support.release_load import UNTIMED, Streams, Watcher, asked, quantiles, whole
from tests.support.release_place import Place

pytestmark = [
    pytest.mark.engine,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(900),
]

RATE = 20.0
TOKENS = 16
SLOW_TOKENS = 32
"""Of a stream that shows the slow version: one at a time, an engine answers far fewer of these than come in."""
STEPS = 30
"""Of the worse model's training; the demo model had 1,500, of twice as many samples."""
SETTINGS: dict[str, Any] = {
    "engine": {"env": {"OMP_WAIT_POLICY": "PASSIVE"}},
    "gateway": {"replica_drain_timeout_s": 1},
    "drain_timeout_s": 60,
}
QUESTIONS = ("What is Inferdock?", "How do I roll back?", "What does the semantic cache do?", "How do I add a replica?")


ONE_AT_A_TIME = "--engine-arg=--max-num-seqs=1"
"""What is asked for at once stands in line: fewer answers in a second than come in."""


def body(number: int, tokens: int = TOKENS) -> dict[str, Any]:
    return asked(f"{QUESTIONS[number % len(QUESTIONS)]} ({number})", tokens)


def judge(number: int, revision: str, text: str, tokens: int = TOKENS) -> str:
    """Whether a stream is whole."""
    return whole(text, tokens)[1] or "right"


async def train_a_worse_one(folder: Path) -> Path:
    """The demo model after a small part of its training."""
    if given := os.environ.get("RELEASE_WORSE_MODEL"):
        return Path(given)
    words = ("--out", str(folder), "--steps", str(STEPS), "--batch", "16", "--no-scores")
    training = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scripts.demo_model.train", *words), cwd=ROOT, stdout=asyncio.subprocess.DEVNULL
    )
    assert await training.wait() == 0
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """1.0.0 serves; 1.1.0 has the same weights and other generation settings; 2.0.0 is the worse one."""
    folder = tmp_path_factory.mktemp("engine")
    demo = ROOT / "models" / "demo"
    same = shutil.copytree(demo, folder / "same")
    (same / "README.md").write_text("The same weights again.\n")
    models = {"1.0.0": demo, "1.1.0": same, "2.0.0": await train_a_worse_one(folder / "worse")}
    place = Place(folder, models, SETTINGS)
    try:
        await place.open(within_s=400)
        yield place
    finally:
        await place.close()


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def none_left_under_way(place: Place) -> AsyncIterator[None]:
    """A release that a failed test left does not stand in the next one's way."""
    yield
    if (await place.status()).get("state", State.COMPLETED) not in OVER:
        await place.run("release", "abort", "--reason", "its test failed", within_s=400)


async def test_canary_promotion_and_rollback_under_twenty_streams_a_second_lose_nothing(place: Place) -> None:
    url = f"{place.state['url']}/v1/chat/completions"
    async with Watcher(Path(place.state["control"])) as watcher:
        async with Streams(url, rate=RATE, body=body, judge=judge) as streams:
            words = ("--gates", "health,smoke", "--weights", "10,50,100", "--hold", "12", "--bake", "600")
            runner = await place.begin("release", "start", "m@1.1.0", *UNTIMED, *words)
            await place.until("baking", within_s=400)
            assert await place.champion() == "1.1.0"
            assert (await place.run("release", "rollback", "--reason", "worse")).code == 0
            said = await place.end(runner)
            assert said.code == 8, said.err
            status = await place.status()
            await watcher.until(lambda look: len(look.ready) == 1)
    phases = watcher.phases(streams.all)
    waits = quantiles([one.headed - one.sent for one in streams.all], 0.5, 0.95, 1.0)
    print(f"{len(streams.all)} streams of {TOKENS} tokens at {streams.rate:.1f}/s, {len(streams.faults)} failed or cut")
    print(f"traffic was back {status['flip_seconds']:.2f} s after the decision")
    print("seconds to the answer, p50, p95, most: " + ", ".join(f"{wait:.2f}" for wait in waits))
    print(*phases, sep="\n")
    assert streams.faults == []
    assert [stray for phase in phases for stray in phase.strays()] == []
    assert all(look.serves for look in watcher.looks)
    assert {1.0, 0.9, 0.5} == {round(max(phase.shares.values()), 6) for phase in phases if phase.streams >= 50}
    assert (status["state"], await place.champion()) == ("rolled_back", "1.0.0")
    assert status["flip_seconds"] < 5
    assert streams.rate >= RATE * 0.95


def whole_report(html: Path) -> tuple[list[dict[str, Any]], str]:
    """The limits and the page of a quality report."""
    limits: list[dict[str, Any]] = json.loads(html.with_suffix(".json").read_text())["limits"]
    return limits, html.read_text()


async def test_a_worse_model_is_stopped_by_the_quality_gate_and_the_champion_untouched(place: Place) -> None:
    some = place.folder / "some.jsonl"
    some.write_text("".join(DEMO.read_text(encoding="utf-8").splitlines(keepends=True)[::4]), encoding="utf-8")
    before = place.family()
    async with Streams(f"{place.state['url']}/v1/chat/completions", rate=2.0, body=body, judge=judge) as streams:
        said = await place.run("release", "start", "m@2.0.0", *UNTIMED, "--tasks", str(some), within_s=600)
        status = await place.status()
    assert said.code == 8, said.err
    verdicts = [(verdict["gate"], verdict["verdict"]) for verdict in status["verdicts"]]
    assert verdicts[-1] == ("quality", "fail"), status["outcome"]
    evidence = status["verdicts"][-1]["evidence"]
    limits, page = whole_report(Path(evidence["report"]))
    broken = [limit["metric"] for limit in limits if limit["verdict"] == "fail"]
    assert "exact" in broken, limits
    assert any(line.startswith("fail: exact") for line in evidence["findings"]), evidence["findings"]
    assert "<mark>" in page
    assert (place.family(), await place.champion(), status["state"]) == (before, "1.0.0", "aborted")
    assert streams.faults == []
    assert set(Counter(stream.revision.partition("-")[0] for stream in streams.all)) == {"1.0.0"}
    print(f"{len(streams.all)} streams meanwhile; {status['outcome']}; broken: {broken}")


async def stopped(place: Place, version: str, *words: str, rate: float, tokens: int = TOKENS) -> dict[str, Any]:
    """The status of a release that is not let in, while streams come; nothing else may have changed."""
    before = place.family()
    url = f"{place.state['url']}/v1/chat/completions"
    load = {"body": partial(body, tokens=tokens), "judge": partial(judge, tokens=tokens)}
    async with Streams(url, rate=rate, **load) as streams:
        said = await place.run("release", "start", f"m@{version}", "--gates", "health", *words, within_s=600)
        status = await place.status()
    assert said.code == 8, said.err
    assert (place.family(), await place.champion(), status["state"]) == (before, "1.0.0", "aborted")
    assert streams.faults == []
    print(f"{len(streams.all)} streams meanwhile, none failed; {status['outcome']}")
    return status


async def test_a_slow_version_is_stopped_by_the_live_figures(place: Place) -> None:
    await place.must("model", "push", str(ROOT / "models" / "demo"), "--name", "m", "--version", "3.0.0", ONE_AT_A_TIME)
    limits = ("--max-errors", "0.3", "--ttft-p95", "1", "--tpot-p50", "0", "--min-requests", "40")
    words = ("--weights", "90,100", "--hold", "15", "--hold-limit", "300")
    status = await stopped(place, "3.0.0", *limits, *words, rate=RATE, tokens=SLOW_TOKENS)
    verdict = status["verdicts"][-1]
    assert (verdict["gate"], verdict["verdict"]) == ("slo", "fail"), status["outcome"]
    broken = {limit["limit"]: limit for limit in verdict["evidence"]["limits"] if limit["verdict"] == "fail"}
    assert any("ttft" in name and limit["low"] > limit["allowed"] for name, limit in broken.items()), broken


async def test_an_engine_that_refuses_its_arguments_stops_the_release_before_any_request(place: Place) -> None:
    words = ("--name", "m", "--version", "4.0.0", "--engine-arg=--no-such-flag=1")
    await place.must("model", "push", str(ROOT / "models" / "demo"), *words)
    status = await stopped(place, "4.0.0", *UNTIMED, rate=2.0)
    assert "m@4.0.0 does not start" in status["outcome"]


async def test_a_rollback_from_cold_starts_the_old_version_and_says_how_long_it_took(place: Place) -> None:
    words = ("--gates", "health", "--weights", "100", "--hold", "2", "--bake", "0")
    async with Streams(f"{place.state['url']}/v1/chat/completions", rate=10.0, body=body, judge=judge) as streams:
        released = await place.run("release", "start", "m@1.1.0", *UNTIMED, *words, within_s=400)
        assert (released.code, await place.champion()) == (0, "1.1.0"), released.err
        assert {row["revision"].partition("-")[0] for row in place.state["replicas"]} == {"1.1.0"}
        said = await place.run("release", "rollback", "--reason", "worse", within_s=400)
        status = await place.status()
    assert (said.code, await place.champion()) == (0, "1.0.0"), said.err
    assert streams.faults == []
    print(f"{len(streams.all)} streams, none failed; from cold traffic was back in {status['flip_seconds']} s")
