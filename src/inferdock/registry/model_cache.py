"""The cache of models that were pulled: files by their digest, and a folder of links for each revision.

::

    ROOT/blobs/sha256/ab/<digest>           the bytes, read-only; <digest>.partial while they are fetched
    ROOT/revisions/<revision>/              relative links to them under their own names, and MANIFEST.json
    ROOT/lock                               held while a folder of links is made

A folder of a revision appears when every byte behind it was compared with the manifest. Disks rot and people edit, so
:meth:`ModelCache.verified` compares again before an engine is started. Several processes may use one cache.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from inferdock.domain.errors import IntegrityError
from inferdock.registry import revision_folder
from inferdock.registry.disk import FOLDER_FLAGS, Look, State, check_room, identity, look, on_disk
from inferdock.registry.fetch import CHUNK, Pause, Source, Wanted
from inferdock.registry.gather import Pulled, Ways, checked, gather, looks, refuse_wrong
from inferdock.registry.manifest import FileEntry, Manifest
from inferdock.registry.partial import Partial
from inferdock.registry.progress import Progress
from inferdock.registry.store import Moved, Store

_READ_ONLY: Final = 0o444


class ModelCache:
    """One cache.

    Args:
        root: its folder, made when it is not there.
        threads: files or ranges worked on at once.
        chunk: bytes of a range.
        pause: waits; tests pass another way.
    """

    def __init__(self, root: Path, *, threads: int, chunk: int = CHUNK, pause: Pause = time.sleep) -> None:
        self._root = root
        self._threads = threads
        self._chunk = chunk
        self._pause = pause

    @property
    def root(self) -> Path:
        """The cache's folder."""
        return self._root

    def folder(self, revision: str) -> Path:
        """Where the folder of a revision is, or would be."""
        return revision_folder.folder_of(self._root, revision)

    def pull(self, store: Store, manifest: Manifest, progress: Progress) -> Pulled:
        """Fetch what is missing or damaged of a version, and compare every byte of the rest.

        Raises:
            IntegrityError: the store has other bytes than the manifest says, or the manifest contradicts itself.
            UnreachableError: the store was lost; what was fetched stays for the next try.
            ResourceError: the disk is full or too small, or not ours to write.
        """
        data = checked(manifest)
        entries = _distinct(manifest.content.files)
        ways = self._ways(progress)
        shelf = _Blobs(self._root)
        with on_disk(self._root):
            shelf.prepare(entries)
        source = Source(store, manifest.name, manifest.version)
        folder = self.folder(manifest.revision)
        pulled = gather(source, shelf, entries, looks(shelf, entries, ways), folder=folder, ways=ways)
        with on_disk(self._root):
            revision_folder.publish(self._root, manifest, data)
        return pulled

    def verified(self, manifest: Manifest, progress: Progress) -> Path | None:
        """The folder of a version, every byte of it compared with the manifest; None when it was never pulled.

        A damaged file is removed, so that nobody loads it and the next pull fetches it again.

        Raises:
            IntegrityError: a file is damaged or missing; names it.
            ResourceError: a file cannot be read.
        """
        data = checked(manifest)
        if not os.path.lexists(self.folder(manifest.revision)):
            return None
        entries = _distinct(manifest.content.files)
        shelf = _Blobs(self._root)
        found = looks(shelf, entries, self._ways(progress))
        for entry, what in zip(entries, found, strict=True):
            if what.state is State.WRONG:
                shelf.remove(entry, what)
        refuse_wrong(manifest, entries, found, self._root)
        with on_disk(self._root):
            return revision_folder.publish(self._root, manifest, data)

    def _ways(self, progress: Progress) -> Ways:
        return Ways(threads=self._threads, progress=progress, chunk=self._chunk, pause=self._pause)


def _distinct(files: Iterable[FileEntry]) -> list[FileEntry]:
    """One file for each digest."""
    entries: dict[str, FileEntry] = {}
    for entry in files:
        first = entries.setdefault(entry.sha256, entry)
        if first.size != entry.size:
            raise IntegrityError(
                f"The manifest gives {first.path} and {entry.path} one digest, and two sizes.",
                cure="Push the model again under a new version.",
            )
    return list(entries.values())


class _Blobs:
    """The cache's files, as a shelf."""

    def __init__(self, root: Path) -> None:
        self.where = root

    def prepare(self, entries: Iterable[FileEntry]) -> None:
        """Make the folders."""
        for digest in {entry.sha256[:2] for entry in entries}:
            (self.where / revision_folder.BLOBS / digest).mkdir(parents=True, exist_ok=True)

    def has(self, entry: FileEntry) -> bool:
        return os.path.lexists(self._path(entry))

    def look(self, entry: FileEntry, moved: Moved) -> Look:
        try:
            folder = self._open_folder(entry)
        except FileNotFoundError:
            return Look(State.MISSING)
        try:
            return look(folder, entry.sha256, entry, moved)
        finally:
            os.close(folder)

    def begun(self, entry: FileEntry) -> int:
        try:
            return min(entry.size, os.lstat(f"{self._path(entry)}.partial").st_blocks * 512)
        except FileNotFoundError:
            return 0

    def check_room(self, needed: int) -> None:
        folder = os.open(self.where, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        try:
            check_room(folder, needed, self.where)
        finally:
            os.close(folder)

    def wanted(self, entry: FileEntry, found: Look, chunk: int) -> Wanted:
        return Wanted(entry, lambda: self._begin(entry, found, chunk), lambda partial: self._keep(entry, partial))

    def remove(self, entry: FileEntry, found: Look) -> None:
        """Remove a damaged file, unless another process has replaced it, or is about to."""
        with suppress(OSError):  # a cache that we may only read is no reason to say less about the damage
            partial = self._partial(entry, CHUNK)
            if partial is not None:
                try:
                    if not self._is_other(entry, found):
                        self._path(entry).unlink()
                finally:
                    partial.close()

    def _path(self, entry: FileEntry) -> Path:
        return self.where / revision_folder.blob_path(entry.sha256)

    def _open_folder(self, entry: FileEntry) -> int:
        return os.open(self._path(entry).parent, FOLDER_FLAGS)

    def _partial(self, entry: FileEntry, chunk: int) -> Partial | None:
        folder = self._open_folder(entry)
        return Partial.open(folder, f"{entry.sha256}.partial", size=entry.size, chunk=chunk)

    def _begin(self, entry: FileEntry, found: Look, chunk: int) -> Partial | None:
        with ExitStack() as undo:
            partial = self._partial(entry, chunk)
            if partial is None:
                return None
            undo.callback(partial.close)
            if self._is_other(entry, found):  # another process was quicker
                partial.discard()
                return None
            undo.pop_all()
            return partial

    def _is_other(self, entry: FileEntry, found: Look) -> bool:
        """Whether another file lies there than the one that was looked at."""
        try:
            return identity(os.lstat(self._path(entry))) != found.identity
        except FileNotFoundError:
            return False

    def _keep(self, entry: FileEntry, partial: Partial) -> None:
        folder = self._open_folder(entry)
        try:
            partial.keep(folder, entry.sha256, _READ_ONLY)
        finally:
            os.close(folder)
