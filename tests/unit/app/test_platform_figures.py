"""The teller of the platform's figures outlives whatever it meets, and leaves out what it cannot know."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inferdock.app import platform_figures
from inferdock.app.console.live import Figurer
from inferdock.app.platform_figures import EVERY_S, Teller, telling
from inferdock.release.records.file_journal import FileJournals
from inferdock.supervisor.probe import Probe
from inferdock.supervisor.supervisor import Supervisor
from inferdock.telemetry import names as n
from inferdock.telemetry.published import KEPT_S, Figure

WEIGHT = Figure(n.RELEASE_WEIGHT, ("m", "r1"), 1.0)


@dataclass
class Parts:
    """What a teller asks; each may fail."""

    admin_url: str = "http://gateway"
    broken: set[str] = field(default_factory=set)
    status: int | None = 200
    told: list[list[str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def view(self) -> Any:
        self._meet("view")
        return SimpleNamespace(admin_url=self.admin_url, model="m")

    def figures(self) -> list[Figure]:
        self._meet("figures")
        return [WEIGHT]

    async def bill(self, _: object) -> dict[str, Any]:
        self._meet("bill")
        time = {"idle": 1.0, "starting": 0.0, "unassigned": None}
        row = {"model": "m", "revision": "r1", "dollars_per_hour": 3.6, "time_dollars": time}
        return {"revisions": [{**row, "work_dollars": {"prompt": 0.5}, "saved_dollars": {}}]}

    async def put_figures(self, _: str, figures: list[Figure]) -> int | None:
        self._meet("put")
        self.told.append(sorted({one.name for one in figures}))
        return self.status

    def _meet(self, what: str) -> None:
        if what in self.broken:
            raise KeyError(what)

    def teller(self, folder: Path) -> Teller:
        def journals() -> FileJournals:
            self._meet("journals")
            return FileJournals(folder)

        return Teller(
            supervisor=cast(Supervisor, self),
            journals=journals,
            figurer=cast(Figurer, self),
            probe=cast(Probe, self),
            say=self.said.append,
        )


WHOLE = sorted([n.RELEASE_WEIGHT, n.COST_PER_HOUR, n.COST_DOLLARS])


@pytest.mark.parametrize(
    ("broken", "left"),
    [("figures", WHOLE[:2]), ("journals", WHOLE), ("bill", [n.RELEASE_WEIGHT])],
    ids=["autoscaler", "releases", "cost"],
)
async def test_a_part_that_fails_hides_no_other_and_is_said_once(tmp_path: Path, broken: str, left: list[str]) -> None:
    parts = Parts(broken={broken})
    teller = parts.teller(tmp_path)
    await teller.tell()
    await teller.tell()
    assert parts.told == [left, left]
    assert len(parts.said) == 1
    assert "are missing in /metrics: KeyError" in parts.said[0]
    parts.broken.clear()
    await teller.tell()
    assert parts.told[-1] == WHOLE


@pytest.mark.parametrize("broken", ["view", "put"])
async def test_the_loop_survives_what_it_meets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    monkeypatch.setattr(platform_figures, "EVERY_S", 0.01)
    parts = Parts(broken={broken})
    async with telling(parts.teller(tmp_path)):
        async with asyncio.timeout(10):
            while not parts.said:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            parts.broken.clear()
            while not parts.told:
                await asyncio.sleep(0.01)
    assert len(parts.said) == 1


async def test_figures_that_the_gateway_refuses_are_said_once_and_one_that_is_away_never(tmp_path: Path) -> None:
    parts = Parts(status=None)
    teller = parts.teller(tmp_path)
    await teller.tell()
    assert parts.said == []
    parts.status = 400
    await teller.tell()
    await teller.tell()
    assert len(parts.said) == 1
    assert "refused them with 400" in parts.said[0]


async def test_before_there_is_a_gateway_nothing_is_told(tmp_path: Path) -> None:
    parts = Parts(admin_url="")
    assert await parts.teller(tmp_path).tell() == ()
    assert parts.told == []


def test_the_gateway_waits_for_more_than_one_missed_telling() -> None:
    assert KEPT_S >= 3 * EVERY_S
