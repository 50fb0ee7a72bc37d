"""``make bench-cache``: what a look-up costs and how often it is right, beside GPTCache in the same run.

Each subject is a process on one core; they take turns, one round after the other. The result holds figures and the
whole configuration, no prompt.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.cache import peer, report
from bench.cache.accuracy_data import Workload
from bench.cache.child import Child
from bench.cache.figures import Round, ratio, score, summary
from bench.cache.texts import labelled, workload
from bench.gateway.compare import turn_order
from inferdock.bench.report import machine, write_json

RESULTS = Path(__file__).parents[1] / "results"
SIZES = (1_000, 10_000, 100_000)
QUICK_SIZES = (1_000, 10_000)
MAX_TOKENS = 48
WARM_UP = 30
EXACT_ENTRIES = 100_000
WITHOUT_EMBEDDING = ("exact", "surface")
"""Look-ups that are answered before anything is embedded; they would make the latencies look better."""
OUR_THRESHOLDS = (None, 0.90, 0.97)
PEER_THRESHOLDS = (None, 0.95, 0.975)

Subject = Callable[[Sequence[str]], Mapping[str, Any]]


def main() -> None:
    """Command line."""
    args = _arguments()
    if args.install:
        peer.install()
    asked = workload()
    if not labelled():
        print("no labelled prompts here (INFERDOCK_CACHE_DATA): made-up ones, and no table of hits", file=sys.stderr)
    document = {"started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine()}
    document |= _measure(args, asked)
    print(report.tables(document))
    write_json(args.out, document)
    if args.accuracy and labelled():
        write_json(args.out, document | {"accuracy": _accuracy(quick=args.quick)})


def _accuracy(*, quick: bool) -> Any:
    """The figures of ``bench.cache.accuracy``, which prints its tables; they hold no prompt."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "accuracy.json"
        command = [sys.executable, "-m", "bench.cache.accuracy", "--out", str(out)]
        subprocess.run([*command, *(["--quick"] if quick else [])], check=True)
        return json.loads(out.read_text())


def _measure(args: argparse.Namespace, asked: Workload) -> dict[str, Any]:
    sizes = QUICK_SIZES if args.quick else SIZES
    rounds = args.rounds or (2 if args.quick else 5)
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(Child([sys.executable, "-m", "bench.cache.ours"], args.core))
        print("filling", file=sys.stderr, flush=True)
        fills = [ours.ask("fill", size=size, most=max(sizes)) for size in sizes]
        prompts = _short(ours, asked, 200 if args.quick else len(asked.lookups))
        stored = list(asked.stored)
        ours.ask("remember", prompts=stored, entries=EXACT_ENTRIES)
        ours.ask("keep", prompts=stored)
        subjects: dict[str, Subject] = {
            report.size_name(size): lambda some, size=size: ours.ask("look", size=size, prompts=some) for size in sizes
        }
        subjects["SemanticCache.get, 1k"] = lambda some: ours.ask("get", prompts=some)
        subjects["exact, 100k"] = lambda some: ours.ask("equal", prompts=stored[: len(some)])
        other = stack.enter_context(peer.start(args.core)) if peer.missing() == "" else None
        if other is not None:
            other.ask("fill", prompts=stored)
            subjects["GPTCache, 1k"] = lambda some: other.ask("look", prompts=some, threshold=None)
        measured = _rounds(subjects, prompts, rounds)
        return {
            "workload": "workload_1k.dev" if labelled() else "made up",
            "prompts": _lengths(ours, prompts),
            "core": args.core,
            "inferdock": ours.ask("about") | {"fills": fills},
            "gptcache": other.ask("about") if other is not None else {"missing": peer.missing()},
            "latency": {name: summary(found) for name, found in measured.items()},
            "ratios": _ratios(measured),
            "answers": _answers(ours, other, asked) if labelled() else {},
        }


def _short(ours: Child, asked: Workload, most: int) -> list[str]:
    """Look-ups that are embedded, and short enough."""
    prompts = [one.prompt for one in asked.lookups if one.kind not in WITHOUT_EMBEDDING]
    counts = ours.ask("tokens", prompts=prompts)["tokens"]
    return [prompt for prompt, count in zip(prompts, counts, strict=True) if count <= MAX_TOKENS][:most]


def _lengths(ours: Child, prompts: Sequence[str]) -> dict[str, object]:
    counts = sorted(ours.ask("tokens", prompts=prompts)["tokens"])
    return {"count": len(counts), "tokens_p50": counts[len(counts) // 2], "tokens_max": counts[-1]}


def _rounds(subjects: Mapping[str, Subject], prompts: Sequence[str], rounds: int) -> dict[str, list[Round]]:
    measured: dict[str, list[Round]] = {name: [] for name in subjects}
    for number in range(rounds):
        for name in turn_order(list(subjects), number):
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            subjects[name](prompts[:WARM_UP])
            found = subjects[name](prompts)
            answered = sum(place is not None for place in found["served"])
            measured[name].append(Round(found["wall_ms"], found["cpu_ms"], answered))
    return measured


def _ratios(measured: Mapping[str, Sequence[Round]]) -> dict[str, Any]:
    """Of each of our look-ups by meaning to GPTCache's, within rounds."""
    theirs = measured.get("GPTCache, 1k")
    if theirs is None:
        return {}
    kinds = [(kind, percent) for kind in ("wall_ms", "cpu_ms") for percent in (50, 95)]
    return {
        name: {f"{kind[:-3]}_p{percent}": ratio(found, theirs, kind, percent) for kind, percent in kinds}
        for name, found in measured.items()
        if found is not theirs and not name.startswith("exact")
    }


def _answers(ours: Child, other: Child | None, asked: Workload) -> dict[str, Any]:
    """What is answered, and how much of it wrongly, where nothing is stored but what labels speak of."""
    ours.ask("fill", size=0, most=0)
    prompts = [one.prompt for one in asked.lookups]
    equal = {prompt: place for place, prompt in enumerate(asked.stored)}  # the exact tier comes first
    kinds = [(one.kind, equal[one.expected] if one.expected is not None else None) for one in asked.lookups]
    table = {}
    for threshold in OUR_THRESHOLDS:
        found = ours.ask("look", size=0, prompts=prompts, threshold=threshold)["served"]
        served = [equal.get(prompt, place) for prompt, place in zip(prompts, found, strict=True)]
        table[f"Inferdock, {threshold or 'default'}"] = score(kinds, served).as_dict()
    for threshold in PEER_THRESHOLDS if other is not None else ():
        found = other.ask("look", prompts=prompts, threshold=threshold)["served"]
        table[f"GPTCache, {threshold or 'default'}"] = score(kinds, found).as_dict()
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-cache ARGS='...'", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two minutes: fewer entries, prompts and rounds")
    parser.add_argument("--install", action="store_true", help="install GPTCache into an environment of its own first")
    parser.add_argument(
        "--accuracy", action="store_true", help="afterwards, the tables of `python -m bench.cache.accuracy`"
    )
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 5)")
    parser.add_argument(
        "--core", type=int, default=min(os.sched_getaffinity(0)), help="where subjects run (default: first)"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "cache.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
