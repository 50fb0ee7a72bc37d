"""What choosing a replica costs: microseconds of processor time for one lease and its release.

``python -m bench.balance``. In each case the endpoints hold some requests already, as they do under load; of several
rounds the fastest counts, since whatever else runs on the machine only ever adds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from inferdock.balance.board import Board
from inferdock.balance.endpoints import ANY, MAX_ENDPOINTS, EndpointSet, State, Wanted
from inferdock.config.settings import BalanceSettings
from inferdock.domain.endpoint import EndpointSpec

HELD_PER_ENDPOINT = 8
ROUNDS = 7
Wishes = Callable[[], Iterator[Wanted]]


def endpoint_set(
    count: int, *, policy: str = "least_outstanding", workers: int = 1, canary: bool = False
) -> EndpointSet:
    """A set of ready endpoints with some requests on each."""
    board = Board.shared(rows=workers, columns=MAX_ENDPOINTS) if workers > 1 else None
    settings = BalanceSettings.model_validate({"policy": policy, "slow_start_s": 0})
    endpoints = EndpointSet.build(settings, board=board)
    endpoints.replace(
        [
            EndpointSpec(f"replica-{n}", "127.0.0.1", 9000 + n, "m", "canary" if n % 2 else "stable")
            for n in range(count)
        ]
    )
    for endpoint in endpoints:
        endpoint.state = State.READY
    if canary:
        endpoints.set_traffic("m", {"stable": 95, "canary": 5})
    for _ in range(count * HELD_PER_ENDPOINT):
        endpoints.lease("m")
    return endpoints


def microseconds(endpoints: EndpointSet, wishes: Wishes, repeats: int) -> float:
    """Processor time of one lease and release, less that of the loop around it."""
    return (_best(_leasing(endpoints), wishes, repeats) - _best(lambda _: None, wishes, repeats)) * 1e6


def _leasing(endpoints: EndpointSet) -> Callable[[Wanted], None]:
    def once(wanted: Wanted) -> None:
        lease = endpoints.lease("m", wanted)
        if lease is not None:
            lease.release()

    return once


def _best(once: Callable[[Wanted], None], wishes: Wishes, repeats: int) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        some = list(itertools.islice(wishes(), repeats))
        start = time.process_time()
        for wanted in some:
            once(wanted)
        best = min(best, time.process_time() - start)
    return best / repeats


def _prompts(size: int) -> Wishes:
    some = [Wanted(prefix=os.urandom(size)) for _ in range(256)]
    return lambda: itertools.cycle(some)


def _sessions() -> Wishes:
    some = [Wanted(session=b"session-%d" % n) for n in range(256)]
    return lambda: itertools.cycle(some)


def cases() -> dict[str, tuple[dict[str, object], Wishes]]:
    """Name -> (what set, what requests)."""
    plain: Wishes = lambda: itertools.repeat(ANY)  # noqa: E731
    limited: Wishes = lambda: itertools.repeat(Wanted(limit=1000))  # noqa: E731
    return {
        "least outstanding": ({}, plain),
        "least outstanding, with a limit": ({}, limited),
        "least outstanding, 4 workers": ({"workers": 4}, plain),
        "weights 95 : 5": ({"canary": True}, plain),
        "session": ({}, _sessions()),
        "prefix policy, short prompt": ({"policy": "prefix"}, plain),
        "prefix policy, 1 KiB": ({"policy": "prefix"}, _prompts(1024)),
        "prefix policy, 16 KiB": ({"policy": "prefix"}, _prompts(16384)),
        "prefix policy, 16 KiB, 4 workers": ({"policy": "prefix", "workers": 4}, _prompts(16384)),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoints", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--repeats", type=int, default=20_000)
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    found: dict[str, dict[int, float]] = {}
    print(f"{'µs per lease and release':36s}" + "".join(f"{count:>9d}" for count in args.endpoints))
    for name, (options, wishes) in cases().items():
        found[name] = {}
        for count in args.endpoints:
            endpoints = endpoint_set(count, **options)  # type: ignore[arg-type]
            found[name][count] = round(microseconds(endpoints, wishes, args.repeats), 3)
        print(f"{name:36s}" + "".join(f"{cost:9.2f}" for cost in found[name].values()))
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
