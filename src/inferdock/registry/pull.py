"""Fetches a version as plain files into a folder, for instance in an init container on Kubernetes.

``MANIFEST.json`` is written last: where it lies, the folder is complete. While the folder is worked on, ``.inferdock``
in it holds a lock, what is half fetched, and the manifests of what we put there, so that a pull that was cut goes on,
and a pull of another version knows which files are ours to remove. No link is followed below the folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path
from typing import Final

from inferdock.domain.errors import ModelError
from inferdock.registry.disk import Look, State, check_room, look, on_disk, trouble
from inferdock.registry.fetch import CHUNK, Pause, Source, Wanted
from inferdock.registry.gather import POLL_S, Pulled, Ways, checked, gather, looks, refuse_wrong
from inferdock.registry.manifest import FileEntry, Manifest
from inferdock.registry.partial import Partial
from inferdock.registry.plain_folder import PlainFolder, Survey, open_folder, read_folder
from inferdock.registry.progress import Progress
from inferdock.registry.store import Moved, Store

_MODE: Final = 0o644
_SHOWN: Final = 3
_NO_FOLDER: Final = frozenset({errno.ENOTDIR, errno.ELOOP})
"""A link or a file where a folder should be: the file is not there."""


def pull_to(
    store: Store,
    manifest: Manifest,
    target: Path,
    *,
    threads: int,
    progress: Progress,
    force: bool = False,
    chunk: int = CHUNK,
    pause: Pause = time.sleep,
) -> Pulled:
    """Make a folder hold the files of a version, and no others; right ones stay, wrong ones are replaced.

    Hidden files are left alone; engines do not load them.

    Args:
        store: where from.
        manifest: of the version.
        target: the folder, made when it is not there.
        threads: files or ranges worked on at once.
        progress: told how far it is.
        force: remove files that are not the version's, from a folder that held a version before.
        chunk: bytes of a range.
        pause: waits; tests pass another way.

    Raises:
        ModelError: the folder holds files that are not the version's.
        IntegrityError: the store has other bytes than the manifest says.
        UnreachableError: the store was lost; what was fetched stays for the next try.
        ResourceError: the disk is full or too small, or not ours to write.
    """
    data = checked(manifest)
    ways = Ways(threads=threads, progress=progress, chunk=chunk, pause=pause)
    with open_folder(target, wait=lambda: _wait(ways)) as folder:
        with on_disk(target):
            survey = folder.survey(manifest, data)
        _refuse_strays(survey, manifest, target, force=force)
        shelf = _Files(folder)
        entries = manifest.content.files
        found = looks(shelf, entries, ways)
        settled = survey.complete and all(one.state is State.RIGHT for one in found)
        if not settled:
            with on_disk(target):
                folder.plan(data)
                folder.remove(survey)
        source = Source(store, manifest.name, manifest.version)
        pulled = gather(source, shelf, entries, found, folder=target, ways=ways)
        if not settled:
            with on_disk(target):
                folder.complete(data)
        return pulled


def _wait(ways: Ways) -> None:
    ways.progress.begin("Waiting for another pull", 0, 0)
    ways.pause(POLL_S)


def _refuse_strays(survey: Survey, manifest: Manifest, target: Path, *, force: bool) -> None:
    if not survey.strays or (force and survey.ours):
        return
    shown = ", ".join(repr(path[:200]) for path in survey.strays[:_SHOWN])
    more = f" and {len(survey.strays) - _SHOWN} more" if len(survey.strays) > _SHOWN else ""
    cure = "Choose an empty folder" + (", or remove them with --force." if survey.ours else ".")
    raise ModelError(
        f"{target} holds files that are not those of {manifest.name}@{manifest.version}, and an engine might load "
        f"them: {shown}{more}.",
        cure=cure,
    )


def verify_folder(manifest: Manifest, target: Path, *, threads: int, progress: Progress) -> None:
    """Compare every byte of a folder that :func:`pull_to` made, before an engine is started on it.

    Raises:
        IntegrityError: a file is damaged or missing; names it.
        ModelError: the folder holds files that are not the version's, which an engine might load.
        ResourceError: the folder or a file cannot be read.
    """
    data = checked(manifest)
    with on_disk(target), read_folder(target) as folder:
        survey = folder.survey(manifest, data)
        survey.strays += survey.leftovers  # another version's, which the engine would load as well
        _refuse_strays(survey, manifest, target, force=False)
        entries = manifest.content.files
        found = looks(_Files(folder), entries, Ways(threads=threads, progress=progress))
        refuse_wrong(manifest, entries, found, target, options=f" --to {target}")


class _Files:
    """The files of a plain folder, as a shelf."""

    def __init__(self, folder: PlainFolder) -> None:
        self.where = folder.target
        self._folder = folder

    def has(self, entry: FileEntry) -> bool:
        try:
            with self._folder.parent_of(entry.path) as (folder, name):
                os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as exc:
            if exc.errno in _NO_FOLDER:
                return False
            raise trouble(exc, self.where) from exc
        return True

    def look(self, entry: FileEntry, moved: Moved) -> Look:
        if not self.has(entry):
            return Look(State.MISSING)
        with self._folder.parent_of(entry.path) as (folder, name):
            return look(folder, name, entry, moved)

    def begun(self, entry: FileEntry) -> int:
        try:
            return min(entry.size, self._folder.stat_partial(_partial_name(entry)).st_blocks * 512)
        except FileNotFoundError:
            return 0

    def check_room(self, needed: int) -> None:
        check_room(self._folder.root, needed, self.where)

    def wanted(self, entry: FileEntry, found: Look, chunk: int) -> Wanted:
        return Wanted(entry, lambda: self._begin(entry, chunk), lambda partial: self._keep(entry, partial))

    def _begin(self, entry: FileEntry, chunk: int) -> Partial | None:
        return Partial.open(os.dup(self._folder.work), _partial_name(entry), size=entry.size, chunk=chunk)

    def _keep(self, entry: FileEntry, partial: Partial) -> None:
        with self._folder.parent_of(entry.path, make=True) as (folder, name):
            partial.keep(folder, name, _MODE)


def _partial_name(entry: FileEntry) -> str:
    """Of its own for each path and content."""
    return hashlib.sha256(f"{entry.path}\0{entry.sha256}".encode()).hexdigest() + ".partial"
