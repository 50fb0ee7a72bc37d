"""The releases that the journals of a local platform have kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from inferdock.app.verify.ground import LackingError
from inferdock.app.verify.target import Target
from inferdock.domain.errors import IntegrityError
from inferdock.release.events import Judged
from inferdock.release.progress import Progress
from inferdock.release.records.file_journal import journals_of

MOST_S: Final = 60.0
"""The plan's limit for a rollback."""


def place(target: Target) -> tuple[Path, dict[str, Any]]:
    """Folder of all states, and this platform's.

    Raises:
        LackingError: `inferdock up` of this machine does not run the target.
    """
    if target.state is None:
        raise LackingError("Needs a platform that `inferdock up` runs on this machine.")
    document: dict[str, Any] = json.loads(target.state.read_text(encoding="utf-8"))
    return target.state.parent.parent, document


async def kept(target: Target) -> list[Progress]:
    """The releases of the target's model, oldest first; a damaged journal is left out."""
    root, document = place(target)
    journals, found = journals_of(root, str(document["model"])), []
    for name in await journals.ids():
        try:
            found.append(await journals.progress(name))
        except IntegrityError:
            continue
    return found


def verdicts(progress: Progress, gate: str) -> list[Judged]:
    """What a gate said in a release, in order."""
    said = [event.entry for event in progress.judged if isinstance(event.entry, Judged)]
    return [entry for entry in said if entry.gate == gate]
