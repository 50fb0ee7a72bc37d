"""Reads every byte of a version where it is stored and compares it with the manifest."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from inferdock.domain.errors import IntegrityError
from inferdock.registry.manifest import FileEntry
from inferdock.registry.parallel import Crew
from inferdock.registry.progress import Progress
from inferdock.registry.registry import Registry, Version
from inferdock.registry.store import BLOCK, Moved, Place, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A file that is not what the manifest says, and how."""

    path: str
    fault: str


def verify(registry: Registry, version: Version, progress: Progress) -> list[Fault]:
    """Every file of a version that is missing or has other bytes, in order; none when all is well.

    Manifest and signature were checked when ``version`` was read.

    Raises:
        UnreachableError: the store was lost on the way.
    """
    entries = version.manifest.content.files
    progress.begin("Verifying", sum(entry.size for entry in entries), len(entries))
    crew = Crew(registry.threads)

    def check(entry: FileEntry) -> Fault | None:
        place = Place(version.manifest.name, version.manifest.version, entry.path)
        fault = _fault(registry.store, place, entry, crew.telling(progress, entry.path))
        progress.done(entry.path)
        return Fault(path=entry.path, fault=fault) if fault else None

    return [fault for fault in crew.map(check, entries) if fault is not None]


def _fault(store: Store, place: Place, entry: FileEntry, moved: Moved) -> str:
    digest, size = hashlib.sha256(), 0
    try:
        with store.open(place) as reader:
            while block := reader.read(BLOCK):
                digest.update(block)
                size += len(block)
                moved(len(block))
                if size > entry.size:
                    return f"is longer than the {entry.size} bytes that were pushed"
    except IntegrityError:
        return "is missing"
    if size != entry.size:
        return f"has {size} bytes, not the {entry.size} that were pushed"
    return "" if digest.hexdigest() == entry.sha256 else "has other bytes than were pushed"
