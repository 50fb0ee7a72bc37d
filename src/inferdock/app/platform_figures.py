"""Tells the gateway of ``inferdock up`` what its ``/metrics`` says of the platform: releases, replicas, bills.

Each fact comes from who owns it: the supervisor, the journals, the bill of ``inferdock cost``. It goes to the gateway
by the admin port, so a Prometheus has one address to scrape. What cannot be told is left out, and the gateway forgets
what it is not told again: nobody sees a figure that is not true any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

from inferdock.app.console.live import Figurer
from inferdock.domain.errors import InferdockError
from inferdock.release.events import Event
from inferdock.release.exported import Ledger
from inferdock.release.records.file_journal import FileJournals
from inferdock.supervisor.probe import Probe
from inferdock.supervisor.supervisor import Supervisor, View
from inferdock.telemetry import names
from inferdock.telemetry.published import Figure

EVERY_S: Final = 5.0
"""Between two tellings: a third of the interval at which a Prometheus usually scrapes."""


class Teller:
    """The loop.

    Args:
        supervisor: knows weights and replicas.
        journals: of the model's releases.
        figurer: makes bills.
        probe: talks to the gateway.
        say: gets single sentences for the person who watches.
    """

    def __init__(
        self,
        *,
        supervisor: Supervisor,
        journals: Callable[[], FileJournals],
        figurer: Figurer,
        probe: Probe,
        say: Callable[[str], None],
    ) -> None:
        self._supervisor = supervisor
        self._journals = journals
        self._figurer = figurer
        self._probe = probe
        self._say = say
        self._ledger = Ledger()
        self._said: set[str] = set()

    async def keep(self) -> None:
        """Tell again and again, whatever happens."""
        while True:
            await self._tried("platform", self.tell)
            await asyncio.sleep(EVERY_S)

    async def tell(self) -> Sequence[Figure]:
        """Tell once; what was told. A part that fails hides no other."""
        view = self._supervisor.view()
        if not view.admin_url:
            return ()
        figures = [
            *await self._tried("autoscaler", self._of_supervisor),
            *await self._tried("releases", lambda: self._of_releases(view.model)),
            *await self._tried("cost", lambda: self._of_bill(view)),
        ]
        status = await self._probe.put_figures(view.admin_url, figures)
        if status not in (200, None):  # None: the gateway is not there just now, which the supervisor sees to
            self._complain("gateway", f"it refused them with {status}")
        return figures

    async def _tried(self, what: str, part: Callable[[], Awaitable[Sequence[Figure]]]) -> Sequence[Figure]:
        """A part of the figures; none where it fails."""
        try:
            figures = await part()
        except Exception as exc:  # a defect of ours must end neither the other figures nor the tellings to come
            self._complain(what, repr(exc))
            return ()
        return figures

    def _complain(self, what: str, why: str) -> None:
        """Say it, but each thing only once."""
        if what not in self._said:
            self._said.add(what)
            self._say(f"Figures of the {what} are missing in /metrics: {why}. Please report this; all else goes on.")

    async def _of_supervisor(self) -> list[Figure]:
        return self._supervisor.figures()

    async def _of_bill(self, view: View) -> list[Figure]:
        return of_bill(await self._figurer.bill(view))

    async def _of_releases(self, model: str) -> list[Figure]:
        """A journal that is damaged or just being written is left out of this look."""
        journals = self._journals()
        try:
            ids = await journals.ids()
        except InferdockError:
            return []
        read: dict[str, list[Event]] = {}
        for release in self._ledger.unread(ids):
            try:
                read[release] = await asyncio.to_thread(journals.look, release)
            except InferdockError:
                continue
        try:
            return self._ledger.figures(model, ids, read)
        except InferdockError:
            return []


@contextlib.asynccontextmanager
async def telling(teller: Teller) -> AsyncIterator[None]:
    """Tell for as long as the platform runs; figures that cannot be told end nothing else."""
    task = asyncio.create_task(teller.keep())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def of_bill(bill: dict[str, Any] | None) -> list[Figure]:
    """The figures of a bill as ``cost.report`` writes it; none where nobody has said what machines cost."""
    figures: list[tuple[str, tuple[str, ...], float | None]] = []
    for row in (bill or {}).get("revisions", ()):
        labels = (row["model"], row["revision"])
        work, time_ = row["work_dollars"], row["time_dollars"]
        parts = {**work, "idle": time_["idle"], "start_up": time_["starting"], "unassigned": time_["unassigned"]}
        figures += [(names.COST_PER_HOUR, labels, row["dollars_per_hour"])]
        figures += [(names.COST_DOLLARS, (*labels, part), amount) for part, amount in parts.items()]
        figures += [(names.COST_SAVED, (*labels, by), amount) for by, amount in row["saved_dollars"].items()]
    return [Figure(name, labels, amount) for name, labels, amount in figures if amount is not None]
