"""A runner of a release in a cluster that is killed by SIGKILL at each line of its journal, and those that take over.

    python -m tests.support.cluster_mortal http://127.0.0.1:1234 folder release|abort|rollback

Each life is a fork. A line that was met before lets its runner live, so each life gets one line further; lines kill in
turn before they are written and after. At the end a line of JSON says where each died, and how the last one ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from inferdock.app.release_cluster import Cluster, cluster_place
from inferdock.app.release_places import Place
from inferdock.config.settings import Settings
from inferdock.domain.errors import ConflictError
from inferdock.domain.verdict import Verdict
from inferdock.release.clock import SystemClock
from inferdock.release.desk import Desk
from inferdock.release.judging.figures import Counts
from inferdock.release.plan import Plan
from inferdock.release.progress import Progress
from inferdock.release.records.cluster_journal import ClusterJournal
from inferdock.release.records.journal import Journal
from inferdock.release.records.mailbox import Mailbox, Request, Wish
from inferdock.release.runner import Runner
from inferdock.release.steps import Patience, Target
from tests.support.cluster_platform import NAME, NEW, NS, OLD
from tests.support.cluster_releases import QUICK
from tests.support.cluster_traffic import release_plan, rollback_plan
from tests.support.fake_driver import BY, FakeGate, World
from tests.support.releases import drafted

FAST = Patience(poll_s=0.03, watch_s=0.05, start_s=120, drain_s=120, shift_s=60, grace_s=20)


class Steady:
    """Figures of a service where all is well."""

    async def read(self) -> Mapping[str, Counts]:
        """So many requests a second."""
        count = int(time.time() * 200) % 10**9
        return {target.revision: Counts(requests=count, attempts=count) for target in (OLD, NEW)}


def plan_of(case: str) -> Plan:
    """What is released."""
    if case == "rollback":
        return replace(rollback_plan("r1"), patience=FAST)
    made = release_plan("r1", hold_s=0.1, bake_s=0.2, window_s=0.1)
    return replace(made, patience=FAST)


def desk_of(place: Place, world: World, case: str) -> Desk:
    """In front of a place, with a registry that is a file."""

    def make(journal: Journal, mailbox: Mailbox) -> Runner:
        smoke = FakeGate(world, Verdict.FAIL if case == "abort" else Verdict.PASS)
        return Runner(
            journal=journal,
            driver=place.driver,
            catalog=world,
            gates={"digests": FakeGate(world), "smoke": smoke},
            meter=Steady(),
            lease=place.lease,
            mailbox=mailbox,
            clock=SystemClock(),
            by=BY,
        )

    return Desk(
        journals=place.journals,
        lease=place.lease,
        mailbox=place.mailbox,
        clock=SystemClock(),
        make_runner=make,
        holder="a mortal",
    )


async def life(url: str, folder: Path, case: str) -> Progress:
    """What one process does: begin the release, or take it up."""
    cluster = Cluster(model=NAME, namespace=NS, context=None, api_url=url)
    async with cluster_place(Settings(state_dir=folder / "state"), {}, cluster, timing=QUICK) as place:
        desk = desk_of(place, registry(folder, case), case)
        if "r1" not in await place.journals.ids():
            return await desk.start(drafted(plan_of(case)), BY)
        wish = Request(
            id=os.urandom(16).hex(),
            wish=Wish.RESUME,
            actor="bob",
            origin="",
            reason="",
            time="2026-01-01T00:00:00.000Z",
        )
        try:
            return await desk.command("r1", wish)
        except ConflictError:  # it was over already
            return await place.journals.progress("r1")


def registry(folder: Path, case: str) -> World:
    """The champion, in a file."""
    serves: Target = NEW if case == "rollback" else OLD
    world = World(path=folder / "champion.json")
    if not (folder / "champion.json").exists():
        world.champion_is = serves.reference
        world.save()
    return world.load()


def arm(met: set[str], pipe: int) -> None:
    """Kill this process at the next line that killed nobody yet."""
    keep = ClusterJournal._keep

    async def deadly(self: ClusterJournal, seq: int, line: bytes) -> None:
        entry = json.loads(line)["entry"]
        key = " ".join(str(entry.get(name)) for name in ("what", "trigger", "way", "step", "gate"))
        strikes = entry["what"] != "taken" and key not in met
        if strikes and len(met) % 2 == 0:
            die(pipe, key)
        await keep(self, seq, line)
        if strikes:
            die(pipe, key)

    ClusterJournal._keep = deadly  # type: ignore[method-assign]


def die(pipe: int, key: str) -> None:
    """Tell, and be gone."""
    os.write(pipe, key.encode())
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Live until nobody dies any more."""
    url, folder, case = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    met: set[str] = set()
    ended: dict[str, Any] = {}
    while not ended:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            arm(met, writing)
            progress = asyncio.run(life(url, folder, case))
            os.write(writing, json.dumps({"state": progress.state, "outcome": progress.outcome}).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read().decode()
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert said not in met, said
            met.add(said)
        else:
            assert status == 0, f"a life ended with {status}"
            ended = json.loads(said)
    print(json.dumps({**ended, "deaths": sorted(met)}))


if __name__ == "__main__":
    main()
