"""The number of replicas follows the load under ``inferdock up``, and no request is lost on the way."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.platform import Platform

FAST = {
    "enabled": True,
    "max_replicas": 3,
    "requests_per_replica": 4,
    "sync_s": 0.5,
    "scale_up": {"stabilization_window_s": 1, "policies": [{"type": "Pods", "value": 1, "period_s": 1}]},
    "scale_down": {"stabilization_window_s": 2, "policies": [{"type": "Pods", "value": 1, "period_s": 1}]},
}


@pytest.fixture
def platform(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Platform]:
    """A platform with simulated replicas; the parameter changes the autoscaling."""
    config = tmp_path / "inferdock.yaml"
    engine = {"sim": {"ttft_s": 0.1, "itl_s": 0.02}}
    config.write_text(yaml.safe_dump({"autoscaling": FAST | getattr(request, "param", {}), "engine": engine}))
    running = Platform(tmp_path / "state", "--engine", "sim", "-f", str(config))
    try:
        running.wait_until_ready(1, within_s=60)
        yield running
    finally:
        running.kill()


def ready(platform: Platform) -> int:
    return sum(replica["state"] == "ready" for replica in platform.state["replicas"])


def until_ready(platform: Platform, replicas: int, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while ready(platform) != replicas:
        assert time.monotonic() < deadline, platform.output.read_text()
        time.sleep(0.1)


def until_gone(platform: Platform, within_s: float = 60) -> None:
    """Wait until no replica is left, not even one that finishes what it has: that one would answer the next request."""
    deadline = time.monotonic() + within_s
    while platform.state["replicas"]:
        assert time.monotonic() < deadline, platform.output.read_text()
        time.sleep(0.1)


def load(platform: Platform, users: int, seconds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "inferdock.cli.main", "bench", f"{platform.url}/v1", "--concurrency", str(users)]
    command += ["--duration", str(seconds), "--output-tokens", "20", "--warmup", "0", "-o", "json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def test_replicas_come_with_the_load_and_go_after_it(platform: Platform) -> None:
    asking = load(platform, users=12, seconds=20)
    until_ready(platform, 3)
    answered, _ = asking.communicate(timeout=90)
    until_ready(platform, 1)
    summary = json.loads(answered)["summary"]
    assert summary["errors"] == {}
    assert summary["succeeded"] == summary["requests"] > 50
    said = platform.output.read_text()
    assert "1 -> 2 replicas. requests is 1" in said
    assert "3 -> 2 replicas." in said
    assert platform.stop() == 0


@pytest.mark.parametrize("platform", [{"min_replicas": 0, "idle_s": 2}], indirect=True, ids=["to zero"])
def test_an_idle_model_sleeps_and_a_request_wakes_it(platform: Platform) -> None:
    until_gone(platform)
    body = {"model": "inferdock-demo", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
    request = urllib.request.Request(
        f"{platform.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.load(answer)["choices"]
    assert "0 -> 1 replicas. requests is 1" in platform.output.read_text()


def test_bounds_that_contradict_each_other_are_refused_before_anything_starts(tmp_path: Path) -> None:
    config = tmp_path / "inferdock.yaml"
    config.write_text("autoscaling: {enabled: true, min_replicas: 5, max_replicas: 2}\n")
    running = Platform(tmp_path / "state", "--engine", "sim", "-f", str(config))
    assert running.process.wait(60) == 3
    assert "5 to 2 replicas" in running.output.read_text()
