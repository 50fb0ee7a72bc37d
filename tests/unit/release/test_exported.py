"""What metrics say of releases: the one under way or the last, and counts over all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferdock.release.exported import Ledger
from inferdock.telemetry import names as n
from tests.support.releases import Bench, rollback

Told = dict[tuple[str, ...], float]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def told(bench: Bench, ledger: Ledger) -> Told:
    read = {release: bench.journals.look(release) for release in ledger.unread(bench.ids)}
    figures = ledger.figures("m", bench.ids, read)
    made = {(one.name, *one.labels): one.value for one in figures}
    assert len(made) == len(figures)
    return made


def test_without_a_release_nothing_is_said(bench: Bench) -> None:
    assert told(bench, Ledger()) == {}


async def test_a_release_and_its_rollback_are_counted_and_the_last_is_shown(bench: Bench) -> None:
    ledger = Ledger()
    await bench.start()
    seen = told(bench, ledger)
    assert seen[n.RELEASE_INFO, "m", "r1", "release", "m@1.0.0", "m@1.1.0", "1.0.0-aa", "1.1.0-bb"] == 1
    assert seen[n.RELEASE_STATE, "m", "completed"] == 1
    assert sum(value for key, value in seen.items() if key[0] == n.RELEASE_STATE) == 1
    assert seen[n.RELEASE_STEPS, "m"] == seen[n.RELEASE_STEPS_DONE, "m"] > 0
    assert seen[n.RELEASE_VERDICTS, "m", "smoke", "pass"] == 1
    assert seen[n.RELEASE_ROLLBACKS, "m", "rollback"] == 0
    await bench.start(rollback())
    later = told(bench, ledger)
    assert later[n.RELEASE_ROLLBACKS, "m", "rollback"] == 1
    assert [key[2] for key in later if key[0] == n.RELEASE_INFO] == ["r2"]
    assert later[n.RELEASE_VERDICTS, "m", "smoke", "pass"] == 1


async def test_a_release_that_is_over_is_read_once_and_forgotten_with_its_journal(bench: Bench) -> None:
    ledger = Ledger()
    await bench.start()
    first = told(bench, ledger)
    assert ledger.unread(bench.ids) == []
    assert told(bench, ledger) == first
    bench.journals.path("r1").unlink()
    assert told(bench, ledger) == {}


async def test_a_journal_that_cannot_be_read_now_hides_no_other(bench: Bench) -> None:
    await bench.start()
    ledger = Ledger()
    figures = ledger.figures("m", ["r0", *bench.ids], {"r1": bench.journals.look("r1")})
    assert n.RELEASE_INFO in {one.name for one in figures}
