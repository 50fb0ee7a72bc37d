"""Brings the files of a version to where they are wanted: what is there is compared, the rest fetched.

Used by the cache (`model_cache`) and by whoever wants plain files in a folder (`pull`): each is a :class:`Shelf`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from inferdock.domain.errors import IntegrityError
from inferdock.registry.disk import Look, State, on_disk
from inferdock.registry.fetch import CHUNK, Fetcher, Pause, Source, Wanted
from inferdock.registry.manifest import FileEntry, Manifest, decode, encode
from inferdock.registry.parallel import Crew
from inferdock.registry.progress import Progress
from inferdock.registry.store import Moved

POLL_S: Final = 0.2
"""How often is looked whether another process has finished a file."""


class Shelf(Protocol):
    """Where files are to lie."""

    @property
    def where(self) -> Path:
        """What messages call it."""
        ...

    def has(self, entry: FileEntry) -> bool:
        """Whether something lies in a file's place."""
        ...

    def look(self, entry: FileEntry, moved: Moved) -> Look:
        """Compare what lies there with the manifest."""
        ...

    def begun(self, entry: FileEntry) -> int:
        """Bytes on the disk that an earlier try fetched of a file."""
        ...

    def check_room(self, needed: int) -> None:
        """ResourceError where fewer bytes are free."""
        ...

    def wanted(self, entry: FileEntry, found: Look, chunk: int) -> Wanted:
        """How to fetch a file in whose place ``found`` was."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What a pull did. In the cache, equal files count once.

    Attributes:
        folder: where the version is now.
        fetched_files, fetched_bytes: what came from the store.
        present_files, present_bytes: what was there and right; the bytes count parts that an earlier try left.
        damaged: paths of files that were there with other bytes, and were replaced.
    """

    folder: Path
    fetched_files: int = 0
    fetched_bytes: int = 0
    present_files: int = 0
    present_bytes: int = 0
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """How files are gathered: threads, whom to tell, bytes of a range, and how to wait (tests pass another way)."""

    threads: int
    progress: Progress
    chunk: int = CHUNK
    pause: Pause = time.sleep


def checked(manifest: Manifest) -> bytes:
    """The bytes of a manifest, all of its rules checked again: its paths are about to become files.

    Raises:
        IntegrityError: it is none.
    """
    data = encode(manifest)
    decode(data, what=f"The manifest of {manifest.name[:150]}@{manifest.version[:150]}")
    return data


def looks(shelf: Shelf, entries: Sequence[FileEntry], ways: Ways) -> list[Look]:
    """Compare files with the manifest, every byte, in the order of ``entries``.

    Raises:
        ResourceError: they cannot be read.
    """
    there = [shelf.has(entry) for entry in entries]
    if any(there):
        size = sum(entry.size for entry, has in zip(entries, there, strict=True) if has)
        ways.progress.begin("Checking", size, sum(there))
    crew = Crew(ways.threads)

    def compare(entry: FileEntry) -> Look:
        crew.check()
        with on_disk(shelf.where):
            found = shelf.look(entry, crew.telling(ways.progress, entry.path))
        if found.state is not State.MISSING:
            ways.progress.done(entry.path)
        return found

    if not any(there):
        return [Look(State.MISSING)] * len(entries)
    return crew.map(compare, entries)


def gather(
    source: Source, shelf: Shelf, entries: Sequence[FileEntry], found: Sequence[Look], *, folder: Path, ways: Ways
) -> Pulled:
    """Fetch what :func:`looks` did not find right, until all is right; ``folder`` is for the answer.

    Raises:
        IntegrityError: the store has other bytes, or two sizes for one digest.
        UnreachableError: the store was lost; what was fetched stays.
        ResourceError: the disk is full, or not ours to write.
    """
    lacking = [(e, f) for e, f in zip(entries, found, strict=True) if f.state is not State.RIGHT]
    damaged = tuple(entry.path for entry, look in lacking if look.state is State.WRONG)
    with on_disk(shelf.where):
        shelf.check_room(sum(max(0, entry.size - shelf.begun(entry)) for entry, _ in lacking))
    fetched_files = fetched = resumed = 0
    while lacking:
        ways.progress.begin("Fetching", sum(entry.size for entry, _ in lacking), len(lacking))
        fetcher = Fetcher(
            source, shelf.where, threads=ways.threads, progress=ways.progress, chunk=ways.chunk, pause=ways.pause
        )
        busy = [one.entry for one in fetcher.fetch(shelf.wanted(entry, look, ways.chunk) for entry, look in lacking)]
        fetched_files += len(lacking) - len(busy)
        fetched += fetcher.fetched_bytes
        resumed += fetcher.resumed_bytes
        lacking = _wait(shelf, busy, ways) if busy else []
    right = sum(e.size for e, f in zip(entries, found, strict=True) if f.state is State.RIGHT)
    return Pulled(
        folder=folder,
        fetched_files=fetched_files,
        fetched_bytes=fetched,
        present_files=len(entries) - fetched_files,
        present_bytes=right + resumed,
        damaged=damaged,
    )


def _wait(shelf: Shelf, busy: Sequence[FileEntry], ways: Ways) -> list[tuple[FileEntry, Look]]:
    """Files that another process was at, and that are still not right."""
    ways.progress.begin("Waiting for another pull", sum(entry.size for entry in busy), len(busy))
    ways.pause(POLL_S)
    found = looks(shelf, busy, ways)
    return [(entry, look) for entry, look in zip(busy, found, strict=True) if look.state is not State.RIGHT]


def refuse_wrong(
    manifest: Manifest, entries: Sequence[FileEntry], found: Sequence[Look], where: Path, *, options: str = ""
) -> None:
    """Name the first file that is not right; ``options`` are those of the command that fetches it again.

    Raises:
        IntegrityError: there is one.
    """
    wrong = [(e, f) for e, f in zip(entries, found, strict=True) if f.state is not State.RIGHT]
    if not wrong:
        return
    entry, look = wrong[0]
    how = "is missing" if look.state is State.MISSING else "has other bytes than were pushed"
    more = f", and so it is with {len(wrong) - 1} more" if len(wrong) > 1 else ""
    version = f"{manifest.name}@{manifest.version}"
    raise IntegrityError(
        f"{entry.path} of {version} {how} in {where}{more}.",
        cure=f"Fetch it again: inferdock model pull {version}{options}",
    )
