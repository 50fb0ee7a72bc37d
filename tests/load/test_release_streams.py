"""Ten thousand streams while releases go forward, back and die: none fails, none is cut, each is of one revision.

The replicas are simulated and the versions answer differently, so that the right text of every answer is known. The
releases are commands, as people give them. ``RELEASE_STREAMS`` sets the least number of streams, and
``RELEASE_STREAMS_JSON`` a file for the figures.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from inferdock.bench.report import machine
from inferdock.sim.language import EOS, Generator, decode, render_chat, seed_of
from tests.support.model_folders import write_model
from tests.support.mortal import TAKEN, key_of
from tests.support.release_load import Phase, Stream, Streams, Watcher, quantiles, whole
from tests.support.release_place import Place

pytestmark = pytest.mark.timeout(900)

STREAMS = int(os.environ.get("RELEASE_STREAMS", "10000"))
RATE = 100.0
TOKENS = 12
WEIGHTS = {"1.0.0": 0, "1.1.0": 1}
SETTINGS: dict[str, Any] = {
    "engine": {"kind": "sim", "sim": {"ttft_s": 0.02, "itl_s": 0.01}, "restart_backoff_s": 0.1},
    "gateway": {"replica_drain_timeout_s": 1},
    "log": {"requests": False},
    "drain_timeout_s": 30,
}
QUICK = (
    *("--gates", "health", "--weights", "10,50,100", "--min-requests", "10"),
    *("--max-errors", "0.3", "--ttft-p95", "0", "--tpot-p50", "0", "--hold-limit", "600"),
)
"""Of a busy machine nothing is asked but that requests succeed."""
OVER, NOTHING_UNDER_WAY = 8, 10


def text_of(number: int) -> str:
    return f"stream number {number}"


@lru_cache(maxsize=100)
def right_answer(number: int, weights: int) -> str:
    """What an undisturbed replica of a version says."""
    generator = Generator(render_chat([("user", text_of(number))]), seed_of(weights, 0))
    ids = [generator.next(may_end=False) for _ in range(TOKENS)]
    return decode([token for token in ids if token != EOS])


def body(number: int) -> dict[str, Any]:
    return {
        "model": "m",
        "messages": [{"role": "user", "content": text_of(number)}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def judge(number: int, revision: str, text: str) -> str:
    """Whether a stream is whole, and what the revision that it names answers."""
    events, fault = whole(text, TOKENS)
    if fault:
        return fault
    said = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
    expected = right_answer(number, WEIGHTS[revision.partition("-")[0]])
    return "right" if said == expected else f"{revision} said {said!r} instead of {expected!r}"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    models = {}
    for version, weights in WEIGHTS.items():
        models[version] = write_model(tmp_path / f"model-{version}")
        (models[version] / "sim.json").write_text(json.dumps({"weights": weights}))
    place = Place(tmp_path, models, SETTINGS)
    try:
        await place.open(within_s=90)
        yield place
    finally:
        await place.close()


class Story:
    """All that happens, one after the other; each part leaves its figures.

    Attributes:
        flips: seconds from each decision until all traffic was back.
        haunted: what became of the releases whose runner was killed at every step.
    """

    def __init__(self, place: Place, watcher: Watcher) -> None:
        self._place, self._watcher = place, watcher
        self.flips: dict[str, float] = {}
        self.haunted: dict[str, dict[str, Any]] = {}

    async def tell(self) -> None:
        """From 1.0.0 to 1.1.0 and back, in every way."""
        await self.rolled_back_during_the_bake()
        await self.aborted()
        await self.promoted_by_hand()
        await self.haunt("rollback to a cold revision", "rollback", state="completed", champion="1.0.0")
        words = ("start", "m@1.1.0", *QUICK, "--hold", "1", "--bake", "2")
        await self.haunt("release", *words, state="completed", champion="1.1.0")
        await self.killed_and_aborted_by_the_haunted()

    async def rolled_back_during_the_bake(self) -> None:
        place = self._place
        runner = await place.begin("release", "start", "m@1.1.0", *QUICK, "--hold", "6", "--bake", "600")
        await place.until("baking")
        assert await place.champion() == "1.1.0"
        assert (await place.run("release", "rollback", "--reason", "worse")).code == 0
        assert (await place.end(runner)).code == OVER
        await self._flipped("rollback during the bake", "rolled_back", "1.0.0")

    async def aborted(self) -> None:
        place = self._place
        runner = await place.begin("release", "start", "m@1.1.0", *QUICK, "--hold", "600")
        await self._share("1.1.0", 0.1)
        assert (await place.run("release", "abort", "--reason", "changed our minds")).code == 0
        assert (await place.end(runner)).code == OVER
        await self._flipped("abort at 10 %", "aborted", "1.0.0")

    async def promoted_by_hand(self) -> None:
        place = self._place
        runner = await place.begin("release", "start", "m@1.1.0", *QUICK, "--hold", "600", "--bake", "1")
        await self._share("1.1.0", 0.1)
        assert (await place.run("release", "promote", "--reason", "urgent")).code == 0
        assert (await place.end(runner)).code == 0
        assert ((await place.status())["state"], await place.champion()) == ("completed", "1.1.0")

    async def killed_and_aborted_by_the_haunted(self) -> None:
        runner = await self._place.begin("release", "start", "m@1.0.0", *QUICK, "--hold", "600")
        await self._share("1.0.0", 0.1)
        await self._place.kill(runner)
        await self.haunt("abort", "abort", state="aborted", champion="1.1.0")

    async def haunt(self, name: str, *words: str, state: str, champion: str) -> None:
        """A command whose process is killed at every line of its journal."""
        found = await self._place.haunt("release", *words)
        assert found["exit"] == NOTHING_UNDER_WAY, found["err"][-2000:]
        assert found["deaths"] == 2 * found["ways"]["after"] == 2 * found["lines"]
        self.haunted[name] = {key: found[key] for key in ("deaths", "ways", "lines", "seconds")}
        status = await self._place.status()
        assert (status["state"], await self._place.champion()) == (state, champion), found["died"]
        events = json.loads(await self._place.must("release", "history", status["id"], "-o", "json"))
        written = [" ".join(key_of(event["entry"])) for event in events]
        died = {line for line, _ in found["died"]}
        first = next(number for number, line in enumerate(written) if line in died)
        assert set(written[first:]) - {TAKEN} <= died, "the runner lived through a line"

    async def _flipped(self, name: str, state: str, champion: str) -> None:
        status = await self._place.status()
        assert (status["state"], await self._place.champion()) == (state, champion)
        self.flips[name] = status["flip_seconds"]

    async def _share(self, version: str, share: float) -> None:
        """Wait until a version has a share of the traffic."""

        def there(shares: dict[str, float]) -> bool:
            return any(name.startswith(version) and abs(now - share) < 1e-6 for name, now in shares.items())

        await self._watcher.until(lambda look: there(dict(look.shares)))


async def test_ten_thousand_streams_through_releases_that_die_at_every_step(place: Place) -> None:
    url = f"{place.state['url']}/v1/chat/completions"
    began = time.monotonic()
    async with Watcher(Path(place.state["control"])) as watcher:
        async with Streams(url, rate=RATE, body=body, judge=judge) as streams:
            story = Story(place, watcher)
            await story.tell()
            told = time.monotonic() - began
            await streams.reach(STREAMS)
    phases = watcher.phases(streams.all)
    report = figures(streams, watcher, phases, story) | {"story_seconds": round(told, 1)}
    say(report, phases)
    assert streams.faults == []
    assert [stray for phase in phases for stray in phase.strays()] == []
    assert watcher.silent == []
    assert all(look.serves for look in watcher.looks)
    assert {1.0, 0.9, 0.5} <= {round(max(phase.shares.values()), 6) for phase in phases if phase.streams > 50}
    assert all(seconds < 5 for seconds in story.flips.values()), story.flips
    assert len(streams.all) >= STREAMS
    assert streams.rate >= 50


def figures(streams: Streams, watcher: Watcher, phases: list[Phase], story: Story) -> dict[str, Any]:
    """All that is worth keeping."""
    return {
        "command": "RELEASE_STREAMS_JSON=FILE pytest tests/load/test_release_streams.py",
        "machine": machine(),
        "settings": SETTINGS["engine"]["sim"] | {"tokens": TOKENS, "offered_streams_per_second": RATE},
        "streams": len(streams.all),
        "streams_per_second": round(streams.rate, 1),
        "failed_or_cut": len(streams.faults),
        "seconds_to_the_answer": dict(zip(("p50", "p95", "p99", "max"), _waits(streams.all), strict=True)),
        "looks_at_the_platform": len(watcher.looks),
        "looks_without_a_ready_revision": sum(not look.serves for look in watcher.looks),
        "flip_seconds": {name: round(seconds, 3) for name, seconds in story.flips.items()},
        "killed_at_every_step": story.haunted,
        "kills": sum(one["deaths"] for one in story.haunted.values()) + 1,
        "phases": [
            {"seconds": round(phase.ends - phase.begins, 1), "shares": dict(phase.shares), "streams": phase.counts}
            for phase in phases
        ],
    }


def _waits(streams: list[Stream]) -> list[float]:
    waits = [one.headed - one.sent for one in streams]
    return [round(wait, 3) for wait in quantiles(waits, 0.5, 0.95, 0.99, 1.0)]


def say(report: dict[str, Any], phases: list[Phase]) -> None:
    """Print the figures, and keep them where that is wanted."""
    print(json.dumps({key: value for key, value in report.items() if key != "phases"}, indent=2))
    for phase in phases:
        print(phase)
    if path := os.environ.get("RELEASE_STREAMS_JSON"):
        Path(path).write_text(json.dumps(report, indent=2) + "\n")
