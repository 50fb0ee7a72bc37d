"""What keeps releases, in files and in a fake cluster, behind one face for the contract tests."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from inferdock.kube.access import ClusterAccess
from inferdock.kube.objects_api import KubeObjects
from inferdock.kube.resources import CONFIG_MAPS
from inferdock.release.clock import SystemClock
from inferdock.release.records.cluster_journal import ClusterJournals
from inferdock.release.records.cluster_lease import ClusterLease, Timing
from inferdock.release.records.cluster_mailbox import REQUESTS, Beside, ClusterMailbox, ClusterNotes
from inferdock.release.records.cluster_names import beside_name, journal_name
from inferdock.release.records.file_journal import FileJournals
from inferdock.release.records.file_mailbox import FileMailbox
from inferdock.release.records.journal import Journals
from inferdock.release.records.lease import FileLease, Lease
from inferdock.release.records.mailbox import Mailbox
from inferdock.release.records.notes import FileNotes, Notes
from tests.support.fake_cluster import FakeCluster, running_fake_cluster

NS = "ns"
MODEL = "org/Demo Model"
QUICK = Timing(duration_s=1.0, stop_s=0.6, renew_s=0.1, patience_s=5.0, look_s=0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One way of keeping releases.

    Attributes:
        journals: all of them.
        mailbox: commands for a release.
        lease: makes one, as a process would.
        notes: beside the journals.
        post: puts any bytes into a mailbox under any name.
        harm: changes the lines of a release's journal behind its back.
    """

    journals: Journals
    mailbox: Callable[[str], Mailbox]
    lease: Callable[[], Lease]
    notes: Notes
    post: Callable[[str, str, bytes], None]
    harm: Callable[[str, Callable[[list[str]], list[str]]], None]


def in_files(folder: Path) -> Kept:
    """As `inferdock up` has it."""
    journals = FileJournals(folder)

    def post(release: str, name: str, data: bytes) -> None:
        box = journals.path(release).with_suffix(".requests")
        box.mkdir(parents=True, exist_ok=True)
        (box / name).write_bytes(data)

    def harm(release: str, change: Callable[[list[str]], list[str]]) -> None:
        path = journals.path(release)
        path.write_text("".join(change(path.read_text().splitlines(keepends=True))))

    return Kept(
        journals=journals,
        mailbox=lambda release: FileMailbox(journals.path(release).with_suffix(".requests")),
        lease=lambda: FileLease(folder / "lease"),
        notes=FileNotes(folder),
        post=post,
        harm=harm,
    )


def in_cluster(cluster: FakeCluster, api: KubeObjects, model: str = MODEL) -> Kept:
    """As a cluster has it."""
    clock = SystemClock()

    def box(release: str) -> Beside:
        return Beside(api, namespace=NS, model=model, release=release, what=REQUESTS)

    def post(release: str, name: str, data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        body = {"metadata": {"name": beside_name(release, REQUESTS)}, "data": {name.replace(":", "."): text}}
        if cluster.store.get(CONFIG_MAPS, NS, beside_name(release, REQUESTS)) is None:
            cluster.store.create(CONFIG_MAPS, NS, body)
        else:
            cluster.store.patch(CONFIG_MAPS, NS, beside_name(release, REQUESTS), body)

    def harm(release: str, change: Callable[[list[str]], list[str]]) -> None:
        def changed(body: dict) -> dict:
            lines = change([line for _, line in sorted(body["data"].items())])
            return {**body, "data": {f"{number:05d}.json": line for number, line in enumerate(lines, 1)}}

        cluster.store.update(CONFIG_MAPS, NS, journal_name(release), changed)

    return Kept(
        journals=ClusterJournals(api, namespace=NS, model=model, clock=clock),
        mailbox=lambda release: ClusterMailbox(box(release)),
        lease=lambda: ClusterLease(api, namespace=NS, model=model, clock=clock, timing=QUICK),
        notes=ClusterNotes(api, namespace=NS, model=model),
        post=post,
        harm=harm,
    )


@contextlib.asynccontextmanager
async def fake_kept(model: str = MODEL) -> AsyncIterator[tuple[FakeCluster, Kept]]:
    """A fake cluster, and releases kept in it."""
    async with running_fake_cluster() as cluster, KubeObjects(ClusterAccess(cluster.url), answer_timeout_s=3) as api:
        yield cluster, in_cluster(cluster, api, model)
