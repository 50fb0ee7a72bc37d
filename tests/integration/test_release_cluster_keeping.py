"""Journals, leases and commands in a cluster whose API loses answers, refuses, goes away, and has other users."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from inferdock.domain.errors import ConflictError, IntegrityError, ResourceError, UnreachableError
from inferdock.kube.resources import CONFIG_MAPS, LEASES
from inferdock.release.events import Begun, Done, Taken, Turned, Way
from inferdock.release.machine import Trigger
from inferdock.release.records import cluster_journal
from inferdock.release.records.cluster_names import journal_name, lease_name
from inferdock.release.records.journal import Journal
from inferdock.release.records.mailbox import Wish
from tests.support.cluster_releases import MODEL, NS, QUICK, Kept, fake_kept
from tests.support.fake_cluster import FakeCluster
from tests.support.fake_driver import BY, EPOCH, World
from tests.support.releases import plan, request

Both = tuple[FakeCluster, Kept]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_journal, "RETRY_S", 0.01)


@pytest.fixture
async def both() -> AsyncIterator[Both]:
    async with fake_kept() as found:
        yield found


async def _begun(kept: Kept) -> Journal:
    return await kept.journals.create(plan(), BY, EPOCH, reason="")


# -- the journal ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["drop", "lose", "refuse", "nonsense"])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_line_is_written_once_whatever_becomes_of_its_answer(both: Both, kind: str, times: int) -> None:
    cluster, kept = both
    cluster.fault(kind, times, method="POST", path="configmaps")
    journal = await _begun(kept)
    cluster.fault(kind, times, method="PATCH", path="configmaps")
    await journal.append(Turned(trigger=Trigger.BEGIN), BY, EPOCH)
    await journal.append(Taken(), BY, EPOCH)
    assert [event.seq for event in await kept.journals.events("r1")] == [1, 2, 3]


async def test_an_api_that_is_away_for_a_while_holds_a_line_up_and_no_more(both: Both) -> None:
    cluster, kept = both
    journal = await _begun(kept)
    await cluster.go_away()
    writing = asyncio.create_task(journal.append(Turned(trigger=Trigger.BEGIN), BY, EPOCH))
    await asyncio.sleep(0.1)
    assert not writing.done()
    cluster.away = False
    assert (await writing).seq == 2


async def test_an_api_that_stays_away_ends_the_writing(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, kept = both
    journal = await _begun(kept)
    monkeypatch.setattr(cluster_journal, "PATIENCE_S", 0.05)
    await cluster.go_away()
    with pytest.raises(UnreachableError, match="could not be written"):
        await journal.append(Turned(trigger=Trigger.BEGIN), BY, EPOCH)
    cluster.away = False
    with pytest.raises(ResourceError, match="before"):
        await journal.append(Turned(trigger=Trigger.BEGIN), BY, EPOCH)
    await (await kept.journals.open("r1")).append(Turned(trigger=Trigger.BEGIN), BY, EPOCH)


async def test_of_two_writers_one_is_stopped(both: Both) -> None:
    _, kept = both
    first, second = await _begun(kept), await kept.journals.open("r1")
    await first.append(Turned(trigger=Trigger.BEGIN), BY, EPOCH)
    with pytest.raises(ConflictError, match="Somebody else wrote"):
        await second.append(Turned(trigger=Trigger.BEGIN), BY, EPOCH, reason="mine")
    await first.append(Taken(), BY, EPOCH)
    assert len(await kept.journals.events("r1")) == 3


async def test_who_only_labels_the_object_is_no_other_writer(both: Both) -> None:
    cluster, kept = both
    journal = await _begun(kept)
    cluster.store.patch(CONFIG_MAPS, NS, journal_name("r1"), {"metadata": {"annotations": {"seen": "yes"}}})
    await journal.append(Turned(trigger=Trigger.BEGIN), BY, EPOCH)
    assert len(await kept.journals.events("r1")) == 2


@pytest.mark.parametrize("kind", ["", "lose", "drop"])
async def test_a_full_part_is_followed_by_another(both: Both, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    cluster, kept = both
    journal = await _begun(kept)
    monkeypatch.setattr(cluster_journal, "PART_BYTES", 1000)
    await journal.append(Turned(trigger=Trigger.BEGIN), BY, EPOCH)
    for number in range(12):
        if kind:
            cluster.fault(kind, 1, path="configmaps")
        await journal.append(Taken(), BY, EPOCH, reason=f"number {number}")
    assert len(cluster.store.all(CONFIG_MAPS, NS)) > 3
    again = await kept.journals.open("r1")
    await again.append(Taken(), BY, EPOCH)
    assert [event.seq for event in await kept.journals.events("r1")] == list(range(1, 16))
    assert await kept.journals.ids() == ["r1"]


async def test_a_part_that_is_missing_is_damage(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, kept = both
    journal = await _begun(kept)
    monkeypatch.setattr(cluster_journal, "PART_BYTES", 100)
    for _ in range(3):
        await journal.append(Taken(), BY, EPOCH)
    cluster.store.delete(CONFIG_MAPS, NS, journal_name("r1", 2))
    with pytest.raises(IntegrityError, match="parts"):
        await kept.journals.events("r1")


async def test_a_journal_that_is_deleted_meanwhile_is_said_to_be(both: Both) -> None:
    cluster, kept = both
    journal = await _begun(kept)
    cluster.store.delete(CONFIG_MAPS, NS, journal_name("r1"))
    with pytest.raises((ResourceError, UnreachableError), match=r"deleted|not found"):
        await journal.append(Turned(trigger=Trigger.BEGIN), BY, EPOCH)


async def test_who_may_not_write_is_told_so_at_once(both: Both) -> None:
    cluster, kept = both
    cluster.forbidden = lambda verb, resource, name: verb == "create"
    with pytest.raises(UnreachableError, match="forbidden") as caught:
        await _begun(kept)
    assert caught.value.cure


async def test_old_releases_that_are_over_make_room(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    _, kept = both
    monkeypatch.setattr(cluster_journal, "KEPT", 2)
    for number in range(5):
        journal = await kept.journals.create(replace(plan(), id=f"r{number}"), BY, EPOCH, reason="")
        await kept.notes.keep(f"r{number}", "judging", b"{}")
        if number != 1:
            await journal.append(Turned(trigger=Trigger.BEGIN), BY, EPOCH)
            await journal.append(Turned(trigger=Trigger.ABORT), BY, EPOCH)
            await _ended(journal)
    assert await kept.journals.ids() == ["r1", "r3", "r4"]
    assert await kept.notes.read("r0", "judging") is None
    assert await kept.notes.read("r4", "judging") is not None


async def _ended(journal: Journal) -> None:
    for step in range(len(journal.progress.back)):
        await journal.append(Begun(way=Way.BACK, step=step), BY, EPOCH)
        await journal.append(Done(way=Way.BACK, step=step, seconds=0), BY, EPOCH)
    await journal.append(Turned(trigger=Trigger.RESTORED), BY, EPOCH)


async def test_releases_of_two_models_do_not_meet(both: Both) -> None:
    _, kept = both
    await _begun(kept)
    async with fake_kept("other") as (_, other):
        assert await other.journals.ids() == []


# -- the lease -----------------------------------------------------------------------------------------------


async def test_a_lease_that_was_left_behind_is_taken_once_its_time_is_over(both: Both) -> None:
    _, kept = both
    dead = kept.lease()
    await dead.acquire("a process that dies")
    dead._renewing.cancel()  # type: ignore[attr-defined]
    began = asyncio.get_running_loop().time()
    heir = kept.lease()
    with pytest.raises(ConflictError, match="a process that dies"):
        await heir.acquire("bob")
    await heir.acquire("bob", patient=True)
    assert asyncio.get_running_loop().time() - began >= QUICK.duration_s * 0.9
    with pytest.raises(ConflictError, match=r"could not be renewed|taken by"):
        await dead.check()
    await heir.release()


async def test_a_lease_is_held_through_lost_answers_and_refusals(both: Both) -> None:
    cluster, kept = both
    cluster.fault("lose", 1, method="POST", path="leases")
    lease = kept.lease()
    with pytest.raises(UnreachableError):
        await lease.acquire("ada")
    await lease.acquire("ada", patient=True)
    for kind in ("lose", "drop", "refuse", "nonsense"):
        cluster.fault(kind, 1, method="PATCH", path="leases")
        await asyncio.sleep(2 * QUICK.renew_s)
        await lease.check()
    await lease.release()
    await kept.lease().acquire("bob")


async def test_while_the_api_is_away_the_holder_waits_and_then_goes_on(both: Both) -> None:
    cluster, kept = both
    lease = kept.lease()
    await lease.acquire("ada")
    await cluster.go_away()
    await asyncio.sleep(QUICK.stop_s + 0.1)
    checking = asyncio.create_task(lease.check())
    await asyncio.sleep(0.2)
    assert not checking.done()
    cluster.away = False
    await asyncio.wait_for(checking, 10)
    await lease.release()


async def test_who_was_away_finds_that_another_one_took_it(both: Both) -> None:
    cluster, kept = both
    lease = kept.lease()
    await lease.acquire("ada")
    cluster.store.patch(
        LEASES, NS, lease_name(MODEL), {"spec": {"holderIdentity": "bob 00000000", "renewTime": "x"}}, "bob"
    )
    with pytest.raises(ConflictError, match="taken by bob"):
        await _lost(lease)
    await lease.release()
    assert (cluster.store.get(LEASES, NS, lease_name(MODEL)) or {})["spec"]["holderIdentity"] == "bob 00000000"


async def test_a_lease_that_was_deleted_is_lost(both: Both) -> None:
    cluster, kept = both
    lease = kept.lease()
    await lease.acquire("ada")
    cluster.store.delete(LEASES, NS, lease_name(MODEL))
    with pytest.raises(ConflictError, match="deleted"):
        await _lost(lease)
    await lease.release()


async def _lost(lease: object) -> None:
    for _ in range(500):
        await lease.check()  # type: ignore[attr-defined]
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "spec",
    [{}, {"holderIdentity": None}, {"holderIdentity": "x", "leaseDurationSeconds": -5, "leaseTransitions": -1}],
    ids=["empty", "null", "negative"],
)
async def test_a_strange_lease_is_taken_all_the_same(both: Both, spec: dict) -> None:
    cluster, kept = both
    cluster.store.create(LEASES, NS, {"metadata": {"name": lease_name(MODEL)}, "spec": spec})
    lease = kept.lease()
    await lease.acquire("ada", patient=True)
    await lease.check()
    await lease.release()


# -- commands ------------------------------------------------------------------------------------------------


async def test_while_the_api_is_away_no_command_is_heard_and_none_is_lost(both: Both) -> None:
    cluster, kept = both
    box = kept.mailbox("r1")
    wish = request(Wish.ABORT, World())
    await box.post(wish)
    await cluster.go_away()
    assert await box.waiting() == []
    with pytest.raises(UnreachableError):
        await box.post(wish)
    await box.remove(wish)
    cluster.away = False
    assert await box.waiting() == [wish]


async def test_a_full_mailbox_is_said_to_be(both: Both) -> None:
    _, kept = both
    box, world = kept.mailbox("r1"), World()

    async def fill() -> None:
        for number in range(800):
            await box.post(request(Wish.PAUSE, world, number, reason="x" * 2000))

    with pytest.raises(ResourceError, match="cannot be written"):
        await fill()
