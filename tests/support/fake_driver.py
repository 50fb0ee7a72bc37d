"""A platform that exists in numbers only: driver, catalog, meter and clock of a release in one world with its own time.

Time passes only while somebody sleeps. Whatever a runner does is held against the laws of availability at once; what
breaks them is kept in ``broken_laws``. With a file the world outlives the process, as a platform outlives its runner.
"""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from inferdock.domain.errors import ConflictError, ResourceError
from inferdock.domain.verdict import Verdict
from inferdock.release.driver import Observed, Room, Running
from inferdock.release.judging.figures import Counts, Histogram
from inferdock.release.judging.gate import Context, Finding
from inferdock.release.records.journal import By
from inferdock.release.steps import Target

BOUNDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
BY = By(actor="ada", origin="test")
NEVER = 1e12


def nothing(what: str) -> None:
    """The hook that lets all go on."""


@dataclass
class World:
    """Replicas, weights, a champion, and requests that come in.

    Attributes:
        fits: replicas that there is room for.
        start_s, drain_s: how long those take.
        rate: requests a second.
        errors: share of failed requests, by revision.
        ttft_s: of every request, by revision.
        dead: revisions whose replicas never become ready.
        gap: whether nothing may be ready for a while.
        hook: called with the name of an action before it is done and, with ``after``, once it is; may raise.
        passing: called whenever time has passed.
        path: file that keeps it; None: it is in memory only.
    """

    fits: int = 1000
    start_s: float = 20.0
    drain_s: float = 5.0
    rate: float = 20.0
    errors: dict[str, float] = field(default_factory=dict)
    ttft_s: dict[str, float] = field(default_factory=dict)
    dead: set[str] = field(default_factory=set)
    gap: bool = False
    hook: Callable[[str], None] = nothing
    passing: Callable[[], None] = lambda: None
    path: Path | None = None

    time: float = 0.0
    ids: int = 0
    fleets: dict[str, dict[str, Any]] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    copies: dict[str, float] = field(default_factory=dict)
    champion_is: str = ""
    moves: list[list[str]] = field(default_factory=list)
    counted: dict[str, list[float]] = field(default_factory=dict)
    broken_laws: list[str] = field(default_factory=list)
    acts: list[str] = field(default_factory=list)
    KEPT = ("time", "ids", "fleets", "weights", "copies", "champion_is", "moves", "counted", "broken_laws", "acts")

    # -- the file --------------------------------------------------------------------------------------------

    def save(self) -> None:
        if self.path is not None:
            self.path.write_text(json.dumps({name: getattr(self, name) for name in self.KEPT}))

    def load(self) -> World:
        if self.path is not None and self.path.exists():
            for name, value in json.loads(self.path.read_text()).items():
                setattr(self, name, value)
        return self

    # -- what a test sets up and looks at --------------------------------------------------------------------

    def serve(self, target: Target) -> None:
        """Ready replicas with all the traffic."""
        self._grow(target, ready_at=self.time)
        self.weights = {target.revision: 1.0}
        self.champion_is = target.reference
        self.save()

    def kill(self, revision: str) -> None:
        """One ready replica dies, and is started again as a supervisor would."""
        for replica in self._replicas(revision):
            if self._is_ready(replica):
                replica["ready_at"] = self.time + self.start_s if revision not in self.dead else NEVER
                return

    def ready(self, revision: str) -> int:
        return sum(self._is_ready(replica) for replica in self._replicas(revision))

    def serving(self) -> bool:
        """Whether anything that gets requests is ready."""
        return any(weight > 0 and self.ready(revision) for revision, weight in self.weights.items())

    # -- clock -----------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.time)

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self._count(seconds)
        self.time += seconds
        for revision in list(self.fleets):
            fleet = self.fleets[revision]
            fleet["replicas"] = [
                one for one in fleet["replicas"] if one["gone_at"] is None or one["gone_at"] > self.time
            ]
            if not fleet["replicas"] and not fleet["wanted"]:
                del self.fleets[revision]
        self.passing()
        self.save()
        await asyncio.sleep(0)

    # -- meter -----------------------------------------------------------------------------------------------

    async def read(self) -> Mapping[str, Counts]:
        self.hook("read")
        figures = {}
        for revision, (requests, errors) in self.counted.items():
            bucket = bisect_left(BOUNDS, self.ttft_s.get(revision, 0.04))
            times = Histogram(BOUNDS, tuple(int(requests) * (n == bucket) for n in range(len(BOUNDS) + 1)))
            figures[revision] = Counts(requests=int(requests), errors=min(int(errors), int(requests)), ttft=times)
        return figures

    # -- driver ----------------------------------------------------------------------------------------------

    async def observe(self) -> Observed:
        self.hook("observe")
        revisions = tuple(
            Running(
                revision=revision,
                reference=fleet["reference"],
                wanted=fleet["wanted"],
                ready=self.ready(revision),
                problem="it crashes" if revision in self.dead else "",
                given_up=revision in self.dead,
                stopping=sum(one["gone_at"] is not None for one in fleet["replicas"]),
            )
            for revision, fleet in self.fleets.items()
        )
        return Observed(revisions=revisions, weights=dict(self.weights))

    async def room(self, target: Target) -> Room:
        taken = sum(len(fleet["replicas"]) for fleet in self.fleets.values())
        return Room(replicas=max(0, self.fits - taken), reason="The world is so large.")

    async def mirror(self, revision: str | None, share: float) -> None:
        with self._act(f"mirror {revision} {share:g}"):
            self.copies = {revision: share} if revision else {}

    async def start(self, target: Target) -> None:
        with self._act(f"start {target.revision} {target.replicas}"):
            missing = target.replicas - self.fleets.get(target.revision, {"wanted": 0})["wanted"]
            if missing > 0 and sum(len(fleet["replicas"]) for fleet in self.fleets.values()) + missing > self.fits:
                raise ResourceError("There is no room.")
            ready_at = NEVER if target.revision in self.dead else self.time + self.start_s
            self._grow(target, ready_at=ready_at)

    async def scale(self, revision: str, replicas: int) -> None:
        with self._act(f"scale {revision} {replicas}"):
            self._shrink(revision, replicas)

    async def shift(self, weights: Mapping[str, float]) -> None:
        with self._act(f"shift {json.dumps(dict(weights))}"):
            for revision, weight in weights.items():
                if weight > 0 and not self.ready(revision):
                    self.broken_laws.append(f"{revision} gets {weight} and has nothing ready")
            self.weights = dict(weights)

    async def retire(self, revision: str) -> None:
        with self._act(f"retire {revision}"):
            if self.weights.get(revision, 0.0) > 0:
                self.broken_laws.append(f"{revision} is retired with traffic")
            self._shrink(revision, 0)

    async def address(self, revision: str) -> tuple[str, ...]:
        return tuple(f"http://{revision}/{n}" for n in range(self.ready(revision)))

    # -- catalog ---------------------------------------------------------------------------------------------

    async def champion(self) -> str:
        self.hook("champion")
        return self.champion_is

    async def move(self, reference: str, *, expect: str, reason: str) -> None:
        with self._act(f"champion {reference}"):
            if self.champion_is != expect:
                raise ConflictError("Somebody moved it.")
            self.champion_is = reference
            self.moves.append([reference, reason])

    # -- inside ----------------------------------------------------------------------------------------------

    def _act(self, what: str) -> _Act:
        return _Act(self, what)

    def _replicas(self, revision: str) -> list[dict[str, Any]]:
        return self.fleets.get(revision, {"replicas": []})["replicas"]

    def _is_ready(self, replica: dict[str, Any]) -> bool:
        return replica["gone_at"] is None and replica["ready_at"] <= self.time

    def _grow(self, target: Target, *, ready_at: float) -> None:
        fleet = self.fleets.setdefault(target.revision, {"reference": target.reference, "wanted": 0, "replicas": []})
        for _ in range(target.replicas - fleet["wanted"]):
            self.ids += 1
            fleet["replicas"].append({"id": self.ids, "ready_at": ready_at, "gone_at": None})
        fleet["wanted"] = max(fleet["wanted"], target.replicas)

    def _shrink(self, revision: str, replicas: int) -> None:
        fleet = self.fleets.get(revision)
        if fleet is None:
            return
        staying = [one for one in fleet["replicas"] if one["gone_at"] is None]
        staying.sort(key=lambda one: not self._is_ready(one))
        for one in staying[replicas:]:
            one["gone_at"] = self.time + self.drain_s
        fleet["wanted"] = min(fleet["wanted"], replicas)

    def _count(self, seconds: float) -> None:
        able = {name: weight for name, weight in self.weights.items() if weight > 0 and self.ready(name)}
        for revision, weight in able.items():
            sums = self.counted.setdefault(revision, [0.0, 0.0])
            requests = self.rate * seconds * weight / sum(able.values())
            sums[0] += requests
            sums[1] += requests * self.errors.get(revision, 0.0)


class _Act:
    """One change: the hook before and after, the laws, the file."""

    def __init__(self, world: World, what: str) -> None:
        self._world, self._what = world, what

    def __enter__(self) -> None:
        self._world.hook(self._what)
        self._served = self._world.serving()

    def __exit__(self, kind: object, *_: object) -> None:
        world = self._world
        if kind is None:
            world.acts.append(self._what)
            if self._served and not world.serving() and not world.gap:
                world.broken_laws.append(f"nothing serves after {self._what}")
            world.save()
            world.hook(f"after {self._what}")


class FakeGate:
    """Says what it is told to say, after a while."""

    def __init__(self, world: World, *says: Verdict | BaseException, takes_s: float = 0.0) -> None:
        self._world, self._says, self._takes_s = world, list(says), takes_s
        self.asked: list[Context] = []

    async def check(self, target: Target, context: Context) -> Finding:
        self.asked.append(context)
        if self._takes_s:
            await asyncio.sleep(0)
            end = self._world.time + self._takes_s
            while self._world.time < end:
                await asyncio.sleep(0)
        says = self._says.pop(0) if len(self._says) > 1 else (self._says or [Verdict.PASS])[0]
        if isinstance(says, BaseException):
            raise says
        return Finding(verdict=says, reason=f"it said {says}", evidence={"of": target.reference})
