"""Several revisions under one ``inferdock up``, driven through its control socket as a release drives them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.integration.test_up import family, wait_gone
from tests.integration.test_up_registry import Place, flip
from tests.support.model_folders import write_model
from tests.support.platform import Platform

RATE = 40.0
"""Streams per second."""
TOKENS = 40


class Up:
    """A platform on ``m@1.0.0`` beside which 1.1.0 and 2.0.0 lie in the registry.

    Attributes:
        old, new: revisions of 1.0.0 and 1.1.0 as endpoints carry them.
    """

    def __init__(self, place: Place, folder: Path, *arguments: str) -> None:
        self.place = place
        model = write_model(folder / "model")
        self.old = f"1.0.0-{place.push(model, '1.0.0', '--alias', 'champion')[:12]}"
        (model / "generation_config.json").write_text("{}")
        self.new = f"1.1.0-{place.push(model, '1.1.0')[:12]}"
        document = json.loads(place.config.read_text()) | {
            "engine": {"kind": "sim", "sim": {"itl_s": 0.01}, "restart_backoff_s": 0.1},
            "gateway": {"replica_drain_timeout_s": 1},
            "drain_timeout_s": 30,
        }
        place.config.write_text(json.dumps(document))
        self.platform = Platform(folder / "up", "-f", str(place.config), "--model", "m", *arguments)

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Ask the control socket."""
        connector = aiohttp.UnixConnector(self.platform.state["control"])
        async with aiohttp.ClientSession(connector=connector) as http:
            async with http.request(method, f"http://up{path}", json=body) as response:
                return response.status, await response.json()

    async def rows(self) -> dict[str, dict[str, Any]]:
        """All revisions."""
        _, answer = await self.ask("GET", "/revisions")
        return {row["revision"]: row for row in answer["revisions"]}

    async def until(self, wanted: Callable[[dict[str, dict[str, Any]]], bool]) -> None:
        """Wait until the revisions are as wanted."""
        async with asyncio.timeout(60):
            while not wanted(await self.rows()):
                await asyncio.sleep(0.1)

    async def add(self, replicas: int = 1) -> None:
        """Start 1.1.0 and wait until it is ready."""
        asked = await self.ask("PUT", "/revisions", {"reference": "m@1.1.0", "replicas": replicas})
        assert asked == (202, {"revision": self.new})
        await self.until(lambda rows: rows[self.new]["ready"] == replicas)

    async def weigh(self, **shares: float) -> None:
        """Divide requests between ``old`` and ``new``."""
        weights = {getattr(self, name): share for name, share in shares.items()}
        assert (await self.ask("PUT", "/weights", weights))[0] == 200


class Traffic:
    """Streams that begin at a fixed rate, whatever becomes of those before.

    Attributes:
        served: which revision answered each stream, in order of their beginnings.
        failed: what went wrong.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._tasks: list[asyncio.Task[None]] = []
        self.served: list[str] = []
        self.failed: list[str] = []

    async def send(self, count: int) -> list[str]:
        """Begin so many more; the revisions that answer these, once all have begun to answer."""
        first = len(self.served)
        self.served += [""] * count
        async with asyncio.timeout(60):
            for number in range(first, first + count):
                self._tasks.append(asyncio.create_task(self._one(number)))
                await asyncio.sleep(1 / RATE)
            while not all(self.served[first : first + count]):
                await asyncio.sleep(0.02)
        return self.served[first : first + count]

    async def finish(self) -> None:
        """Wait for all."""
        await asyncio.gather(*self._tasks)

    async def _one(self, number: int) -> None:
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": f"Number {number}?"}],
            "max_tokens": TOKENS,
            "ignore_eos": True,
            "stream": True,
        }
        try:
            async with self._http.post(f"{self._url}/v1/chat/completions", json=body) as response:
                self.served[number] = response.headers.get("x-inferdock-revision", "none")
                text = await response.text()
            if response.status != 200 or not text.endswith("data: [DONE]\n\n") or "error" in text:
                self.failed.append(f"{number}: {response.status} {text[-300:]}")
        except aiohttp.ClientError as exc:
            self.served[number] = "none"
            self.failed.append(f"{number}: {exc!r}")

    async def __aenter__(self) -> Traffic:
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Callable[..., Up]]:
    """Start a platform; whatever a test leaves is ended."""
    started: list[Up] = []

    def starter(*arguments: str, replicas: int = 1) -> Up:
        started.append(Up(Place(tmp_path), tmp_path, "--replicas", str(replicas), *arguments))
        started[-1].platform.wait_until_ready(replicas, 60)
        return started[-1]

    yield starter
    for one in started:
        pids = family(one.platform.process.pid) if one.platform.process.poll() is None else set()
        one.platform.kill()
        assert not wait_gone(pids, 10)


def kill_replica(up: Up, revision: str) -> None:
    """End the engine of one replica of a revision with SIGKILL."""
    keeper = next(row["pid"] for row in up.platform.state["replicas"] if row["revision"] == revision)
    for pid in family(keeper) - {keeper}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_release_by_hand_loses_nothing_and_headers_agree_with_weights(up, workers: str) -> None:
    one = up("--workers", workers)
    async with Traffic(one.platform.url) as traffic:
        assert set(await traffic.send(20)) == {one.old}
        adding = asyncio.create_task(one.add(2))
        while not adding.done():
            assert set(await traffic.send(10)) == {one.old}  # nothing goes to the new one before it has weight
        await adding
        await one.weigh(old=0.5, new=0.5)
        counts = Counter(await traffic.send(80))
        assert abs(counts[one.old] - 40) <= 2 * int(workers), counts
        await one.weigh(old=0, new=1)
        assert set(await traffic.send(20)) == {one.new}
        assert (await one.ask("DELETE", f"/revisions/{one.old}"))[0] == 202
        await traffic.send(20)
        await one.until(lambda rows: list(rows) == [one.new])
        assert set(await traffic.send(20)) == {one.new}
        await traffic.finish()
        assert traffic.failed == []
    assert {row["revision"] for row in one.platform.state["replicas"]} == {one.new}
    assert (await one.ask("DELETE", f"/revisions/{one.new}"))[1]["error"]["code"] == "last_revision"
    assert one.platform.stop() == 0


async def test_streams_that_are_open_when_their_revision_goes_are_finished(up) -> None:
    one = up()
    await one.add()
    async with Traffic(one.platform.url) as traffic:
        await one.weigh(new=1)
        assert set(await traffic.send(30)) == {one.new}
        await one.weigh(old=1)
        assert (await one.ask("DELETE", f"/revisions/{one.new}"))[0] == 202
        assert (await one.rows())[one.new]["retiring"] is True
        await traffic.finish()
        assert traffic.failed == []
        await one.until(lambda rows: list(rows) == [one.old])
    assert one.platform.stop() == 0


async def test_scaling_down_cuts_nothing(up) -> None:
    one = up(replicas=2)
    async with Traffic(one.platform.url) as traffic:
        await traffic.send(30)
        assert (await one.ask("PATCH", f"/revisions/{one.old}", {"replicas": 1}))[0] == 202
        await traffic.send(30)
        await one.until(lambda rows: rows[one.old]["ready"] == 1 and rows[one.old]["stopping"] == 0)
        await traffic.finish()
        assert traffic.failed == []
    assert one.platform.stop() == 0


@pytest.mark.parametrize("victim", ["old", "new"])
async def test_a_replica_of_either_revision_that_is_killed_comes_back_and_loses_nothing(up, victim: str) -> None:
    one = up(replicas=2)
    await one.add(2)
    await one.weigh(old=0.5, new=0.5)
    revision = getattr(one, victim)
    async with Traffic(one.platform.url) as traffic:
        await traffic.send(20)
        kill_replica(one, revision)
        await traffic.send(40)
        await one.until(lambda rows: rows[revision]["ready"] == 2 and rows[revision]["restarts"] == 1)
        await traffic.finish()
        assert traffic.failed == []
    assert one.platform.stop() == 0


async def test_a_gateway_that_is_killed_has_its_weights_again_from_its_first_request_on(up) -> None:
    one = up()
    await one.add()
    await one.weigh(old=0.25, new=0.75)
    gateway = json.loads((one.platform.state_dir / "up-0" / "gateway.json").read_text())["pid"]
    os.kill(gateway, signal.SIGKILL)
    assert not wait_gone({gateway}, 10)
    async with asyncio.timeout(30):
        while True:
            async with Traffic(one.platform.url) as traffic:
                if (await traffic.send(1))[0] != "none":
                    break
            await asyncio.sleep(0.05)
    async with Traffic(one.platform.url) as traffic:
        await one.until(lambda rows: all(row["ready"] == 1 for row in rows.values()))
        counts = Counter(await traffic.send(40))
        await traffic.finish()
        assert traffic.failed == []
    assert abs(counts[one.new] - 30) <= 2, counts
    assert one.platform.stop() == 0


async def test_what_cannot_be_started_is_said_and_leaves_what_serves_alone(up, tmp_path: Path) -> None:
    one = up()
    for reference, status, code in (
        ("m@9.9.9", 422, "not_found"),
        (str(tmp_path / "nowhere"), 422, "bad_model"),
        ("m@@", 422, "bad_model"),
    ):
        found, answer = await one.ask("PUT", "/revisions", {"reference": reference})
        assert (found, answer["error"]["code"]) == (status, code), answer
    assert list(await one.rows()) == [one.old]
    async with Traffic(one.platform.url) as traffic:
        assert set(await traffic.send(5)) == {one.old}
    assert one.platform.stop() == 0


async def test_a_flipped_byte_is_a_problem_of_the_new_revision_before_anything_starts(up, tmp_path: Path) -> None:
    one = up()
    stored = tmp_path / "registry" / "models" / "m" / "v1.1.0" / "generation_config.json"
    flip(stored, 0)  # the other files are those of 1.0.0, which were fetched before
    assert (await one.ask("PUT", "/revisions", {"reference": "m@1.1.0"}))[0] == 202
    await one.until(lambda rows: rows[one.new]["problem"] != "")
    assert stored.name in (await one.rows())[one.new]["problem"]
    assert [row["revision"] for row in one.platform.state["replicas"]] == [one.old]
    assert (await one.ask("DELETE", f"/revisions/{one.new}"))[0] == 202
    await one.until(lambda rows: list(rows) == [one.old])
    assert one.platform.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
async def test_the_end_with_two_revisions_leaves_nothing(up, number: signal.Signals) -> None:
    one = up()
    await one.add(2)
    pids, folder = family(one.platform.process.pid), one.platform.state_dir / "up-0"
    one.platform.process.send_signal(number)
    assert one.platform.process.wait(60) == (0 if number is signal.SIGINT else -9)
    assert not wait_gone(pids, 10)
    # What a kill leaves is replaced by the next start.
    assert ("control.sock" in os.listdir(folder)) is (number is signal.SIGKILL)


async def test_status_shows_the_revision_of_each_replica_and_its_share(up) -> None:
    one = up()
    await one.add()
    await one.weigh(old=0.9, new=0.1)
    shown = one.place.run("status", "--state-dir", str(one.platform.state_dir))
    assert f"{one.old} 90 % · {one.new} 10 %" in shown.stdout
    rows = [line.split()[:3] for line in shown.stdout.splitlines() if " replica-" in line]
    assert rows == [[one.old, "replica-0", "ready"], [one.new, "replica-1", "ready"]]
    assert one.platform.stop() == 0
