"""Releases on a running platform by the command line, under open-loop streams: nothing is lost, whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.model_folders import write_model
from tests.support.platform import Platform

pytestmark = pytest.mark.timeout(240)

QUICK = ("--gates", "health", "--hold", "1", "--hold-limit", "60", "--min-requests", "10", "--max-errors", "0.3")
"""Of a busy machine nothing is asked but that requests succeed."""
UNTIMED = ("--ttft-p95", "0", "--tpot-p50", "0")
RATE = 25.0


class Load(threading.Thread):
    """Streams at a steady rate, whatever becomes of the others, until :meth:`end`."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.revisions: Counter[str] = Counter()
        self.failures: list[str] = []
        self._url = f"{url}/v1/completions"
        self._over = threading.Event()

    def run(self) -> None:
        asyncio.run(self._send())

    async def _send(self) -> None:
        async with aiohttp.ClientSession() as http:
            tasks = []
            while not self._over.is_set():
                tasks.append(asyncio.create_task(self._one(http)))
                await asyncio.sleep(1 / RATE)
            await asyncio.gather(*tasks)

    async def _one(self, http: aiohttp.ClientSession) -> None:
        body = {"model": "m", "prompt": "hello", "max_tokens": 20, "stream": True}
        try:
            async with http.post(self._url, json=body) as response:
                text = await response.read()
                self.revisions[response.headers.get("x-inferdock-revision", "")[:5]] += 1
                if response.status != 200 or b"data: [DONE]" not in text or b'"error"' in text:
                    self.failures.append(f"{response.status}: {text[-200:]!r}")
        except (aiohttp.ClientError, OSError) as exc:
            self.failures.append(repr(exc))

    def end(self) -> None:
        """Stop, and wait until every stream has ended."""
        self._over.set()
        self.join(60)


class Place:
    """A registry with two versions, and a platform of simulated replicas that serves the first."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.config = folder / "inferdock.yaml"
        registry = {"url": str(folder / "registry"), "cache_dir": str(folder / "cache")}
        self.config.write_text(json.dumps({"registry": registry, "state_dir": str(folder / "up"), **settings}))
        model = write_model(folder / "model")
        self.must("model", "push", str(model), "--name", "m", "--version", "1.0.0", "--alias", "champion")
        self.must("model", "push", str(model), "--name", "m", "--version", "1.1.0", "--engine-arg=--seed=1")
        self.platform = Platform(folder / "up", "-f", str(self.config), "--model", "m@champion", "--engine", "sim")
        self.platform.wait_until_ready(1, within_s=60)

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "inferdock.cli.main", *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("INFERDOCK_")}
        return subprocess.run(
            self.command(*words), cwd=self.folder, env=environment, capture_output=True, text=True, timeout=200
        )

    def must(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def script(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``scripts/rollback.sh``, as it is called from elsewhere."""
        left_out = ("INFERDOCK_", "MODEL_NAME", "NAMESPACE")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
        command = [str(Path(__file__).resolve().parents[2] / "scripts" / "rollback.sh"), *words]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=200)

    def history(self) -> list[dict[str, Any]]:
        """Every event of the last release."""
        found: list[dict[str, Any]] = json.loads(
            self.must("release", "history", str(self.status()["id"]), "-o", "json")
        )
        return found

    def champion(self) -> str:
        return self.must("model", "alias", "m", "champion").strip()

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.must("release", "status", "-o", "json"))
        return found


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    try:
        yield place
        assert place.platform.stop() == 0
    finally:
        place.platform.kill()


@pytest.fixture
def load(place: Place) -> Iterator[Load]:
    load = Load(place.platform.url)
    load.start()
    yield load
    load.end()


def test_a_release_its_rollback_and_back_again_lose_nothing(place: Place, load: Load) -> None:
    plan = place.must("release", "start", "m@1.1.0", *QUICK, *UNTIMED, "--dry-run")
    assert "gate health" in plan
    done = place.run("release", "start", "m@1.1.0", *QUICK, *UNTIMED, "--weights", "20,100", "--bake", "1")
    assert done.returncode == 0, done.stderr
    assert (place.champion(), place.status()["state"]) == ("1.1.0", "completed")
    back = place.run("release", "rollback", "--reason", "worse")
    assert back.returncode == 0, back.stderr
    assert place.champion() == "1.0.0"
    assert place.status()["flip_seconds"] < 60
    load.end()
    assert load.failures == []
    assert load.revisions["1.0.0"] > 0
    assert load.revisions["1.1.0"] > 0
    reasons = [event["reason"] for event in json.loads(place.must("model", "history", "m", "-o", "json"))]
    assert any("rolled back" in reason for reason in reasons)


def test_a_runner_that_was_killed_is_followed_by_another(place: Place, load: Load) -> None:
    words = ("release", "start", "m@1.1.0", *QUICK, *UNTIMED, "--weights", "50,100", "--bake", "600")
    runner = subprocess.Popen(
        place.command(*words), cwd=place.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(lambda: bool(place.must("release", "history").strip()))
    time.sleep(1)
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    assert place.status()["state"] not in ("completed", "aborted")
    again = subprocess.Popen(
        place.command("release", "resume"), cwd=place.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(lambda: place.status()["state"] == "baking")
    assert place.run("release", "start", "m@1.0.0", *QUICK).returncode == 10
    assert place.run("release", "rollback").returncode == 0
    assert again.wait(60) == 8
    assert place.status()["state"] == "rolled_back"
    assert place.status()["flip_seconds"] < 5
    assert place.champion() == "1.0.0"
    load.end()
    assert load.failures == []


def test_a_version_with_a_flipped_byte_is_stopped_before_anything_starts(place: Place) -> None:
    file = place.folder / "registry" / "models" / "m" / "v1.1.0" / "config.json"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes().replace(b"{", b"[", 1))
    done = place.run("release", "start", "m@1.1.0", *QUICK)
    assert done.returncode == 8
    assert "config.json" in done.stderr
    assert (place.champion(), place.status()["state"]) == ("1.0.0", "aborted")
    assert len(place.platform.state["replicas"]) == 1


def test_copies_of_requests_are_judged_before_the_canary_gets_any(place: Place, load: Load) -> None:
    words = ("--shadow", "0.5", "--shadow-hold", "1", "--weights", "100", "--bake", "1")
    done = place.run("release", "start", "m@1.1.0", *QUICK, *UNTIMED, *words)
    assert done.returncode == 0, done.stderr
    judged = {verdict["gate"]: verdict for verdict in place.status()["verdicts"]}
    assert judged["shadow"]["verdict"] == "pass"
    assert judged["shadow"]["evidence"]["copies"]["answered"] >= 10
    assert [verdict["gate"] for verdict in place.status()["verdicts"]].index("shadow") == 2
    load.end()
    assert load.failures == []


def test_copies_that_tell_too_little_pause_it_and_end_with_the_way_back(place: Place) -> None:
    words = ("--shadow", "0.5", "--shadow-hold", "1", "--hold-limit", "3", "--hold", "1", "--gates", "health")
    done = place.run("release", "start", "m@1.1.0", *words)
    assert done.returncode == 12, done.stderr
    assert "shadow" in done.stderr
    assert place.run("release", "abort").returncode == 0
    steps = [event["entry"].get("step") for event in place.history() if event["entry"].get("way") == "back"]
    assert max(steps) == 4  # one more than without copies
    assert place.champion() == "1.0.0"


def test_the_script_takes_a_version_back_and_fails_as_the_command_does(place: Place, load: Load) -> None:
    words = ("release", "start", "m@1.1.0", *QUICK, *UNTIMED, "--weights", "100", "--bake", "600")
    runner = subprocess.Popen(
        place.command(*words), cwd=place.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_for(lambda: bool(place.must("release", "history").strip()))
    wait_for(lambda: place.status()["state"] == "baking")
    back = place.script("1.0.0", "--reason", "worse")
    assert back.returncode == 0, back.stderr
    assert "All traffic was back" in back.stderr
    assert runner.wait(60) == 8
    assert (place.champion(), place.status()["state"]) == ("1.0.0", "rolled_back")
    assert place.status()["flip_seconds"] < 5
    assert place.script("9.9.9").returncode == 9
    assert place.script("m@1.0.0").returncode == 3  # it serves already
    load.end()
    assert load.failures == []


def test_without_traffic_a_canary_pauses_and_can_be_aborted(place: Place) -> None:
    words = ("--hold-limit", "2", "--hold", "1", "--gates", "health")
    done = place.run("release", "start", "m@1.1.0", *words)
    assert done.returncode == 12, done.stderr
    assert place.status()["state"] == "paused"
    assert place.run("release", "abort", "--reason", "no traffic").returncode == 0
    assert (place.champion(), place.status()["state"]) == ("1.0.0", "aborted")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("start", "m@9.9.9"), 9, "There is no m@9.9.9"),
        (("start", "m@1.0.0"), 3, "serves already"),
        (("start", "m@1.1.0", "--gates", "luck"), 3, "There is no gate `luck`"),
        (("start", "m@1.1.0", "--weights", "0.5,0.1"), 3, "must grow"),
        (("start", "m@1.1.0", "--tasks", "absent.jsonl"), 3, "absent.jsonl"),
        (("start", "m@1.1.0", "--spare", "0"), 5, "room for one replica only"),
        (("resume",), 10, "No release is under way"),
        (("rollback", "--reason", "x"), 9, "no previous champion"),
        (("history", "../x"), 3, "no id of a release"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_end_in_a_sentence_and_change_nothing(
    mistaken: Place, words: tuple[str, ...], code: int, sentence: str
) -> None:
    done = mistaken.run("release", *words)
    assert (done.returncode, sentence in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One platform for all mistakes: they change nothing."""
    place = Place(tmp_path_factory.mktemp("mistakes"))
    try:
        yield place
        assert place.must("release", "history") == ""
        assert place.platform.stop() == 0
    finally:
        place.platform.kill()


def wait_for(there: Callable[[], bool], within_s: float = 90.0) -> None:
    deadline = time.monotonic() + within_s
    while not there():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.3)
