"""Whether every number that the platform shows agrees with a load generator's own counts.

Under a mixed load, with a release through a canary to promotion after a third and an engine killed after two thirds.
``python -m bench.agreement --engine sim --minutes 1``; exit status 1 where a number disagrees.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp

from bench.agreement.checks import WANTED, held_between, of_bill, of_console, of_metrics, of_status
from bench.agreement.compare import Row, about, exact
from bench.agreement.panels import Looker
from bench.agreement.place import LOOK_S, PRICE, SCRAPE_S, VERSIONS, Place, StopError, open_place
from bench.agreement.reasons import without
from bench.agreement.shown import Exposition, console, exposition, query
from bench.agreement.traffic import MODEL, Load
from inferdock.app.platform_figures import EVERY_S
from inferdock.bench.report import machine
from inferdock.telemetry import names as n
from inferdock.telemetry.instruments import LATENCY_BUCKETS_S, TOKEN_TIME_BUCKETS_S
from inferdock.telemetry.samples import Sample

RATES = {"vllm": 3.0, "sim": 10.0}
"""Requests a second: two replicas of the demo model share a small machine with the load."""
AFTER_S = 5.0
"""Of load after the kill, at least."""
CHANGES = 8
"""Of replicas that the gateway knows: two come, two of the other version come and two go, one dies and comes back."""
CHANGE_S = 0.5
"""Of doubt about each: the state file is read every ``LOOK_S``, and a death is seen by a failed request or a check."""
RULES_PRICE = 1.006
"""Dollars for a replica's hour, as prometheus/rules/price.yaml has it where nobody has set one."""


def main() -> None:
    """Parse, measure, print the table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="length of the load")
    parser.add_argument("--engine", choices=sorted(RATES), default="vllm")
    parser.add_argument("--rate", type=float, help="requests a second; default 3 on vLLM, 10 simulated")
    parser.add_argument("--out", type=Path, help="file for the result; default: none is written")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = asyncio.run(measured(Path(folder), args.engine, args.minutes * 60, args.rate or RATES[args.engine]))
        except* StopError as group:
            sys.exit(str(group.exceptions[0]))
    print(table(found["rows"]))
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    wrong = [row for row in found["rows"] if not row["agrees"]]
    print(f"{len(found['rows'])} numbers, {len(wrong)} disagree; {found['requests']} requests")
    sys.exit(1 if wrong else 0)


async def measured(folder: Path, engine: str, seconds: float, rate: float) -> dict[str, Any]:
    """The whole run as a document."""
    async with open_place(folder, engine) as (place, keys), aiohttp.ClientSession() as http:
        await asyncio.sleep(3 * SCRAPE_S)
        url = place.state["url"]
        load = Load(url=url, keys=keys, rate=rate)
        began, started = time.time(), time.monotonic()
        async with console(http, url, keys["admin"]) as documents:
            async with asyncio.TaskGroup() as group:
                events = group.create_task(_events(place, http, started, seconds))
                group.create_task(load.run(seconds, events))
            await place.settled()
            await asyncio.sleep(2 * SCRAPE_S + 1)
        at = time.time() - 0.1
        offset = time.time() - time.monotonic()
        looked = time.monotonic()
        bill = json.loads(await place.command("cost", "-o", "json"))
        billed = time.monotonic()
        status = json.loads(await place.command("status", "-o", "json"))
        live = await exposition(http, f"{place.state['admin_url']}/metrics", WANTED)
        stored = Exposition(await _stored(http, place, at))
        seconds_of = (looked - place.up_since, billed - place.started)
        dollars = (PRICE * seconds_of[0] / 3600, PRICE * seconds_of[1] / 3600)
        told = EVERY_S + 2 * SCRAPE_S  # the platform tells its figures so often, and Prometheus fetches them after that
        looker = Looker(
            http=http, base=place.prometheus, at=at, began=began, offset=offset, records=load.records,
            held=lambda start, end: held_between(place.held, start, end), price=RULES_PRICE,
            paid=(dollars[0] - PRICE * told / 3600, dollars[1]),
        )  # fmt: skip
        bounds = {"ttft": LATENCY_BUCKETS_S, "tpot": TOKEN_TIME_BUCKETS_S}
        rows = [
            *of_metrics(live, load.records),
            *of_metrics(stored, load.records, "Prometheus"),
            *of_bill(bill, load.records, dollars, "cost"),
            *of_status(status, load.records),
            *of_console(documents, load.records, offset, bounds),
            of_replicas(live.total(n.REPLICA_SECONDS), place.held[-1][1]),
            exact("revision that serves", "status", VERSIONS.index(status["revision"].partition("-")[0]), 1),
            *await looker.rows(),
        ]
        return {
            "configuration": {"engine": engine, "seconds": seconds, "rate": rate, "look_s": LOOK_S, "price": PRICE},
            "machine": machine(),
            "requests": len(load.records),
            "kinds": dict(sorted(Counter(one.kind for one in load.records).items())),
            "answers": dict(sorted(Counter(str(one.status) for one in load.records).items())),
            "broken": sorted({one.said for one in load.records if one.broken}),
            "resumed": live.total(n.RESUMES, outcome="resumed"),
            "restarts": sum(row["restarts"] for row in status["replicas"]),
            "starting_replica_seconds": round(place.starting, 1),
            "events": events.result(),
            "rows": [asdict(row) for row in rows],
            "without_counterpart": without(),
        }


def of_replicas(shown: float, counted: float) -> Row:
    """Seconds of replicas: 2 %, and what passes until the gateway and the state file have both seen each change."""
    return about("seconds of replicas", "/metrics", shown, counted, 0.02 * counted + CHANGES * CHANGE_S)


async def _events(place: Place, http: aiohttp.ClientSession, started: float, seconds: float) -> dict[str, float]:
    """The release and the kill; seconds after the load's begin at which they were, and requests on what was killed."""
    at: dict[str, float] = {}
    await asyncio.sleep(seconds / 3)
    at["release"] = time.monotonic() - started
    weights = "0.2,0.5,1" if seconds >= 120 else "0.5,1"
    hold = str(max(3.0, seconds / 30))
    await place.command(
        "release", "start", f"{MODEL}@{VERSIONS[1]}", "--gates", "health,smoke", "--weights", weights, "--hold", hold,
        "--bake", "0", "--ttft-p95", "0", "--tpot-p50", "0", "--min-requests", "5", "--max-errors", "0.5",
        "--hold-limit", "300",
    )  # fmt: skip
    at["released"] = time.monotonic() - started
    await asyncio.sleep(max(0.0, started + seconds * 2 / 3 - time.monotonic()))
    at["kill"] = time.monotonic() - started
    at["in_flight_there"] = await place.kill_an_engine(http)
    await asyncio.sleep(AFTER_S)
    return at


async def _stored(http: aiohttp.ClientSession, place: Place, at: float) -> list[Sample]:
    """The gateway's counters as Prometheus had them last."""
    text = '{job="gateway",__name__=~"llm_.*"}'
    found = await query(http, place.prometheus, text, at)
    return [
        Sample(one["metric"]["__name__"], one["metric"], float(one["value"][1]))
        for one in found
        if one["metric"]["__name__"] in WANTED
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """For people; what disagrees is marked."""
    head = f"{'number':<58} {'where':<15} {'shown':>14} {'counted':>14} {'difference':>11} {'allowed':>12}"
    lines = [head]
    for row in rows:
        shown, counted = row["shown"], row["counted"]
        known = shown is not None and counted is not None
        difference = f"{shown - counted:.4g}" if known else "–"
        values = [f"{value:.6g}" if value is not None else "no data" for value in (shown, counted)]
        mark = "" if row["agrees"] else "  DISAGREES"
        figures = f"{values[0]:>14} {values[1]:>14} {difference:>11} {row['allowed']:>12}"
        lines.append(f"{row['number']:<58} {row['where']:<15} {figures}{mark}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
