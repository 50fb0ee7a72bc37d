"""One runner at a time, and commands for the one there is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from inferdock.domain.errors import ConflictError, ResourceError
from inferdock.release.events import CROWDED
from inferdock.release.machine import State, Trigger
from inferdock.release.progress import Progress
from inferdock.release.records.file_mailbox import FileMailbox
from inferdock.release.records.lease import FileLease
from inferdock.release.records.mailbox import Wish, trigger_of
from tests.support.fake_driver import World
from tests.support.releases import plan, request


async def test_the_second_is_told_who_is_first(tmp_path: Path) -> None:
    first, second = FileLease(tmp_path / "a" / "lease"), FileLease(tmp_path / "a" / "lease")
    await first.acquire("ada on host, process 7\n\x1b[0m")
    with pytest.raises(ConflictError, match=r"ada on host, process 7\?\?\[0m") as caught:
        await second.acquire("bob")
    assert caught.value.cure
    await first.release()
    await second.acquire("bob")
    await second.check()
    assert first.held_by() == "bob"
    await second.release()
    assert first.held_by() is None
    await second.release()


async def test_a_lease_whose_file_was_replaced_is_lost(tmp_path: Path) -> None:
    lease = FileLease(tmp_path / "lease")
    await lease.acquire("ada")
    (tmp_path / "lease").unlink()
    with pytest.raises(ConflictError, match="removed"):
        await lease.check()
    (tmp_path / "lease").touch()
    with pytest.raises(ConflictError, match="removed"):
        await lease.check()


async def test_a_lease_that_is_not_held_is_none(tmp_path: Path) -> None:
    lease = FileLease(tmp_path / "lease")
    assert lease.held_by() is None
    with pytest.raises(ConflictError, match="not held"):
        await lease.check()
    await lease.acquire("ada")
    with pytest.raises(ConflictError, match="already"):
        await lease.acquire("ada")


async def test_a_lease_that_cannot_be_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot be taken"):
        await FileLease(tmp_path / "file" / "lease").acquire("ada")
    os.symlink(tmp_path / "file", tmp_path / "link")
    with pytest.raises(ResourceError, match="cannot be taken"):
        await FileLease(tmp_path / "link").acquire("ada")


async def test_commands_come_out_in_the_order_in_which_they_were_given(tmp_path: Path) -> None:
    box, world = FileMailbox(tmp_path / "box"), World()
    assert await box.waiting() == []
    requests = []
    for number, wish in enumerate([Wish.PAUSE, Wish.ABORT, Wish.RESUME]):
        world.time = 100.0 - number
        requests.append(request(wish, world, number))
        await box.post(requests[-1])
    assert await box.waiting() == requests[::-1]
    await box.remove(requests[1])
    await box.remove(requests[1])
    assert await box.waiting() == [requests[2], requests[0]]


def _spelt(**changes: Any) -> bytes:
    document = msgspec.to_builtins(request(Wish.PAUSE, World(), 3))
    return msgspec.json.encode({**document, **changes})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 100,
        b"{" * 10_000,
        _spelt(wish="fly"),
        _spelt(id="../x"),
        _spelt(id=f"{4:032x}"),
        _spelt(reason="x" * 50_000),
        _spelt(more=1),
    ],
    ids=["empty", "binary", "deep", "wish", "id", "another id", "long", "unknown"],
)
async def test_what_is_no_command_is_thrown_away(tmp_path: Path, data: bytes) -> None:
    right = request(Wish.PAUSE, World(), 3)
    path = tmp_path / f"{right.time}-{right.id}.json"
    path.write_bytes(data)
    assert await FileMailbox(tmp_path).waiting() == []
    assert not path.exists()


async def test_other_files_links_and_pipes_are_left_alone(tmp_path: Path) -> None:
    right = request(Wish.PAUSE, World(), 3)
    (tmp_path / "note.txt").touch()
    (tmp_path / f"{right.time}-{right.id}.json").symlink_to(tmp_path / "note.txt")
    os.mkfifo(tmp_path / f"{right.time}-{4:032x}.json")
    assert await FileMailbox(tmp_path).waiting() == []
    assert (tmp_path / "note.txt").exists()


async def test_a_mailbox_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot be left"):
        await FileMailbox(tmp_path / "file").post(request(Wish.PAUSE, World()))


@pytest.mark.parametrize(
    ("wish", "state", "step", "does"),
    [
        (Wish.PAUSE, State.RUNNING, 0, Trigger.PAUSE),
        (Wish.PAUSE, State.BAKING, 99, None),
        (Wish.RESUME, State.PAUSED, 0, Trigger.RESUME),
        (Wish.RESUME, State.PAUSED, 99, Trigger.REBAKE),
        (Wish.RESUME, State.FAILED, 0, Trigger.RETRY),
        (Wish.RESUME, State.RUNNING, 0, None),
        (Wish.PROMOTE, State.PAUSED, 0, Trigger.PROMOTE),
        (Wish.PROMOTE, State.PAUSED, 99, None),
        (Wish.ABORT, State.PROMOTING, 0, Trigger.ABORT),
        (Wish.ABORT, State.FAILED, 0, Trigger.CLOSE),
        (Wish.ROLLBACK, State.BAKING, 99, Trigger.ABORT),
        (Wish.ROLLBACK, State.COMPLETED, 99, None),
        (Wish.ABORT, State.ABORTING, 0, None),
    ],
    ids=lambda value: str(value),
)
def test_a_wish_does_what_the_state_allows(wish: Wish, state: State, step: int, does: Trigger | None) -> None:
    assert trigger_of(wish, Progress(plan=plan(), state=state, next=step)) is does


def test_a_crowded_journal_takes_what_ends_the_release_only() -> None:
    crowded = Progress(plan=plan(), state=State.PAUSED, seq=CROWDED + 1)
    assert trigger_of(Wish.RESUME, crowded) is None
    assert trigger_of(Wish.ABORT, crowded) is Trigger.ABORT
