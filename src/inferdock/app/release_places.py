"""Where a model serves and where its releases are kept: this machine's platform, or a cluster (`release_cluster`)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from inferdock.app.platform import resolve_state_root
from inferdock.config.settings import Settings
from inferdock.domain.errors import UnreachableError
from inferdock.release.desk import MakeMailbox
from inferdock.release.driver import Driver
from inferdock.release.drivers.local import LocalDriver, LocalMeter, control_session
from inferdock.release.judging.figures import Meter
from inferdock.release.records.file_journal import journals_of
from inferdock.release.records.file_mailbox import FileMailbox
from inferdock.release.records.journal import Journals
from inferdock.release.records.lease import FileLease, Lease
from inferdock.release.records.notes import FileNotes, Notes
from inferdock.supervisor.state import read_state


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One model on one platform.

    Attributes:
        model: name that clients use.
        driver: the platform, as releases see it.
        meter: its live figures.
        journals: all releases of the model.
        lease: held by whoever works on one.
        mailbox: commands for a release.
        notes: what is kept beside the journals.
        reports: folder on this machine for the pages that gates write.
    """

    model: str
    driver: Driver
    meter: Meter
    journals: Journals
    lease: Lease
    mailbox: MakeMailbox
    notes: Notes
    reports: Path


@contextlib.asynccontextmanager
async def local_place(settings: Settings, environment: Mapping[str, str], port: int | None) -> AsyncIterator[Place]:
    """The platform that `inferdock up` runs here.

    Args:
        settings: the configuration.
        environment: of the process.
        port: of its gateway, where several run.

    Raises:
        UnreachableError: none runs, or several and no port says which.
    """
    root = resolve_state_root(settings, environment)
    state = read_state(root, port)
    if not state.get("control"):
        raise UnreachableError("The platform here is of an older version.", cure="Restart `inferdock up`.")
    model = str(state["model"])
    journals = journals_of(root, model)
    async with control_session(Path(str(state["control"]))) as control, aiohttp.ClientSession() as http:
        yield Place(
            model=model,
            driver=LocalDriver(control),
            meter=LocalMeter(http, str(state["admin_url"]), model),
            journals=journals,
            lease=FileLease(journals.folder / "lease"),
            mailbox=lambda release: FileMailbox(journals.path(release).with_suffix(".requests")),
            notes=FileNotes(journals.folder),
            reports=journals.folder,
        )
