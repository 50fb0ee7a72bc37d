"""The migration that the plan is about: the engine that is replaced against Inferdock, in one run.

Same model, machine and load, one server at a time. Writes ``bench/results/migration.json`` and ``.png`` with the
whole configuration. Run by ``make bench-migration``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bench.servers import inferdock, legacy, measure
from inferdock.bench.report import machine, pyplot, write_json

RESULTS = Path(__file__).with_name("results")
LOADS = {"50 at once": 50, "1 at a time": 1}
PLAN = {"throughput": "0.12 -> 100+ requests/s", "ttft": "7.7 s -> < 500 ms", "tpot": "300 ms -> < 50 ms"}


def measure_loads(url: str, *, seconds: float, output_tokens: int) -> dict[str, Any]:
    """Summaries by load. A closed loop for so many seconds; what is under way at the end still counts."""
    found = {}
    for name, users in LOADS.items():
        print(f"  {name} ...", file=sys.stderr, flush=True)
        arguments = ["--concurrency", str(users), "--duration", str(seconds), "--output-tokens", str(output_tokens)]
        found[name] = measure([url], *arguments, "--warmup", "5", "--prompt-tokens", "32")["summary"]
    return found


def ratios(old: dict[str, Any], new: dict[str, Any]) -> dict[str, float]:
    """How many times better Inferdock is, per quantity."""
    return {
        "throughput": new["requests_per_s"] / old["requests_per_s"],
        "ttft_p95": old["ttft"]["p95"] / new["ttft"]["p95"],
        "tpot_p50": old["tpot"]["p50"] / new["tpot"]["p50"],
    }


def table(results: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    rows = [
        "| load | quantity | legacy engine | Inferdock | ratio | the plan asks |",
        "|---|---|---|---|---|---|",
    ]
    for load in LOADS:
        old, new, times = results["legacy"][load], results["inferdock"][load], results["ratios"][load]
        cells = [
            ("requests/s", f"{old['requests_per_s']:.2f}", f"{new['requests_per_s']:.2f}", "throughput", "throughput"),
            ("TTFT p95", _ms(old["ttft"]["p95"]), _ms(new["ttft"]["p95"]), "ttft_p95", "ttft"),
            ("TPOT p50", _ms(old["tpot"]["p50"]), _ms(new["tpot"]["p50"]), "tpot_p50", "tpot"),
        ]
        rows += [f"| {load} | {n} | {a} | {b} | {times[key]:.1f}x | {PLAN[p]} |" for n, a, b, key, p in cells]
    return "\n".join(rows)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


def draw(results: dict[str, Any], path: Path) -> None:
    """Three pairs of bars for the load of 50."""
    plt = pyplot()
    load = next(iter(LOADS))
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), constrained_layout=True)
    quantities = [
        ("requests/s", lambda s: s["requests_per_s"]),
        ("TTFT p95, ms", lambda s: s["ttft"]["p95"] * 1e3),
        ("TPOT p50, ms", lambda s: s["tpot"]["p50"] * 1e3),
    ]
    for axis, (title, read) in zip(axes, quantities, strict=True):
        values = [read(results[name][load]) for name in ("legacy", "inferdock")]
        bars = axis.bar(["legacy engine", "Inferdock"], values, color=["#9aa0a6", "#1a73e8"])
        axis.bar_label(bars, fmt="%.1f")
        axis.set_title(title)
    figure.suptitle(f"{load}, {results['configuration']['output_tokens']} output tokens")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="models/demo")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each load")
    parser.add_argument("--output-tokens", type=int, default=50)
    parser.add_argument("--out", type=Path, default=RESULTS / "migration.json")
    args = parser.parse_args()
    results: dict[str, Any] = {
        "configuration": {**vars(args), "out": None, "prompt_tokens": 32, "loads": LOADS},
        "machine": machine(),
    }
    print("legacy engine", file=sys.stderr)
    with legacy(Path(args.model)) as url:
        results["legacy"] = measure_loads(url, seconds=args.seconds, output_tokens=args.output_tokens)
    print(f"inferdock up --replicas {args.replicas}", file=sys.stderr)
    with inferdock(args.model, args.replicas) as (url, _):
        results["inferdock"] = measure_loads(url, seconds=args.seconds, output_tokens=args.output_tokens)
    results["ratios"] = {load: ratios(results["legacy"][load], results["inferdock"][load]) for load in LOADS}
    write_json(args.out, results)
    draw(results, args.out.with_suffix(".png"))
    print(table(results))


if __name__ == "__main__":
    main()
