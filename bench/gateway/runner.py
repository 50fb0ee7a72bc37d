"""Runs one scenario: gateways started, load in interleaved rounds, ratios within rounds."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.gateway import compare
from bench.gateway.peers import Peer
from bench.gateway.processes import Cores, Replicas, Running, busy, gateway, others_share, pinned, replicas, rss_mb
from bench.gateway.scenarios import FIGURES, Scenario, Variant, figures
from bench.gateway.tools import program
from inferdock.bench.report import commit


@dataclass(frozen=True)
class Plan:
    """How much is measured, and where.

    Attributes:
        share: share of the usual time of each step.
        chosen: the peers were named, so that a scenario does not choose among them.
        calm: a step is repeated, at most twice, while others take more than this share of the gateway's core; the
            calmest one counts.
        log: folder for the gateways' logs; None: the null device.
    """

    rounds: int
    share: float
    cores: Cores
    auth: bool
    chosen: bool
    calm: float
    log: Path | None


MAX_TRIES = 3
BESIDES = ("user_share", "chunks_per_read", "rss_mb", "idle_rss_mb", "core_share", "others_share")
"""What the summary tells besides the figures that can be compared."""

Setup = tuple[str, int, int]
"""Gateway, replicas, workers."""


def measure(scenario: Scenario, peers: Sequence[Peer], plan: Plan) -> dict[str, Any]:
    """All rounds of a scenario, as the JSON document has them."""
    skipped: dict[str, str] = {}
    taking = [peer for peer in peers if _takes_part(scenario, peer, plan, skipped)]
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    _say(f"== {scenario.name}: {scenario.title}")
    with replicas(max(v.replicas for v in scenario.variants), plan.cores) as upstreams:
        if scenario.fresh:
            rounds = [_fresh_round(scenario, taking, plan, upstreams, number) for number in range(plan.rounds)]
        else:
            with contextlib.ExitStack() as stack:
                running = _start_all(stack, scenario, taking, plan, upstreams, skipped)
                taking = [peer for peer in taking if peer.name not in skipped]
                rounds = [_round(scenario, taking, plan, upstreams, running, n) for n in range(plan.rounds)]
    return {
        "title": scenario.title,
        "figure": scenario.figure,
        "versus": scenario.versus,
        "started": started,
        "commit": commit(),
        "configuration": {
            "rounds": plan.rounds, "share": plan.share, "cores": asdict(plan.cores), "auth": plan.auth,
            "calm": plan.calm,
            "variants": [asdict(variant) for variant in scenario.variants],
        },
        "versions": {peer.name: peer.version for peer in taking if peer.version},
        "skipped": skipped,
        "rounds": rounds,
        "summary": summary(scenario, [peer.name for peer in taking], rounds),
    }  # fmt: skip


def _takes_part(scenario: Scenario, peer: Peer, plan: Plan, skipped: dict[str, str]) -> bool:
    needs_workers = any(variant.workers > 1 for variant in scenario.variants)
    reason = peer.missing
    if not plan.chosen and peer.name.partition("@")[0] not in scenario.peers:
        return False
    if peer.command is None and scenario.versus != "peers":
        return False
    if needs_workers and not peer.workers:
        reason = "takes no number of workers"
    if reason:
        skipped[peer.name] = reason
        _say(f"   {peer.name} is left out: {reason}")
    return not reason


# -- Gateways ---------------------------------------------------------------------------------------------------------


def _start_all(
    stack: contextlib.ExitStack,
    scenario: Scenario,
    peers: Sequence[Peer],
    plan: Plan,
    upstreams: Replicas,
    skipped: dict[str, str],
) -> dict[Setup, Running]:
    """Start every gateway in every setup; one that does not start is left out."""
    running: dict[Setup, Running] = {}
    for peer in peers:
        for variant in scenario.variants:
            setup = (peer.name, variant.replicas, variant.workers)
            if setup in running or peer.name in skipped:
                continue
            try:
                running[setup] = stack.enter_context(_start(peer, variant, plan, upstreams))
            except SystemExit as exc:
                skipped[peer.name] = f"did not start: {str(exc.code)[-500:].strip()}"
                _say(f"   {peer.name} is left out: it {skipped[peer.name]}")
    return running


def _start(peer: Peer, variant: Variant, plan: Plan, upstreams: Replicas) -> contextlib.AbstractContextManager[Running]:
    log = plan.log / f"{peer.name}-{variant.replicas}-{variant.workers}.log" if plan.log else None
    cores = plan.cores
    if variant.workers > 1:
        cores = replace(cores, gateway=worker_cores(variant.workers, cores))
    return gateway(
        peer, upstreams, count=variant.replicas, workers=variant.workers, cores=cores, auth=plan.auth, log=log
    )


def worker_cores(workers: int, cores: Cores) -> tuple[int, ...]:
    """Cores for several workers: those that replicas and load leave free, and if these are too few, theirs too."""
    free = [core for core in sorted(os.sched_getaffinity(0)) if core not in cores.others]
    return tuple((free + list(cores.others))[:workers])


# -- Rounds -----------------------------------------------------------------------------------------------------------


def _round(
    scenario: Scenario,
    peers: Sequence[Peer],
    plan: Plan,
    upstreams: Replicas,
    running: Mapping[Setup, Running],
    number: int,
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {variant.label: {} for variant in scenario.variants}
    by_name = {peer.name: peer for peer in peers}
    for name in compare.turn_order(list(by_name), number):
        for variant in scenario.variants if number % 2 == 0 else scenario.variants[::-1]:
            target = running[name, variant.replicas, variant.workers]
            found[variant.label][name] = _step(scenario, by_name[name], variant, plan, upstreams, target, number)
    return found


def _fresh_round(
    scenario: Scenario, peers: Sequence[Peer], plan: Plan, upstreams: Replicas, number: int
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {variant.label: {} for variant in scenario.variants}
    by_name = {peer.name: peer for peer in peers}
    for name in compare.turn_order(list(by_name), number):
        for variant in scenario.variants:
            with _start(by_name[name], variant, plan, upstreams) as target:
                found[variant.label][name] = _step(scenario, by_name[name], variant, plan, upstreams, target, number)
    return found


def _step(
    scenario: Scenario,
    peer: Peer,
    variant: Variant,
    plan: Plan,
    upstreams: Replicas,
    target: Running,
    number: int,
) -> dict[str, Any]:
    tries = [_try(scenario, peer, variant, plan, upstreams, target)]
    while tries[-1]["others_share"] > plan.calm and len(tries) < MAX_TRIES and not peer.slow:
        tries.append(_try(scenario, peer, variant, plan, upstreams, target))
    found = min(tries, key=lambda one: float(one["others_share"]))
    _say(f"   round {number + 1} {peer.name:18} {variant.label:>10}  {_in_words(scenario, found)}")
    return found


def _try(
    scenario: Scenario, peer: Peer, variant: Variant, plan: Plan, upstreams: Replicas, target: Running
) -> dict[str, Any]:
    share = plan.share * (scenario.slow_factor if peer.slow and variant.kind != "run" else 1.0)
    before = json.loads(upstreams.ask("/bench/counts"))
    upstreams.ask(f"/bench/pace?{variant.pace_us}")
    watched = busy(plan.cores.gateway, target.pids())
    result = _load(variant.scaled(share), plan, target)
    found: dict[str, Any] = figures(result)
    found["others_share"] = others_share(watched, busy(plan.cores.gateway, target.pids()))
    found |= {name: result[name] for name in ("requests", "streams", "tokens", "errors", "unfinished", "waiting")}
    if result["first_error"]:
        found["first_error"] = result["first_error"]
    if peer.command is not None:
        sizes = rss_mb(target.pids())
        found |= {"idle_rss_mb": target.idle_rss_mb, "rss_mb": max(sizes), "processes": len(sizes)}
        found["start_s"] = target.start_s
    found["load_average"] = os.getloadavg()[0]
    wait_for_quiet(upstreams, before["open"])
    return found


def _load(variant: Variant, plan: Plan, target: Running) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile(prefix="bench-body-") as body:
        body.write(variant.body())
        body.flush()
        command = [str(program("load")), *variant.arguments(), "--port", str(target.port), "--body", body.name]
        for header in target.headers:
            command += ["--header", header]
        for pid in target.pids():
            command += ["--pid", str(pid)]
        done = subprocess.run(pinned(plan.cores.others, command), stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(f"the load generator failed with status {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def wait_for_quiet(upstreams: Replicas, before: int, limit_s: float = 60) -> None:
    """Wait until the streams that the last step left open have been given up by the gateway."""
    end = time.monotonic() + limit_s
    while json.loads(upstreams.ask("/bench/counts"))["open"] > before and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(0.2)


def _in_words(scenario: Scenario, found: Mapping[str, Any]) -> str:
    parts = [f"{FIGURES[name].title} {found[name]:.4g}" for name in (scenario.figure,) if name in found]
    parts += [f"{name} {found[name]:.3g}" for name in ("latency_p50_us", "core_share", "others_share") if name in found]
    parts += [f"{name} {found[name]}" for name in ("first_error", "errors", "unfinished", "waiting") if found.get(name)]
    return ", ".join(parts)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# -- Summary ----------------------------------------------------------------------------------------------------------


def summary(scenario: Scenario, peers: Sequence[str], rounds: Sequence[compare.Round]) -> dict[str, Any]:
    """Of each variant and gateway: each figure's median and range, and the ratios that the scenario asks for.

    "Ours" is the first Inferdock among the gateways, so that commits can be compared with each other too.
    """
    found: dict[str, Any] = {}
    first = scenario.variants[0].label
    ours = next((peer for peer in peers if peer.partition("@")[0] == "inferdock"), "inferdock")
    for variant in scenario.variants:
        for peer in peers:
            cell: dict[str, Any] = {
                name: spread.as_dict()
                for name in (
                    *FIGURES,
                    "user_share",
                    "chunks_per_read",
                    "rss_mb",
                    "idle_rss_mb",
                    "core_share",
                    "others_share",
                )
                if (spread := compare.spread(compare.values(rounds, variant.label, peer, name)))
            }
            if scenario.versus == "peers" and peer != ours:
                cell["ours_to_this"] = _ratios(rounds, scenario, (variant.label, ours), (variant.label, peer))
            elif scenario.versus == "variants":
                cell["this_to_first"] = _ratios(rounds, scenario, (variant.label, peer), (first, peer))
            found.setdefault(variant.label, {})[peer] = cell
    return found


def _ratios(
    rounds: Sequence[compare.Round], scenario: Scenario, top: tuple[str, str], bottom: tuple[str, str]
) -> dict[str, Any]:
    return {
        name: spread.as_dict()
        for name in FIGURES
        if (spread := compare.spread(compare.ratios(rounds, name, top, bottom)))
    }
