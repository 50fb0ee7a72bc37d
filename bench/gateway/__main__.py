"""``make bench-gateway``: measure gateways in interleaved rounds; JSON, Markdown table and picture."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.gateway import peers, report, runner
from bench.gateway.processes import Cores
from bench.gateway.scenarios import SCENARIOS

RESULTS = Path(__file__).parents[1] / "results"
CALM = "repeat a step, at most twice, while others use more than this share of the gateway's core (default: never)"
QUICK = ("c32", "c256", "prompt220k", "paced", "overload")
QUICK_PEERS = ("direct", "inferdock", "haproxy", "nginx", "vllm-router")


def main() -> None:
    """Command line."""
    args = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    if args.table:
        _show(args, report.load(args.out))
        return
    names = _names(args)
    if args.install:
        for name in names or peers.NAMES:
            peers.install(name)
    found = [peers.find(name) for name in names or _default_names(args.at)]
    plan = runner.Plan(
        rounds=args.rounds or (1 if args.quick else 5),
        share=args.share or (0.4 if args.quick else 1.0),
        cores=_cores(args.cores),
        auth=args.auth,
        chosen=bool(names),
        calm=args.calm,
        log=args.log,
    )
    wanted = args.only.split(",") if args.only else (QUICK if args.quick else [s.name for s in SCENARIOS])
    unknown = set(wanted) - {scenario.name for scenario in SCENARIOS}
    if unknown:
        sys.exit(f"error: no scenario is called {', '.join(unknown)}; there are {', '.join(s.name for s in SCENARIOS)}")
    document = report.begin(args.out)
    for scenario in SCENARIOS:
        if scenario.name in wanted:
            document["scenarios"][scenario.name] = runner.measure(scenario, found, plan)
            report.save(args.out, document)
    _show(args, document)


def _show(args: argparse.Namespace, document: Mapping[str, Any]) -> None:
    print(report.table(document))
    if args.plot:
        report.plot(args.plot, document)
    if args.page:
        report.write_page(args.page, document)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-gateway ARGS='...'", description=__doc__)
    parser.add_argument("--only", metavar="NAMES", help=f"scenarios, of {','.join(s.name for s in SCENARIOS)}")
    parser.add_argument("--peers", metavar="NAMES", help=f"gateways, of {','.join(peers.NAMES)}; inferdock@COMMIT")
    parser.add_argument("--at", metavar="COMMIT", help="this commit of Inferdock instead of the working tree")
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 5)")
    parser.add_argument("--share", type=float, help="share of the usual time of each step (default 1)")
    parser.add_argument("--quick", action="store_true", help="3 minutes at most: fewer scenarios and peers, one round")
    parser.add_argument("--install", action="store_true", help="install the peers that are Python packages first")
    parser.add_argument("--auth", action="store_true", help="Inferdock's keys are on: each request carries one")
    parser.add_argument("--cores", metavar="A,B", help="core of the gateway, core of replicas and load (default 0,1)")
    parser.add_argument("--calm", type=float, default=1.0, metavar="SHARE", help=CALM)
    parser.add_argument("--log", type=Path, metavar="FOLDER", help="keep the gateways' logs there (costs them time)")
    parser.add_argument("--out", type=Path, default=RESULTS / "gateway-costs.json")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the result (needs matplotlib)")
    parser.add_argument("--page", type=Path, metavar="MD", help="write the table between the marks of this page")
    parser.add_argument("--table", action="store_true", help="measure nothing: show the last result")
    return parser.parse_args()


def _names(args: argparse.Namespace) -> tuple[str, ...]:
    if args.peers:
        return tuple(args.peers.split(","))
    return QUICK_PEERS if args.quick else ()


def _default_names(at: str | None) -> tuple[str, ...]:
    return tuple(f"inferdock@{at}" if at and name == "inferdock" else name for name in peers.NAMES)


def _cores(text: str | None) -> Cores:
    free = sorted(os.sched_getaffinity(0))
    if text:
        gateway, others = (int(part) for part in text.split(","))
        return Cores((gateway,), (others,))
    if len(free) < 2:
        sys.exit("error: two cores are needed, one for the gateway and one for replicas and load")
    return Cores((free[0],), (free[1],))


if __name__ == "__main__":
    main()
