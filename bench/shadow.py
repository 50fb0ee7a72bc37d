"""What shadow traffic costs: the same load on one gateway with and without copies, in turns, in one run.

Reports processor time of the gateway per client request, and the TTFT that clients see, as medians of ratios within a
round. Replicas are simulated, so it is the gateway that is measured. ``python -m bench.shadow``; writes
``bench/results/shadow.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from bench.gateway.processes import cpu_s
from bench.servers import answers, measure, process, wait_for
from inferdock.bench.report import machine, write_json
from inferdock.sim.testing import SimProcess
from inferdock.telemetry.scrape import read_figures

SHARES = (0.0, 0.1, 1.0)
TOKENS = 50


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=60.0, help="requests per second, an open loop")
    parser.add_argument("--duration", type=float, default=10.0, help="seconds of each measurement")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results") / "shadow.json")
    args = parser.parse_args()
    replicas = [SimProcess("--port", "0", "--ttft", "0.02", "--itl", "0.005") for _ in range(2)]
    try:
        rounds = _measured(replicas, args)
    finally:
        for replica in replicas:
            replica.kill()
    ratios = {f"{share:g}": _ratios(rounds, f"{share:g}") for share in SHARES[1:]}
    configuration = {**vars(args), "out": None, "output_tokens": TOKENS, "shares": SHARES}
    write_json(
        args.out, {"configuration": configuration, "machine": machine(), "rounds": rounds, "ratios_median": ratios}
    )
    for share, found in ratios.items():
        print(f"share {share}: " + ", ".join(f"{name} x{value:.3f}" for name, value in found.items()))


def _measured(replicas: list[SimProcess], args: argparse.Namespace) -> list[dict[str, Any]]:
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        announce, log = Path(folder) / "gateway.json", Path(folder) / "gateway.log"
        command = [sys.executable, "-m", "inferdock.cli.main", "gateway", "--port", "0", "--announce", str(announce)]
        with process(command, log) as child:
            wait_for(announce.exists, child, log)
            gateway = json.loads(announce.read_text())
            _put(gateway, "endpoints", {"endpoints": _endpoints(replicas)})
            wait_for(lambda: answers(f"http://127.0.0.1:{gateway['port']}/ready"), child, log)
            for number in range(args.rounds + 1):  # the first round warms up and is not counted
                order = SHARES if number % 2 else SHARES[::-1]
                found = {f"{share:g}": _one(gateway, share, args) for share in order}
                if number:
                    rounds.append(found)
                    print(f"round {number}: {found}", file=sys.stderr, flush=True)
    return rounds


def _one(gateway: dict[str, Any], share: float, args: argparse.Namespace) -> dict[str, Any]:
    shadow = {"revision": "canary", "share": share} if share else None
    _put(gateway, "traffic", {"model": "sim", "weights": {"stable": 1, "canary": 0}, "shadow": shadow})
    url = f"http://127.0.0.1:{gateway['port']}"
    before, copies = cpu_s(gateway["pid"]), _copies(url)
    load = ["--rate", str(args.rate), "--duration", str(args.duration), "--output-tokens", str(TOKENS)]
    summary = measure([f"{url}/v1"], *load)["summary"]
    spent = cpu_s(gateway["pid"]) - before
    return {
        "cpu_ms_per_request": round(1e3 * spent / summary["requests"], 4),
        "ttft_p50_s": summary["ttft"]["p50"],
        "ttft_p95_s": summary["ttft"]["p95"],
        "requests": summary["requests"],
        "copies": {name: count - copies.get(name, 0) for name, count in _copies(url).items()},
    }


def _endpoints(replicas: list[SimProcess]) -> list[dict[str, str]]:
    names = ("stable", "canary")
    return [
        {"name": name, "url": replica.url, "model": "sim", "revision": name}
        for name, replica in zip(names, replicas, strict=True)
    ]


def _copies(url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:
        figures = read_figures(response.read().decode(), "sim").get("canary")
    return dict(figures.shadow.by_outcome) | dict(figures.shadow.by_kind) if figures is not None else {}


def _put(gateway: dict[str, Any], what: str, body: dict[str, Any]) -> None:
    address = f"http://127.0.0.1:{gateway['admin_port']}/admin/{what}"
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(address, json.dumps(body).encode(), headers, method="PUT")
    with urllib.request.urlopen(request, timeout=10):
        pass


def _ratios(rounds: list[dict[str, Any]], share: str) -> dict[str, float]:
    names = ("cpu_ms_per_request", "ttft_p50_s", "ttft_p95_s")
    return {name: statistics.median(found[share][name] / found["0"][name] for found in rounds) for name in names}


if __name__ == "__main__":
    main()
