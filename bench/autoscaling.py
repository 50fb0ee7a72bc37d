"""How right ``inferdock simulate`` is: one burst sent to a platform that scales itself, and the same burst on paper.

For each engine: a sweep over one replica gives the profile, an idle start the start-up time; then an open loop with a
burst in it goes to ``inferdock up`` with the autoscaler on, and what was really sent (a CSV trace) to
``inferdock simulate`` with the same configuration. Replicas of vLLM share the processors of this machine, which the
simulation knows nothing of; so it is asked again with the profile of all replicas at once and the start-up time that
was seen under load. ``python -m bench.autoscaling``; writes ``bench/results/autoscaling-ENGINE.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from bench.servers import process, wait_for
from inferdock.bench.client import Asking, Client, Outcome, first_model, session
from inferdock.bench.report import machine, write_json
from inferdock.bench.runner import Runner
from inferdock.bench.stats import tpot_s, ttft_s
from inferdock.bench.workload import synthetic
from inferdock.simulation.report import percentiles
from inferdock.simulation.traffic import Lengths, burst, poisson

MOST = 3
"""Replicas."""
EVERY_S = 0.25
"""Between two looks at the replicas."""
FIGURES_AGE_S = 0.5
"""The supervisor asks the gateway for its figures once a second: they are half a second old on average."""
SETTLE_S = 120.0
"""So long after the last request the last but one replica may take to go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One engine and its load.

    Attributes:
        engine: group ``engine`` of the configuration.
        max_num_seqs: that one replica runs at once.
        target: requests that each replica is to have; 0: what the sweep says.
        sweep: users of its rungs.
        base, peak: requests per second.
        begin_s, length_s, duration_s: of the burst, and of all.
        prompt_tokens, output_tokens: of each request.
        shared: replicas share processors, so ask the simulation with their common profile too.
        replicas: there at least, and at first.
        kills: seconds after the first request at which a ready replica is killed without notice.
    """

    engine: dict[str, Any]
    max_num_seqs: int
    target: float
    sweep: str
    base: float
    peak: float
    begin_s: float
    length_s: float
    duration_s: float
    prompt_tokens: int
    output_tokens: int
    shared: bool
    replicas: int = 1
    kills: tuple[float, ...] = ()


SETUPS = {
    "sim": Setup(
        engine={"kind": "sim", "sim": {"ttft_s": 0.1, "itl_s": 0.02, "max_num_seqs": 8, "startup_s": 5.0}},
        max_num_seqs=8, target=6, sweep="1,2,4,8", base=2.0, peak=14.0, begin_s=15, length_s=40, duration_s=90,
        prompt_tokens=32, output_tokens=50, shared=False,
    ),
    "vllm": Setup(
        engine={"max_num_seqs": 16, "kv_cache_gib": 0.1, "env": {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}},
        max_num_seqs=16, target=3, sweep="1,2,4,8,16", base=2.0, peak=20.0, begin_s=15, length_s=140, duration_s=165,
        prompt_tokens=32, output_tokens=64, shared=True,
    ),
    "spot": Setup(
        engine={"kind": "sim", "sim": {"ttft_s": 0.1, "itl_s": 0.02, "max_num_seqs": 8, "startup_s": 5.0}},
        max_num_seqs=8, target=6, sweep="1,2,4,8", base=12.0, peak=12.0, begin_s=0, length_s=80, duration_s=80,
        prompt_tokens=32, output_tokens=50, shared=False, replicas=MOST, kills=(20.0, 22.0, 50.0),
    ),
}  # fmt: skip
BACK_OFF_S = 1.0
"""The supervisor waits so long before it starts a replica again that died (``engine.restart_backoff_s``)."""
SCALING = {
    "max_replicas": MOST,
    "sync_s": 2.0,
    "scale_up": {"stabilization_window_s": 4, "policies": [{"value": 1, "period_s": 4}]},
    "scale_down": {"stabilization_window_s": 10, "policies": [{"value": 1, "period_s": 4}]},
}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=[*SETUPS, "all"], default="all")
    parser.add_argument("--rounds", type=int, default=1, help="bursts of each engine, each with another seed")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"), help="folder")
    args = parser.parse_args()
    for name in SETUPS if args.engine == "all" else [args.engine]:
        found = _measured(SETUPS[name], args.rounds)
        asked = {"rounds": args.rounds, "setups": {name: asdict(SETUPS[name])}, "scaling": SCALING}
        document = {"configuration": asked, "machine": machine(), "engines": {name: found}}
        write_json(args.out / f"autoscaling-{name}.json", document)
        for number, one in enumerate(found["rounds"], 1):
            print(f"{name}, round {number}: " + json.dumps({way: one[way]["off"] for way in one["predictions"]}))


def _measured(setup: Setup, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone = _profile(setup, folder / "alone", 1)
        shared = _profile(setup, folder / "shared", MOST) if setup.shared else None
        target = setup.target or alone["requests_per_replica"]
        seen = [_round(setup, folder / f"round-{seed}", seed, target, alone, shared) for seed in range(1, rounds + 1)]
    return {"target": target, "alone": alone, "shared": shared, "rounds": seen}


# -- The profile of a replica ------------------------------------------------------------------------------------


def _profile(setup: Setup, folder: Path, replicas: int) -> dict[str, Any]:
    """Sweep so many replicas at once, and start one more beside them."""
    folder.mkdir()
    file = folder / "profile.json"
    users = ",".join(str(int(users) * replicas) for users in setup.sweep.split(","))
    with _platform(folder, yaml.safe_dump({"engine": setup.engine}), replicas) as state:
        words = ["--sweep", users, "--replicas", str(replicas), "--profile", str(file), "--warmup", "20", "-o", "json"]
        words += ["--prompt-tokens", str(setup.prompt_tokens), "--output-tokens", str(setup.output_tokens)]
        words += ["--slo", "ttft_p95=1s", "--slo", "tpot_p50=100ms"]
        said = _inferdock("bench", f"{_read(state)['url']}/v1", *words)
        startup_s = asyncio.run(_one_more(state)) if replicas == 1 else None
    profile = json.loads(file.read_text())
    # A sweep tells by Little's law how many ran at once; what the engine was told is better known.
    profile["max_num_seqs"] = setup.max_num_seqs
    rungs = [_rung(rung) for rung in said["rungs"]]
    found = {"replicas": replicas, "profile": profile, "startup_s": startup_s, "rungs": rungs}
    print(f"profile of {replicas}: {json.dumps(found)}", file=sys.stderr, flush=True)
    return {**found, "knee": said["knee"], "requests_per_replica": said["requests_per_replica"]}


def _rung(rung: dict[str, Any]) -> dict[str, Any]:
    return {
        "users": rung["users"],
        "requests_per_s": rung["requests_per_s"],
        "ttft_p95_s": rung["ttft"]["p95"],
        "tpot_mean_s": rung["tpot"]["mean"],
    }


async def _one_more(state: Path) -> float:
    """Seconds from the wish for a second replica until it is ready, on an otherwise idle platform."""
    shown = _read(state)
    connector = aiohttp.UnixConnector(shown["control"])
    began = time.monotonic()
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.patch(f"http://up/revisions/{shown['revision']}", json={"replicas": 2}) as response,
    ):
        response.raise_for_status()
    while _counted(state)[0] < 2:
        if time.monotonic() - began > 600:
            sys.exit("the second replica did not become ready")
        await asyncio.sleep(EVERY_S)
    return time.monotonic() - began


def configuration(setup: Setup, target: float) -> str:
    """``inferdock.yaml`` of the platform that scales itself."""
    scaling = {**SCALING, "enabled": True, "requests_per_replica": target, "min_replicas": setup.replicas}
    return yaml.safe_dump({"engine": setup.engine, "autoscaling": scaling})


# -- The burst ---------------------------------------------------------------------------------------------------


def _round(
    setup: Setup, folder: Path, seed: int, target: float, alone: dict[str, Any], shared: dict[str, Any] | None
) -> dict[str, Any]:
    folder.mkdir()
    with _platform(folder, configuration(setup, target), setup.replicas) as state:
        real = asyncio.run(_burst(setup, state, folder / "trace.csv", seed))
    print(f"measured: {json.dumps({**real, 'history': None})}", file=sys.stderr, flush=True)
    result: dict[str, Any] = {"seed": seed, "measured": real, "predictions": ["alone"]}
    startup_s = alone["startup_s"] + (BACK_OFF_S if setup.kills else 0.0)
    result["alone"] = _predicted(setup, folder, alone["profile"], startup_s, real)
    if shared is not None:
        seen = statistics.mean(real["startups_s"] or [alone["startup_s"]])
        result["predictions"].append("shared")
        result["shared"] = _predicted(setup, folder, shared["profile"], seen, real)
    return result


async def _burst(setup: Setup, state: Path, trace: Path, seed: int) -> dict[str, Any]:
    rate = burst(setup.base, setup.peak, setup.begin_s, setup.length_s)
    rng = random.Random(seed)
    offsets = [one.at for one in poisson(rate, setup.peak, setup.duration_s, Lengths(spread=0.0), rng)]
    tasks = synthetic(lambda _: setup.prompt_tokens, lambda _: setup.output_tokens, rng)
    base = f"{_read(state)['url']}/v1"
    async with session(None, 600.0) as http:
        asking = Asking(base_urls=(base,), model=await first_model(http, base))
        client = Client(http, asking)
        for _ in range(3):  # connections and kernels are warm
            await client.send(next(tasks), time.perf_counter())
        runner = Runner(client, tasks, requests=len(offsets), duration_s=None)
        async with _watched(state) as (began, history):
            killer = asyncio.create_task(_kill(setup, state))
            await runner.open(iter(offsets))
            await killer
            await _settled(state, setup.replicas)
    outcomes = sorted(runner.progress.outcomes, key=lambda outcome: outcome.due_at)
    _write_trace(trace, outcomes)
    first = min(one.sent_at for one in outcomes) - began
    return _figures(outcomes, [(at - first, ready, wanted) for at, ready, wanted in history])


@contextlib.asynccontextmanager
async def _watched(state: Path) -> AsyncIterator[tuple[float, list[tuple[float, int, int]]]]:
    """(beginning, growing list of (seconds since then, ready, wanted))."""
    began = time.perf_counter()
    history: list[tuple[float, int, int]] = []

    async def watch() -> None:
        while True:
            history.append((time.perf_counter() - began, *_counted(state)))
            await asyncio.sleep(EVERY_S)

    task = asyncio.create_task(watch())
    try:
        yield began, history
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _kill(setup: Setup, state: Path) -> None:
    """Take replicas away as a machine does that goes without notice."""
    began = time.monotonic()
    for at in setup.kills:
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        ready = [row for row in _read(state)["replicas"] if row["state"] == "ready"]
        os.kill(ready[0]["pid"], signal.SIGKILL)


async def _settled(state: Path, replicas: int) -> None:
    """Until the least number of replicas is left."""
    deadline = time.monotonic() + SETTLE_S
    while _counted(state) != (replicas, replicas) and time.monotonic() < deadline:  # noqa: ASYNC110 - another process's state
        await asyncio.sleep(EVERY_S)


def _write_trace(path: Path, outcomes: list[Outcome]) -> None:
    """What was really sent, and when."""
    first = min(one.sent_at for one in outcomes)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["seconds", "prompt_tokens", "output_tokens"])
        for one in sorted(outcomes, key=lambda outcome: outcome.sent_at):
            rows.writerow([f"{one.sent_at - first:.6f}", one.prompt_tokens, max(1, one.output_tokens)])


def _figures(outcomes: list[Outcome], history: list[tuple[float, int, int]]) -> dict[str, Any]:
    fine = [one for one in outcomes if not one.error]
    return {
        "requests": len(outcomes),
        "failed": len(outcomes) - len(fine),
        "ttft_s": percentiles([wait for one in fine if (wait := ttft_s(one)) is not None]),
        "tpot_s": percentiles([pace for one in fine if (pace := tpot_s(one)) is not None]),
        "sent_late_most_s": max(one.sent_at - one.due_at for one in outcomes),
        "startups_s": _startups(history),
        "changes": [now for last, now in zip([(0.0, -1, -1), *history], history, strict=False) if now[1:] != last[1:]],
        "history": [(round(at, 2), ready, wanted) for at, ready, wanted in history],
    }


def _startups(history: list[tuple[float, int, int]]) -> list[float]:
    """Seconds between the n-th replica wanted and the n-th ready."""
    found = []
    for replica in range(2, max(ready for _, ready, _ in history) + 1):
        wanted_at = next(at for at, _, wanted in history if wanted >= replica)
        found.append(next(at for at, ready, _ in history if ready >= replica) - wanted_at)
    return found


# -- The same on paper -------------------------------------------------------------------------------------------


def _predicted(
    setup: Setup, folder: Path, profile: dict[str, Any], startup_s: float, real: dict[str, Any]
) -> dict[str, Any]:
    file = folder / "profile.json"
    file.write_text(json.dumps(profile))
    words = ["-f", str(folder / "inferdock.yaml"), "--profile", str(file), "--startup", f"{startup_s:.3f}"]
    words += ["--trace", str(folder / "trace.csv"), "--duration", str(setup.duration_s)]
    words += ["--replicas", str(setup.replicas)]
    if setup.kills:
        words += ["--spot-at", ",".join(map(str, setup.kills)), "--spot-notice", "0"]
    said = _inferdock("simulate", *words, "--figures-age", str(FIGURES_AGE_S), "-o", "json")
    history = [(row[0], row[2], row[1]) for row in said["history"]]
    off = {
        "ttft_p50": said["ttft_s"]["p50"] / real["ttft_s"]["p50"],
        "ttft_p95": said["ttft_s"]["p95"] / real["ttft_s"]["p95"],
        "tpot_p50": said["tpot_s"]["p50"] / real["tpot_s"]["p50"],
        **_compared(history, real["history"], setup.duration_s),
    }
    return {
        "startup_s": startup_s, "ttft_s": said["ttft_s"], "tpot_s": said["tpot_s"], "actions": said["actions"],
        "history": history, "off": {name: round(value, 3) for name, value in off.items()},
    }  # fmt: skip


def _compared(
    paper: list[tuple[float, int, int]], real: list[tuple[float, int, int]], until: float
) -> dict[str, float]:
    """Replicas on paper and in truth, second by second: how far apart, how often alike, and both means."""
    pairs = [(_at(paper, at)[1:], _at(real, at)[1:]) for at in range(int(until))]
    return {
        "ready_mean_predicted": statistics.mean(ours[0] for ours, _ in pairs),
        "ready_mean_measured": statistics.mean(theirs[0] for _, theirs in pairs),
        "ready_apart_mean": statistics.mean(abs(ours[0] - theirs[0]) for ours, theirs in pairs),
        "ready_alike": statistics.mean(ours[0] == theirs[0] for ours, theirs in pairs),
        "wanted_alike": statistics.mean(ours[1] == theirs[1] for ours, theirs in pairs),
    }


def _at(history: list[tuple[float, int, int]], seconds: float) -> tuple[float, int, int]:
    return next((row for row in reversed(history) if row[0] <= seconds), history[0])


# -- Processes ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _platform(folder: Path, config: str, replicas: int) -> Iterator[Path]:
    """``inferdock up``, all replicas ready: its state file."""
    file, log, state = folder / "inferdock.yaml", folder / "up.log", folder / "up-0" / "state.json"
    file.write_text(config)
    command = [sys.executable, "-m", "inferdock.cli.main", "up", "-f", str(file), "--port", "0"]
    command += ["--state-dir", str(folder), "--replicas", str(replicas)]
    with process(command, log) as child:
        wait_for(lambda: _counted(state)[0] == replicas, child, log)
        yield state


def _read(state: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(state.read_text())
    except (OSError, ValueError):
        return {}
    return found


def _counted(state: Path) -> tuple[int, int]:
    """Replicas that are ready, and those that are wanted."""
    states = [row["state"] for row in _read(state).get("replicas", [])]
    return states.count("ready"), len(states) - states.count("draining") - states.count("stopped")


def _inferdock(*words: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "inferdock.cli.main", *words]
    said = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if said.returncode not in (0, 8):  # 8: an objective is missed, and the document is there all the same
        sys.exit(f"status {said.returncode}: {' '.join(command)}")
    found: dict[str, Any] = json.loads(said.stdout)
    return found


if __name__ == "__main__":
    main()
