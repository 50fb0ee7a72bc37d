"""The migration that the plan is about: the engine that is replaced against Inferdock, in one run.

Same model, machine and load, one server at a time. Writes ``bench/results/migration.json`` and ``.png`` with the
whole configuration. Run by ``make bench-migration``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.servers import inferdock, legacy, measure
from inferdock.bench.report import machine, pyplot, write_json

RESULTS = Path(__file__).with_name("results")
LOADS = {"50 at once": 50, "1 at a time": 1}
QUANTITIES: dict[str, tuple[str, Callable[[dict[str, Any]], float], str, str]] = {
    # key: (title, reads it from a summary in its unit, how it is written, what the plan asks)
    "throughput": ("requests/s", lambda s: s["requests_per_s"], "{:.2f}", "0.12 -> 100+"),
    "ttft_p95": ("TTFT p95, ms", lambda s: s["ttft"]["p95"] * 1e3, "{:.1f}", "7,700 -> < 500"),
    "tpot_p50": ("TPOT p50, ms", lambda s: s["tpot"]["p50"] * 1e3, "{:.2f}", "300 -> < 50"),
}
SIDES = ("legacy", "inferdock")


def measure_loads(url: str, *, seconds: float, output_tokens: int) -> dict[str, Any]:
    """Summaries by load. A closed loop that sends for so many seconds; what is under way then is waited for."""
    found = {}
    for name, users in LOADS.items():
        print(f"  {name} ...", file=sys.stderr, flush=True)
        arguments = ["--concurrency", str(users), "--duration", str(seconds), "--output-tokens", str(output_tokens)]
        found[name] = measure([url], *arguments, "--warmup", "5", "--prompt-tokens", "32")["summary"]
    return found


def measure_round(args: argparse.Namespace) -> dict[str, Any]:
    """Summaries by side and load; one side runs at a time."""
    load = {"seconds": args.seconds, "output_tokens": args.output_tokens}
    print("legacy engine", file=sys.stderr, flush=True)
    with legacy(Path(args.model)) as url:
        old = measure_loads(url, **load)
    print(f"inferdock up --replicas {args.replicas}", file=sys.stderr, flush=True)
    with inferdock(args.model, args.replicas) as (url, _):
        new = measure_loads(url, **load)
    return {"legacy": old, "inferdock": new}


def medians(rounds: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """By load and quantity: the median of each side over the rounds, and of the ratios within a round."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for load in LOADS:
        found[load] = {}
        for key, (_, read, _, _) in QUANTITIES.items():
            pairs = [(read(one["legacy"][load]), read(one["inferdock"][load])) for one in rounds]
            old, new = (statistics.median(side) for side in zip(*pairs, strict=True))
            better = [b / a if key == "throughput" else a / b for a, b in pairs]
            found[load][key] = {"legacy": old, "inferdock": new, "ratio": statistics.median(better)}
    return found


def table(figures: dict[str, dict[str, dict[str, float]]]) -> str:
    """The comparison as Markdown."""
    rows = ["| load | quantity | legacy engine | Inferdock | times better | the plan |", "|---|---|---|---|---|---|"]
    for load, quantities in figures.items():
        for key, cells in quantities.items():
            title, _, form, plan = QUANTITIES[key]
            old, new = (form.format(cells[side]) for side in SIDES)
            rows.append(f"| {load} | {title} | {old} | {new} | {cells['ratio']:.1f} | {plan} |")
    return "\n".join(rows)


def draw(figures: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """A pair of bars per load and quantity."""
    plt = pyplot()
    figure, axes = plt.subplots(len(LOADS), len(QUANTITIES), figsize=(11, 6), constrained_layout=True)
    for row, (load, quantities) in zip(axes, figures.items(), strict=True):
        for axis, (key, cells) in zip(row, quantities.items(), strict=True):
            bars = axis.bar(
                ["legacy engine", "Inferdock"], [cells[s] for s in SIDES], color=["#9aa0a6", "#1a73e8"], width=0.6
            )
            axis.bar_label(bars, fmt="%.4g", padding=2)
            axis.set_title(f"{load}: {QUANTITIES[key][0]}", fontsize=10)
            axis.margins(y=0.15)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="models/demo")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1, help="each starts both servers anew; medians are reported")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each load")
    parser.add_argument("--output-tokens", type=int, default=50)
    parser.add_argument("--out", type=Path, default=RESULTS / "migration.json")
    args = parser.parse_args()
    rounds = [measure_round(args) for _ in range(args.rounds)]
    figures = medians(rounds)
    print(table(figures))
    configuration: dict[str, object] = {**vars(args), "out": args.out.name, "prompt_tokens": 32, "loads": LOADS}
    result = {"configuration": configuration, "machine": machine(), "figures": figures, "rounds": rounds}
    write_json(args.out, result)
    draw(figures, args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
