"""Load that rises and falls, to watch scaling: step 2.4 of the plan as a Locust scenario that reads streams.

    locust -f tests/load/test_autoscaling.py --headless --host http://127.0.0.1:8080

Begins with one user, rises to PEAK users in RAMP_S, stays for STAY_S, falls to five in FALL_S, stays for REST_S; all
times shrink with SPEED (60 makes minutes of seconds). With LIMIT=3 it goes on as soon as three replicas are ready, and
ends as soon as one is left. Besides Locust's own figures it reports ``TTFT`` and ``TPOT`` of each stream as entries of
their own, and counts a stream that breaks as a failure.

REPLICAS says where replicas are counted, once a second: a ``state.json`` of ``inferdock up``, the address of a
gateway's ``/admin/status``, or a command that prints how many are ready and how many are wanted::

    REPLICAS="kubectl get deployment NAME -o jsonpath={.status.readyReplicas},{.spec.replicas}"

RECORD=run.json keeps users, replicas and every answer; PLOT=run.png draws them. OPENAI_API_KEY and MODEL as usual.

pytest runs the scenario for some seconds against simulated replicas, as a process: Locust replaces Python's sockets
(gevent) and must not be imported into the test run. This file needs nothing else of the repository.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

HOLD_S = 5.0
"""So long the wanted number of replicas must be there before the scenario goes on."""


class Seen(NamedTuple):
    """Replicas that are ready, those that are wanted, and all that are there, with those that leave."""

    ready: int
    wanted: int
    there: int


class Answer(NamedTuple):
    """One request: when it was sent, seconds to its first token, and how it ended ("" when all is well)."""

    at: float
    ttft_s: float | None
    fault: str


def replicas_of(shown: dict[str, Any]) -> Seen:
    """Replicas in a state file of ``inferdock up``, or in a gateway's status."""
    states = [row.get("state") for row in shown.get("replicas") or shown.get("endpoints") or []]
    leaving = sum(state in ("draining", "stopped") for state in states)
    return Seen(states.count("ready"), len(states) - leaving, len(states) - states.count("stopped"))


def count_replicas(source: str) -> Seen | None:
    """Look at REPLICAS; None where nothing is said at the moment."""
    try:
        if source.startswith(("http://", "https://")):
            with urllib.request.urlopen(source, timeout=5) as response:
                return replicas_of(json.load(response))
        if source.endswith(".json"):
            return replicas_of(json.loads(Path(source).read_text(encoding="utf-8")))
        said = subprocess.run(shlex.split(source), capture_output=True, text=True, timeout=10, check=True).stdout
        numbers = [int(number) for number in re.findall(r"\d+", said)]
        return Seen(numbers[0], numbers[-1], max(numbers)) if numbers else None
    except (OSError, ValueError, TypeError, AttributeError, subprocess.SubprocessError):
        return None


@dataclass
class Course:
    """How many users there are.

    Attributes:
        peak, low: users.
        ramp_s, stay_s, fall_s, rest_s: seconds of the four stages.
        limit: replicas that end the stay at the peak, as one ends the rest; None: only time does.
    """

    peak: int = 50
    low: int = 5
    ramp_s: float = 300.0
    stay_s: float = 300.0
    fall_s: float = 30.0
    rest_s: float = 600.0
    limit: int | None = None
    _fell_at: float | None = None
    _since: float | None = None

    def users(self, now: float, seen: Seen | None) -> int | None:
        """Users now; None at the end."""
        if self._fell_at is None:
            if now < self.ramp_s:
                return max(1, round(1 + (self.peak - 1) * now / self.ramp_s))
            if now < self.ramp_s + self.stay_s and not self._reached(now, seen, self.limit):
                return self.peak
            self._fell_at, self._since = now, None
        fallen = now - self._fell_at
        if fallen < self.fall_s:
            return round(self.peak + (self.low - self.peak) * fallen / self.fall_s)
        over = fallen >= self.fall_s + self.rest_s or self._reached(now, seen, None if self.limit is None else 1)
        return None if over else self.low

    def _reached(self, now: float, seen: Seen | None, replicas: int | None) -> bool:
        if replicas is None or seen is None or not seen.ready == seen.there == replicas:
            self._since = None
            return False
        self._since = self._since if self._since is not None else now
        return now - self._since >= HOLD_S


@dataclass
class Record:
    """What a run saw; times in seconds from its start.

    Attributes:
        looks: (time, users, replicas ready, replicas wanted), once a second; replicas only where they are counted.
        answers: to all requests.
    """

    looks: list[tuple[float, int, int | None, int | None]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def changes(self) -> list[tuple[float, int, int]]:
        """(time, ready, wanted) whenever one of the two has changed."""
        known = [(at, ready, wanted) for at, _, ready, wanted in self.looks if ready is not None and wanted is not None]
        before = [None, *(look[1:] for look in known)]
        return [look for look, last in zip(known, before, strict=False) if look[1:] != last]

    def summary(self) -> dict[str, Any]:
        """Figures of the whole run."""
        faults = Counter(answer.fault for answer in self.answers if answer.fault)
        server = sum(count for fault, count in faults.items() if fault.startswith("status 5"))
        other = sum(count for fault, count in faults.items() if fault.startswith("status ")) - server
        waits = sorted(answer.ttft_s for answer in self.answers if answer.ttft_s is not None)
        return {
            "requests": len(self.answers),
            "answered": len(self.answers) - faults.total(),
            "dropped": faults.total() - server - other,
            "status_5xx": server,
            "status_other": other,
            "ttft_p50_s": nearest(waits, 0.5),
            "ttft_p95_s": nearest(waits, 0.95),
            "most_ready": max((look[2] or 0 for look in self.looks), default=0),
            "changes": self.changes(),
        }

    def write(self, path: Path, course: Course) -> None:
        """Keep it as JSON."""
        shown = {name: value for name, value in vars(course).items() if not name.startswith("_")}
        document = {"course": shown, "summary": self.summary(), "looks": self.looks, "answers": self.answers}
        path.write_text(json.dumps(document) + "\n", encoding="utf-8")


def nearest(ordered: list[float], share: float) -> float | None:
    """The value that this share of all does not exceed."""
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else None


def draw(path: Path, record: Record, title: str) -> None:
    """Users, replicas and times to first tokens over time, as a PNG. Needs matplotlib."""
    importlib.import_module("matplotlib").use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(3, 1, figsize=(10, 8), sharex=True, constrained_layout=True)
    at = [look[0] for look in record.looks]
    axes[0].step(at, [look[1] for look in record.looks], where="post")
    axes[0].set(ylabel="users")
    counted = [look for look in record.looks if look[2] is not None]
    for place, name, style in ((3, "wanted", "--"), (2, "ready", "-")):
        axes[1].step([look[0] for look in counted], [look[place] for look in counted], style, where="post", label=name)
    axes[1].set(ylabel="replicas")
    axes[1].legend(loc="upper left")
    fine = [answer for answer in record.answers if answer.ttft_s is not None]
    axes[2].plot([a.at for a in fine], [(a.ttft_s or 0.0) * 1e3 for a in fine], ".", markersize=3)
    for answer in record.answers:
        if answer.fault:
            axes[2].axvline(answer.at, color="red", linewidth=0.5)
    axes[2].set(ylabel="TTFT, ms (a failure: a red line)", xlabel="seconds")
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.set_ylim(bottom=0)
    figure.suptitle(title)
    figure.savefig(path, dpi=100, format="png")


def sentence(summary: dict[str, Any]) -> str:
    """A summary for people."""
    waits = ", ".join(
        f"{name} {summary[f'ttft_{name}_s'] * 1e3:.0f} ms" for name in ("p50", "p95") if summary[f"ttft_{name}_s"]
    )
    steps = ", ".join(f"{at:.0f} s: {ready} of {wanted}" for at, ready, wanted in summary["changes"])
    return (
        f"{summary['answered']} of {summary['requests']} requests answered; dropped {summary['dropped']}, "
        f"5xx {summary['status_5xx']}, other refusals {summary['status_other']}; TTFT {waits or 'unknown'}\n"
        f"replicas ready: {steps or 'not counted'}"
    )


if "pytest" not in sys.modules:
    import gevent
    from locust import HttpUser, LoadTestShape, between, events, task
    from requests import RequestException

    MODEL = os.environ.get("MODEL", "")
    KEY = os.environ.get("OPENAI_API_KEY", "")
    TOKENS = int(os.environ.get("TOKENS", "50"))
    REPLICAS = os.environ.get("REPLICAS", "")
    SPEED = float(os.environ.get("SPEED", "1"))
    STAGES = {name: float(os.environ.get(name.upper(), getattr(Course, name))) / SPEED
              for name in ("ramp_s", "stay_s", "fall_s", "rest_s")}  # fmt: skip
    LIMIT = os.environ.get("LIMIT")
    COURSE = Course(peak=int(os.environ.get("PEAK", "50")), limit=int(LIMIT) if LIMIT else None, **STAGES)
    RUN = Record()
    BEGAN = time.perf_counter()
    LAST: list[Seen | None] = [None]

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

    @events.test_start.add_listener
    def watch(environment: Any, **_: Any) -> None:
        """Look at users and replicas once a second."""

        def look() -> None:
            while True:
                seen = LAST[0] = count_replicas(REPLICAS) if REPLICAS else None
                ready, wanted = (seen.ready, seen.wanted) if seen is not None else (None, None)
                RUN.looks.append((time.perf_counter() - BEGAN, environment.runner.user_count, ready, wanted))
                gevent.sleep(1.0)

        gevent.spawn(look)

    @events.quitting.add_listener
    def tell(**_: Any) -> None:
        """Say and keep what was seen."""
        summary = RUN.summary()
        print(sentence(summary), file=sys.stderr)
        if path := os.environ.get("RECORD"):
            RUN.write(Path(path), COURSE)
        if path := os.environ.get("PLOT"):
            draw(Path(path), RUN, sentence(summary).splitlines()[0])

    class RiseAndFall(LoadTestShape):
        """Users over time."""

        def tick(self) -> tuple[int, float] | None:
            """(users, users started per second) now; None at the end."""
            users = COURSE.users(self.get_run_time(), LAST[0])
            return None if users is None else (users, float(COURSE.peak))

    class ChatUser(HttpUser):
        """Asks, reads the whole stream, thinks for a moment."""

        wait_time = between(0.1, 0.5)

        def on_start(self) -> None:
            """Learn the model's name once."""
            if KEY:
                self.client.headers["Authorization"] = f"Bearer {KEY}"
            self.model = MODEL or self.client.get("/v1/models").json()["data"][0]["id"]

        @task
        def chat(self) -> None:
            """One streamed answer."""
            body = {
                "model": self.model,
                "messages": [{"role": "user", "content": "Explain quantum computing in one sentence."}],
                "max_tokens": TOKENS,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            start = time.perf_counter()
            with self.client.post("/v1/chat/completions", json=body, stream=True, catch_response=True) as response:
                fault, first, last, tokens = "", None, 0.0, 0
                if response.status_code != 200:
                    fault = f"status {response.status_code}" if response.status_code else "no connection"
                else:
                    try:
                        first, last, tokens = read_stream(response.iter_lines())
                    except (RequestException, ValueError) as exc:
                        fault = f"broken stream: {type(exc).__name__}: {exc}"
                if fault:
                    response.failure(fault)
            RUN.answers.append(Answer(start - BEGAN, first - start if first is not None else None, fault))
            if first is not None:
                self._report("TTFT", first - start)
                if tokens > 1:
                    self._report("TPOT", (last - first) / (tokens - 1))

        def _report(self, name: str, seconds: float) -> None:
            self.environment.events.request.fire(
                request_type="stream", name=name, response_time=seconds * 1e3, response_length=0, exception=None
            )


def run_locust(folder: Path, url: str, within_s: float, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the scenario; statistics come to ``folder``."""
    command = [sys.executable, "-m", "locust", "-f", __file__, "--headless", "--host", url, "--only-summary"]
    command += ["--csv", str(folder / "run"), "--stop-timeout", "20"]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=within_s, env={**os.environ, **settings}, check=False
    )


def run_scenario(folder: Path, *faults: str, speed: int) -> tuple[int, dict[str, dict[str, str]], dict[str, Any]]:
    """(exit status, statistics by name of the entry, record) of a run against a simulated replica."""
    from inferdock.sim.testing import sim_process  # noqa: PLC0415 - not for locust's own import of this file

    harm = [word for fault in faults for word in ("--fault", fault)]
    record = folder / "record.json"
    with sim_process("--port", "0", "--ttft", "0.01", "--itl", "0.001", *harm) as replica:
        said = run_locust(folder, replica.url, 100, SPEED=str(speed), PEAK="8", RECORD=str(record))
    with (folder / "run_stats.csv").open(newline="") as rows:
        return said.returncode, {row["Name"]: row for row in csv.DictReader(rows)}, json.loads(record.read_text())


def test_the_scenario_runs_to_its_end_without_a_failure(tmp_path):
    status, stats, record = run_scenario(tmp_path, speed=150)
    assert status == 0
    assert int(stats["TTFT"]["Request Count"]) > 10
    assert int(stats["TPOT"]["Request Count"]) > 10
    assert int(stats["Aggregated"]["Failure Count"]) == 0
    assert record["summary"]["answered"] == record["summary"]["requests"] > 10
    assert max(users for _, users, _, _ in record["looks"]) > 5


def test_streams_that_break_are_failures(tmp_path):
    status, stats, record = run_scenario(tmp_path, "cut:1", speed=300)  # answers may have one token
    chat = stats["/v1/chat/completions"]
    assert (status, chat["Failure Count"]) == (1, chat["Request Count"])
    assert int(chat["Failure Count"]) > 5
    assert "TTFT" not in stats
    assert record["summary"]["dropped"] == record["summary"]["requests"] > 5
