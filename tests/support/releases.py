"""Releases on a world of numbers: the usual targets and rules, and runners put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inferdock.release.desk import Desk, MakePlan
from inferdock.release.events import Event
from inferdock.release.judging.gate import Gate
from inferdock.release.plan import Plan
from inferdock.release.planner import make_release, make_rollback
from inferdock.release.progress import Progress, fold
from inferdock.release.records.file_journal import FileJournals
from inferdock.release.records.file_mailbox import FileMailbox
from inferdock.release.records.journal import Journal
from inferdock.release.records.lease import FileLease
from inferdock.release.records.mailbox import Mailbox, Request, Wish
from inferdock.release.runner import Listener, Runner
from inferdock.release.steps import Limits, Rules, Target
from tests.support.fake_driver import BY, FakeGate, World

OLD = Target(reference="m@1.0.0", revision="1.0.0-aa", replicas=2)
NEW = Target(reference="m@1.1.0", revision="1.1.0-bb", replicas=2)
QUICK = Rules(gates=("smoke",), weights=(0.1, 0.5, 1.0), hold_s=10, hold_limit_s=120, bake_s=60, window_s=10)
NO_LIMITS = Limits(error_rate=None, error_increase=None, ttft_p95_s=None, tpot_p50_s=None, min_requests=1)


def plan(**changes: Any) -> Plan:
    """A release from OLD to NEW with room for both."""
    given = {"id": "r1", "model": "m", "stable": OLD, "to": NEW, "rules": QUICK, "champion": "m@1.0.0", "spare": None}
    return make_release(**{**given, **changes})


def rollback(**changes: Any) -> Plan:
    """The way from NEW to OLD."""
    given = {"id": "r2", "model": "m", "bad": NEW, "to": OLD, "champion": "m@1.1.0", "ready": 2, "spare": None}
    return make_rollback(**{**given, **changes})


def drafted(made: Plan) -> MakePlan:
    """A plan as a desk wants it."""

    async def draft() -> Plan:
        return made

    return draft


def request(wish: Wish, world: World, number: int = 1, *, reason: str = "") -> Request:
    time = world.now().strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return Request(id=f"{number:032x}", wish=wish, actor="bob", origin="elsewhere", reason=reason, time=time)


@dataclass
class Bench:
    """A folder with journals, a world, gates, and desks in front of them.

    Attributes:
        heard: every event that a listener was told.
    """

    folder: Path
    world: World = field(default_factory=World)
    gates: dict[str, Gate] = field(default_factory=dict)
    heard: list[Event] = field(default_factory=list)

    @property
    def journals(self) -> FileJournals:
        return FileJournals(self.folder / "releases")

    def mailbox(self, release: str) -> FileMailbox:
        return FileMailbox(self.journals.path(release).with_suffix(".requests"))

    @property
    def ids(self) -> list[str]:
        """Releases that were begun."""
        return sorted(path.stem for path in self.journals.folder.glob("*.jsonl"))

    def look(self, release: str = "r1") -> Progress | None:
        """How far a release is; None before it begins."""
        return fold(self.journals.look(release)) if self.journals.path(release).exists() else None

    def desk(self) -> Desk:
        """As a new process would make it."""
        lease = FileLease(self.folder / "lease")

        def make(journal: Journal, mailbox: Mailbox) -> Runner:
            gates: Mapping[str, Gate] = {"digests": FakeGate(self.world), "smoke": FakeGate(self.world), **self.gates}
            world = self.world
            return Runner(
                journal=journal,
                driver=world,
                catalog=world,
                gates=gates,
                meter=world,
                lease=lease,
                mailbox=mailbox,
                clock=world,
                by=BY,
                listener=Listener(event=self.heard.append),
            )

        return Desk(
            journals=self.journals,
            lease=lease,
            mailbox=self.mailbox,
            clock=self.world,
            make_runner=make,
            holder="the test",
        )

    async def start(self, wanted: Plan | None = None) -> Progress:
        """Serve the stable revision if nothing does, and run a release."""
        wanted = wanted or plan()
        if not self.world.fleets and wanted.stable is not None:
            self.world.serve(wanted.stable)
        return await self.desk().start(drafted(wanted), BY, reason="a test")

    async def command(self, wish: Wish, number: int = 1, release: str = "r1") -> Progress:
        return await self.desk().command(release, request(wish, self.world, number))
