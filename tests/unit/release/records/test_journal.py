"""Journals in files: what is kept, what is refused, what a crash may leave."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from inferdock.domain.errors import ConfigError, ConflictError, IntegrityError, RegistryError, ResourceError
from inferdock.domain.moment import spell, unspell
from inferdock.domain.verdict import Verdict
from inferdock.release.events import Begun, Done, Entry, Judged, Planned, Taken, Turned, Way
from inferdock.release.machine import State, Trigger
from inferdock.release.records import journal as module
from inferdock.release.records.file_journal import FileJournals
from inferdock.release.records.journal import By, Journal
from tests.support.fake_driver import BY, EPOCH
from tests.support.releases import plan


@pytest.fixture
def journals(tmp_path: Path) -> FileJournals:
    return FileJournals(tmp_path / "releases")


@pytest.fixture
async def journal(journals: FileJournals) -> Journal:
    made = await journals.create(plan(), BY, EPOCH, reason="a better model")
    for entry in (Turned(trigger=Trigger.BEGIN), Begun(way=Way.FORWARD, step=0)):
        await made.append(entry, BY, EPOCH)
    return made


async def test_who_did_what_from_where_and_why_is_kept(journals: FileJournals, journal: Journal) -> None:
    evidence = {"file": "model.safetensors", "share": 0.25}
    judged = Judged(step=0, gate="digests", verdict=Verdict.FAIL, evidence=evidence)
    await journal.append(judged, By(actor="ada", origin="host:7"), EPOCH, reason="a byte is wrong")
    first, *_, last = await journals.events("r1")
    assert (first.actor, first.origin, first.reason) == ("ada", "test", "a better model")
    assert (last.actor, last.origin, last.reason, last.entry) == ("ada", "host:7", "a byte is wrong", judged)


async def test_a_release_is_where_its_events_say(journals: FileJournals, journal: Journal) -> None:
    progress = await journals.progress("r1")
    assert (progress.state, progress.next, progress.begun) == (State.RUNNING, 0, True)
    await journal.append(Done(way=Way.FORWARD, step=0, seconds=1), BY, EPOCH)
    assert await journals.progress("r1") == journal.progress
    assert journal.progress.next == 1


@pytest.mark.parametrize(
    "entry",
    [
        Turned(trigger=Trigger.BEGIN),
        Turned(trigger=Trigger.PROMOTED),
        Turned(trigger=Trigger.RESTORED),
        Begun(way=Way.FORWARD, step=1),
        Begun(way=Way.BACK, step=0),
        Done(way=Way.FORWARD, step=1, seconds=0),
        Planned(plan=plan()),
    ],
    ids=["begin twice", "promoted", "restored", "a later step", "the way back", "done later", "a second plan"],
)
async def test_what_cannot_follow_is_not_written(journals: FileJournals, journal: Journal, entry: Entry) -> None:
    before = journals.path("r1").read_bytes()
    with pytest.raises(IntegrityError, match="makes no sense"):
        await journal.append(entry, BY, EPOCH)
    assert journals.path("r1").read_bytes() == before


async def test_half_a_line_at_the_end_is_left_out_and_cut_off(journals: FileJournals, journal: Journal) -> None:
    path = journals.path("r1")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:100])
    assert len(await journals.events("r1")) == 3
    assert path.read_bytes() != whole
    await (await journals.open("r1")).close()
    assert path.read_bytes() == whole


def _resealed(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """Change the last event in a way that its chain does not show."""

    def harm(data: bytes) -> bytes:
        *rest, last = data.splitlines()
        event = msgspec.json.decode(last)
        change(event)
        return b"\n".join([*rest, msgspec.json.encode(event)]) + b"\n"

    return harm


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: b"",
        lambda data: b"\n" + data,
        lambda data: data + b"\n",
        lambda data: data + b"x" * 300_000 + b"\n",
        lambda data: data + b"[" * 100_000 + b"\n",
        lambda data: data.split(b"\n", 1)[1],
        lambda data: data + data.splitlines(keepends=True)[-1],
        lambda data: b"".join(sorted(data.splitlines(keepends=True), reverse=True)),
        lambda data: data.replace(b"a better model", b"a better Model"),
        _resealed(lambda event: event.update(seq=9)),
        _resealed(lambda event: event.update(seq=-1)),
        _resealed(lambda event: event.update(time="now")),
        _resealed(lambda event: event.update(more=1)),
        _resealed(lambda event: event["entry"].update(step=3)),
        _resealed(lambda event: event["entry"].update(step=10**30)),
        _resealed(lambda event: event["entry"].update(what="other")),
        _resealed(lambda event: event.update(entry={"what": "taken", "request": "x"})),
        _resealed(lambda event: event.update(entry={"what": "turned", "trigger": "fly"})),
        lambda data: bytes(range(256)) * 10 + b"\n",
    ],
    ids=[
        "empty",
        "empty line first",
        "empty line last",
        "long line",
        "deep",
        "no plan",
        "twice",
        "order",
        "reason changed",
        "number",
        "negative",
        "time",
        "unknown field",
        "another step",
        "huge step",
        "unknown entry",
        "bad request id",
        "unknown trigger",
        "binary",
    ],
)
async def test_a_damaged_journal_is_refused_with_a_sentence(
    journals: FileJournals, journal: Journal, harm: Callable[[bytes], bytes]
) -> None:
    path = journals.path("r1")
    harmed = harm(path.read_bytes())
    path.write_bytes(harmed)
    for look in (journals.progress, journals.open):
        with pytest.raises(IntegrityError) as caught:
            await look("r1")
        assert caught.value.cure
    assert path.read_bytes() == harmed


async def test_a_journal_that_is_a_pipe_or_a_link_holds_nobody_up(journals: FileJournals, journal: Journal) -> None:
    os.mkfifo(journals.path("pipe"))
    journals.path("link").symlink_to(journals.path("r1"))
    with pytest.raises((IntegrityError, ResourceError)):
        await journals.events("pipe")
    with pytest.raises(ResourceError):
        await journals.events("link")


async def test_a_full_disk_is_said_and_nothing_more_is_written(
    journals: FileJournals, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(ResourceError, match="No space"):
            await journal.append(Done(way=Way.FORWARD, step=0, seconds=0), BY, EPOCH)
    with pytest.raises(ResourceError, match="before"):
        await journal.append(Done(way=Way.FORWARD, step=0, seconds=0), BY, EPOCH)
    assert (await journals.progress("r1")).seq == 3


async def test_what_cannot_be_read_back_is_not_written(journals: FileJournals, journal: Journal) -> None:
    with pytest.raises(ConfigError, match="cannot keep"):
        await journal.append(Done(way=Way.FORWARD, step=0, seconds=-5), BY, EPOCH)
    with pytest.raises(ConfigError, match="cannot keep"):
        await journals.create(replace(plan(), id="r2", model="a\nb"), BY, EPOCH, reason="")
    assert await journals.ids() == ["r1"]


async def test_a_journal_has_an_end(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EVENTS", 3)
    with pytest.raises(ResourceError, match="full"):
        await journal.append(Taken(), BY, EPOCH)


async def test_one_journal_for_each_id(journals: FileJournals, journal: Journal) -> None:
    with pytest.raises(ConflictError, match="r1"):
        await journals.create(plan(), BY, EPOCH, reason="")


@pytest.mark.parametrize("release", ["", "../r1", "R1", "r1/x", "a" * 64, "r1\n"])
async def test_only_ids_name_journals(journals: FileJournals, release: str) -> None:
    with pytest.raises(ConfigError, match="no id"):
        await journals.events(release)


async def test_a_release_that_is_not_there_is_said_to_be_so(journals: FileJournals) -> None:
    with pytest.raises(RegistryError, match="no release r9"):
        await journals.open("r9")
    assert await journals.ids() == []
    assert await journals.unfinished() is None


async def test_texts_that_are_no_unicode_are_kept_as_far_as_they_go(journals: FileJournals) -> None:
    await journals.create(plan(), By(actor="a\udcff", origin="x" * 9999), EPOCH, reason="\ud800" * 9999)
    event = (await journals.events("r1"))[0]
    assert event.actor == "a?"
    assert len(event.origin) == 500


async def test_times_never_go_back(journal: Journal) -> None:
    later = unspell("2030-01-01T00:00:00.000Z")
    await journal.append(Taken(), BY, later)
    assert (await journal.append(Taken(), BY, EPOCH)).time == spell(later)


async def test_a_file_that_a_dead_process_left_does_not_stop_the_next(journals: FileJournals) -> None:
    journals.folder.mkdir()
    (journals.folder / f".r1.jsonl.{os.getpid()}").write_text("half")
    await (await journals.create(plan(), BY, EPOCH, reason="")).close()
    assert await journals.ids() == ["r1"]
