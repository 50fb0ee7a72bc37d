"""What the gateway costs: the same load on the bare replicas and through the gateway, in turns, in one run.

Reports the median of within-round ratios, because machines drift. Run by ``make bench-overhead``; writes
``bench/results/overhead.json``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from bench.servers import inferdock, measure
from inferdock.bench.report import machine, write_json


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="models/demo")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--concurrency", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results") / "overhead.json")
    args = parser.parse_args()
    load = ["--concurrency", str(args.concurrency), "--requests", str(args.requests), "--output-tokens", "50"]
    rounds = []
    with inferdock(args.model, args.replicas) as (gateway, replicas):
        for number in range(args.rounds + 1):  # the first round warms the engines and is not counted
            sides = [("bare", replicas), ("gateway", [gateway])]
            found = {n: measure(urls, *load)["summary"] for n, urls in (sides if number % 2 else sides[::-1])}
            if number:
                rounds.append(found)
                print(f"round {number}: {_ratio(found):.3f}", file=sys.stderr, flush=True)
    ratio = statistics.median(_ratio(found) for found in rounds)
    write_json(
        args.out,
        {
            "configuration": {**vars(args), "out": None, "output_tokens": 50, "prompt_tokens": 32},
            "machine": machine(),
            "rounds": rounds,
            "throughput_ratio_median": ratio,
        },
    )
    print(f"throughput through the gateway / bare replicas: {ratio:.3f} (median of {args.rounds} rounds)")


def _ratio(found: dict[str, dict[str, float]]) -> float:
    return found["gateway"]["requests_per_s"] / found["bare"]["requests_per_s"]


if __name__ == "__main__":
    main()
