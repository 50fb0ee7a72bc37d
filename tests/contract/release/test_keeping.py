"""Journals, commands, leases and notes: the same behaviour in files and in a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from inferdock.domain.errors import ConfigError, ConflictError, IntegrityError, RegistryError, ResourceError
from inferdock.domain.moment import spell, unspell
from inferdock.release.events import Begun, Done, Entry, Planned, Taken, Turned, Way
from inferdock.release.machine import State, Trigger
from inferdock.release.records import journal as module
from inferdock.release.records.journal import By, Journal
from inferdock.release.records.mailbox import Wish, name_of
from tests.support.cluster_releases import Kept, fake_kept, in_files
from tests.support.fake_driver import BY, EPOCH, World
from tests.support.releases import plan, request


@pytest.fixture(params=["files", "cluster"])
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    if request.param == "files":
        yield in_files(tmp_path / "releases")
    else:
        async with fake_kept() as (_, found):
            yield found


@pytest.fixture
async def journal(kept: Kept) -> AsyncIterator[Journal]:
    made = await kept.journals.create(plan(), BY, EPOCH, reason="a better model")
    for entry in (Turned(trigger=Trigger.BEGIN), Begun(way=Way.FORWARD, step=0)):
        await made.append(entry, BY, EPOCH)
    yield made
    await made.close()


# -- journals ------------------------------------------------------------------------------------------------


async def test_what_was_written_is_read_and_written_on(kept: Kept, journal: Journal) -> None:
    first, *_ = await kept.journals.events("r1")
    assert (first.actor, first.origin, first.reason) == ("ada", "test", "a better model")
    progress = await kept.journals.progress("r1")
    assert (progress.state, progress.next, progress.begun) == (State.RUNNING, 0, True)
    assert progress == journal.progress
    again = await kept.journals.open("r1")
    await again.append(Done(way=Way.FORWARD, step=0, seconds=1), By(actor="bob", origin="x"), EPOCH, reason="ü\n\t💧")
    await again.close()
    last = (await kept.journals.events("r1"))[-1]
    assert (last.actor, last.reason) == ("bob", "ü\n\t💧")
    assert (await kept.journals.progress("r1")).next == 1


async def test_releases_are_listed_by_their_ids_and_the_newest_that_is_not_over_is_found(kept: Kept) -> None:
    assert await kept.journals.ids() == []
    assert await kept.journals.unfinished() is None
    for release in ("r2", "r1", "r3"):
        await (await kept.journals.create(replace(plan(), id=release), BY, EPOCH, reason="")).close()
    assert await kept.journals.ids() == ["r1", "r2", "r3"]
    found = await kept.journals.unfinished()
    assert found is not None
    assert found.plan.id == "r3"


async def test_one_journal_for_each_id(kept: Kept, journal: Journal) -> None:
    with pytest.raises(ConflictError, match="r1"):
        await kept.journals.create(plan(), BY, EPOCH, reason="")


async def test_a_release_that_is_not_there_is_said_to_be_so(kept: Kept) -> None:
    for look in (kept.journals.open, kept.journals.events, kept.journals.progress):
        with pytest.raises(RegistryError, match="no release r9"):
            await look("r9")


@pytest.mark.parametrize("release", ["", "../r1", "R1", "r1/x", "a" * 64, "r1\n"])
async def test_only_ids_name_journals(kept: Kept, release: str) -> None:
    with pytest.raises(ConfigError, match="no id"):
        await kept.journals.events(release)


@pytest.mark.parametrize(
    "entry",
    [Turned(trigger=Trigger.BEGIN), Begun(way=Way.FORWARD, step=1), Planned(plan=plan())],
    ids=["begin twice", "a later step", "a second plan"],
)
async def test_what_cannot_follow_is_not_written(kept: Kept, journal: Journal, entry: Entry) -> None:
    with pytest.raises(IntegrityError, match="makes no sense"):
        await journal.append(entry, BY, EPOCH)
    assert len(await kept.journals.events("r1")) == 3
    await journal.append(Taken(), BY, EPOCH)


async def test_what_cannot_be_read_back_is_not_written(kept: Kept, journal: Journal) -> None:
    with pytest.raises(ConfigError, match="cannot keep"):
        await journal.append(Done(way=Way.FORWARD, step=0, seconds=-5), BY, EPOCH)
    with pytest.raises(ConfigError, match="cannot keep"):
        await kept.journals.create(replace(plan(), id="r2", model="a\nb"), BY, EPOCH, reason="")
    assert await kept.journals.ids() == ["r1"]


async def test_a_journal_has_an_end(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EVENTS", 3)
    with pytest.raises(ResourceError, match="full"):
        await journal.append(Taken(), BY, EPOCH)


async def test_times_never_go_back(journal: Journal) -> None:
    later = unspell("2030-01-01T00:00:00.000Z")
    await journal.append(Taken(), BY, later)
    assert (await journal.append(Taken(), BY, EPOCH)).time == spell(later)


@pytest.mark.parametrize(
    "harm",
    [
        lambda lines: [],
        lambda lines: lines[1:],
        lambda lines: [lines[0], lines[2]],
        lambda lines: [*lines, lines[-1]],
        lambda lines: lines[::-1],
        lambda lines: [line.replace("a better model", "a better Model") for line in lines],
        lambda lines: [*lines, "x" * 300_000 + "\n"],
        lambda lines: [*lines, "[" * 100_000 + "\n"],
        lambda lines: [*lines, "\n"],
    ],
    ids=["nothing", "no plan", "a line lost", "twice", "order", "changed", "long", "deep", "an empty line"],
)
async def test_a_damaged_journal_is_refused_with_a_sentence(
    kept: Kept, journal: Journal, harm: Callable[[list[str]], list[str]]
) -> None:
    kept.harm("r1", harm)
    for look in (kept.journals.progress, kept.journals.open):
        with pytest.raises(IntegrityError) as caught:
            await look("r1")
        assert caught.value.cure


# -- commands ------------------------------------------------------------------------------------------------


async def test_commands_come_out_in_the_order_in_which_they_were_given(kept: Kept) -> None:
    box, world = kept.mailbox("r1"), World()
    assert await box.waiting() == []
    requests = []
    for number, wish in enumerate([Wish.PAUSE, Wish.ABORT, Wish.RESUME]):
        world.time = 100.0 - number
        requests.append(request(wish, world, number, reason="ü"))
        await box.post(requests[-1])
    assert await box.waiting() == requests[::-1]
    await box.remove(requests[1])
    await box.remove(requests[1])
    assert await box.waiting() == [requests[2], requests[0]]
    assert await kept.mailbox("r2").waiting() == []


@pytest.mark.parametrize("data", [b"", b"{" * 10_000, b'{"id": 3}'], ids=["empty", "deep", "other"])
async def test_what_is_no_command_is_thrown_away(kept: Kept, data: bytes) -> None:
    right = request(Wish.PAUSE, World(), 3)
    kept.post("r1", name_of(right), data)
    kept.post("r1", name_of(request(Wish.PAUSE, World(), 4)), msgspec.json.encode(right))
    assert await kept.mailbox("r1").waiting() == []
    await kept.mailbox("r1").post(right)
    assert await kept.mailbox("r1").waiting() == [right]


# -- leases --------------------------------------------------------------------------------------------------


async def test_the_second_is_told_who_is_first(kept: Kept) -> None:
    first, second = kept.lease(), kept.lease()
    await first.acquire("ada on host, process 7\n\x1b[0m")
    await first.check()
    for patient in (False, True):
        with pytest.raises(ConflictError, match=r"ada on host, process 7\?\?\[0m") as caught:
            await second.acquire("bob", patient=patient)
        assert caught.value.cure
    await first.release()
    await second.acquire("bob")
    await second.check()
    await second.release()
    await second.release()


async def test_a_lease_that_is_not_held_is_none(kept: Kept) -> None:
    lease = kept.lease()
    with pytest.raises(ConflictError, match="not held"):
        await lease.check()
    await lease.acquire("ada")
    with pytest.raises(ConflictError, match="already"):
        await lease.acquire("ada")
    await lease.release()


async def test_one_of_many_that_come_at_once_gets_it(kept: Kept) -> None:
    leases = [kept.lease() for _ in range(8)]
    got = await asyncio.gather(*(lease.acquire(f"p{n}") for n, lease in enumerate(leases)), return_exceptions=True)
    assert sum(one is None for one in got) == 1
    assert all(one is None or isinstance(one, ConflictError) for one in got)
    for lease in leases:
        await lease.release()


# -- notes ---------------------------------------------------------------------------------------------------


async def test_a_note_is_kept_beside_its_release(kept: Kept) -> None:
    assert await kept.notes.read("r1", "judging") is None
    await kept.notes.keep("r1", "judging", b'{"tasks": "demo"}')
    await kept.notes.keep("r1", "judging", b'{"tasks": "other"}')
    assert await kept.notes.read("r1", "judging") == b'{"tasks": "other"}'
    assert await kept.notes.read("r2", "judging") is None
    assert await kept.journals.ids() == []
