"""The scenario of ``test_autoscaling``: its course, what it counts, and a run of it against simulated replicas."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.load.test_autoscaling import Answer, Course, Record, Seen, count_replicas, run_locust, sentence
from tests.support.platform import Platform

FAST = """
engine: {sim: {ttft_s: 0.1, itl_s: 0.02}}
autoscaling:
  {enabled: true, max_replicas: 3, requests_per_replica: 6, sync_s: 0.5,
   scale_up: {stabilization_window_s: 1, policies: [{value: 1, period_s: 1}]},
   scale_down: {stabilization_window_s: 2, policies: [{value: 1, period_s: 1}]}}
"""


def run_against_up(folder: Path, config: str, *arguments: str, start_s: float, **settings: str) -> dict[str, Any]:
    """The scenario against ``inferdock up``: its record. The picture is ``picture.png``."""
    file, record = folder / "inferdock.yaml", folder / "record.json"
    file.write_text(config)
    platform = Platform(folder / "state", "-f", str(file), *arguments)
    try:
        platform.wait_until_ready(1, within_s=start_s)
        state = folder / "state" / "up-0" / "state.json"
        paths = {"REPLICAS": str(state), "RECORD": str(record), "PLOT": str(folder / "picture.png")}
        said = run_locust(folder, platform.url, 900, **paths, **settings)
        until_gone(platform)
        print(said.stderr[-3000:], platform.output.read_text()[-3000:], sep="\n")
        assert (said.returncode, platform.stop()) == (0, 0)
    finally:
        platform.kill()
    found: dict[str, Any] = json.loads(record.read_text())
    return found


def until_gone(platform: Platform) -> None:
    """Wait until the state file shows the last replica alone."""
    deadline = time.monotonic() + 60
    while len(platform.state["replicas"]) > 1:
        assert time.monotonic() < deadline, platform.state
        time.sleep(0.1)


def assert_up_and_down_without_loss(record: dict[str, Any]) -> None:
    """1 -> 3 -> 1 replicas, and every request answered."""
    summary = record["summary"]
    ready = [ready for _, ready, _ in summary["changes"]]
    assert (ready[0], max(ready), ready[-1]) == (1, 3, 1)
    assert summary["answered"] == summary["requests"] > 50
    assert (summary["dropped"], summary["status_5xx"], summary["status_other"]) == (0, 0, 0)


def test_replicas_follow_the_scenario_and_nothing_is_lost(tmp_path):
    settings = {"PEAK": "20", "RAMP_S": "5", "STAY_S": "100", "FALL_S": "1", "REST_S": "100", "LIMIT": "3"}
    assert_up_and_down_without_loss(run_against_up(tmp_path, FAST, "--engine", "sim", start_s=60, **settings))
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"


def test_users_rise_stay_fall_and_rest():
    course = Course(peak=50, low=5, ramp_s=300, stay_s=300, fall_s=30, rest_s=600)
    users = [course.users(at, None) for at in (0, 150, 299, 300, 599, 600, 615, 631, 1229, 1231)]
    assert users == [1, 26, 50, 50, 50, 50, 28, 5, 5, None]


def test_a_limit_ends_the_stay_and_the_rest_as_soon_as_it_has_held():
    course = Course(peak=20, ramp_s=10, stay_s=100, fall_s=0, rest_s=100, limit=3)
    looks = [(9, 3, 3), (10, 2, 3), (12, 3, 3), (15, 2, 3), (16, 3, 3), (20.9, 3, 3), (21, 3, 3), (22, 1, 2)]
    looks += [(23, 1, 1), (27.9, 1, 1), (28, 1, 1)]
    users = [course.users(at, Seen(ready, there, there)) for at, ready, there in looks]
    assert users == [18, 20, 20, 20, 20, 20, 5, 5, 5, 5, None]


def test_faults_are_counted_by_whose_they_are():
    faults = ["", "", "status 503", "status 502", "status 429", "broken stream: x", "no connection"]
    looks = [(0.0, 1, None, None), (1.0, 1, 1, 1), (2.0, 5, 1, 1), (3.0, 5, 1, 2), (4.0, 5, 2, 2)]
    record = Record(looks, [Answer(float(i), 0.1 * i or None, fault) for i, fault in enumerate(faults)])
    summary = record.summary()
    counts = [summary[name] for name in ("requests", "answered", "dropped", "status_5xx", "status_other")]
    assert counts == [7, 2, 2, 2, 1]
    assert summary["changes"] == [(1.0, 1, 1), (3.0, 1, 2), (4.0, 2, 2)]
    assert "2 of 7 requests answered" in sentence(summary)
    assert sentence(Record().summary()).endswith("not counted")


STATE = {"replicas": [{"state": "ready"}, {"state": "starting"}, {"state": "draining"}, {"state": "ready"}]}


def test_replicas_are_counted_in_a_state_file_and_by_a_command(tmp_path):
    state = tmp_path / "state.json"
    state.write_text(json.dumps(STATE))
    assert count_replicas(str(state)) == Seen(ready=2, wanted=3, there=4)
    assert count_replicas("echo 2,3") == Seen(ready=2, wanted=3, there=3)
    for text in ("", "[]", "{", '{"replicas": 3}', '{"replicas": [1]}'):
        state.write_text(text)
        assert count_replicas(str(state)) in (None, Seen(0, 0, 0))
    for source in (str(tmp_path / "none.json"), "http://127.0.0.1:9/", "false", "no-such-command", "echo", "echo '"):
        assert count_replicas(source) is None
