"""Load that rises and falls, to watch scaling: a Locust scenario that reads streams.

    locust -f tests/load/test_autoscaling.py --headless --host http://127.0.0.1:8080

Starts with one user, rises to PEAK users over RAMP_S, stays, falls to five, stays. Times shrink with SPEED (60 makes
minutes of seconds). Besides Locust's own figures it reports ``TTFT`` and ``TPOT`` of each stream as entries of their
own, and counts a stream that breaks as a failure.

pytest runs the scenario for some seconds against a simulated replica, as a process: Locust replaces Python's sockets
(gevent) and must not be imported into the test run.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

if "pytest" not in sys.modules:
    import json

    from locust import HttpUser, LoadTestShape, between, task
    from requests import RequestException

    MODEL = os.environ.get("MODEL", "")
    PEAK = int(os.environ.get("PEAK", "50"))
    SPEED = float(os.environ.get("SPEED", "1"))
    STAGES = (
        # until (s), users at the end of the stage
        (300 / SPEED, PEAK),
        (600 / SPEED, PEAK),
        (630 / SPEED, 5),
        (1230 / SPEED, 5),
    )

    def read_stream(lines: Iterable[bytes]) -> tuple[float | None, float, int]:
        """(time of the first token, time of the last one, number of tokens) of one answer.

        Raises:
            ValueError: the stream reports an error or ends without [DONE].
        """
        first, last, tokens = None, 0.0, 0
        for line in lines:
            if line == b"data: [DONE]":
                return first, last, tokens
            if not line.startswith(b"data: "):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise ValueError(event["error"])
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
            if any(choice["delta"].get("content") for choice in event["choices"]):
                last = time.perf_counter()
                first = first or last
        raise ValueError("it ended without [DONE]")

    class RiseAndFall(LoadTestShape):
        """Users over time."""

        def tick(self) -> tuple[int, float] | None:
            """(users, users started per second) now; None at the end."""
            now, before, users_before = self.get_run_time(), 0.0, 1
            for until, users in STAGES:
                if now < until:
                    share = (now - before) / (until - before)
                    return max(1, round(users_before + (users - users_before) * share)), float(PEAK)
                before, users_before = until, users
            return None

    class ChatUser(HttpUser):
        """Asks, reads the whole stream, thinks for a moment."""

        wait_time = between(0.1, 0.5)

        def on_start(self) -> None:
            """Learn the model's name once."""
            self.model = MODEL or self.client.get("/v1/models").json()["data"][0]["id"]

        @task
        def chat(self) -> None:
            """One streamed answer."""
            body = {
                "model": self.model,
                "messages": [{"role": "user", "content": "Explain quantum computing in one sentence."}],
                "max_tokens": 50,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            start = time.perf_counter()
            with self.client.post("/v1/chat/completions", json=body, stream=True, catch_response=True) as response:
                if response.status_code != 200:
                    response.failure(f"status {response.status_code}")
                    return
                try:
                    first, last, tokens = read_stream(response.iter_lines())
                except (RequestException, ValueError) as exc:
                    response.failure(f"broken stream: {type(exc).__name__}: {exc}")
                    return
            if first is not None:
                self._report("TTFT", first - start)
                if tokens > 1:
                    self._report("TPOT", (last - first) / (tokens - 1))

        def _report(self, name: str, seconds: float) -> None:
            self.environment.events.request.fire(
                request_type="stream", name=name, response_time=seconds * 1e3, response_length=0, exception=None
            )


def run_scenario(folder: Path, *faults: str, speed: int) -> tuple[int, dict[str, dict[str, str]]]:
    """(exit status, statistics by name of the entry) of a run against a simulated replica."""
    from inferdock.sim.testing import sim_process  # noqa: PLC0415 - not for locust's own import of this file

    harm = [word for fault in faults for word in ("--fault", fault)]
    with sim_process("--port", "0", "--ttft", "0.01", "--itl", "0.001", *harm) as replica:
        command = [sys.executable, "-m", "locust", "-f", __file__, "--headless", "--host", replica.url]
        command += ["--csv", str(folder / "run"), "--only-summary", "--stop-timeout", "20"]
        environment = {**os.environ, "SPEED": str(speed), "PEAK": "8"}
        result = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, check=False)
    with (folder / "run_stats.csv").open(newline="") as rows:
        return result.returncode, {row["Name"]: row for row in csv.DictReader(rows)}


def test_the_scenario_runs_to_its_end_without_a_failure(tmp_path):
    status, stats = run_scenario(tmp_path, speed=150)
    assert status == 0
    assert int(stats["TTFT"]["Request Count"]) > 10
    assert int(stats["TPOT"]["Request Count"]) > 10
    assert int(stats["Aggregated"]["Failure Count"]) == 0


def test_streams_that_break_are_failures(tmp_path):
    status, stats = run_scenario(tmp_path, "cut:1", speed=300)  # answers may have one token
    chat = stats["/v1/chat/completions"]
    assert (status, chat["Failure Count"]) == (1, chat["Request Count"])
    assert int(chat["Failure Count"]) > 5
    assert "TTFT" not in stats
