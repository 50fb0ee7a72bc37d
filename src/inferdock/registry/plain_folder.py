"""A folder that holds one version as plain files: which of them are ours, and the mark that it is complete (`pull`).

Whoever works on it holds the lock in ``.inferdock``. There too lie manifests of what we put into the folder, or are
about to: a file that one of them names is ours to remove. ``MANIFEST.json`` in the folder says that all is there.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from inferdock.domain.errors import IntegrityError
from inferdock.registry.disk import FILE_FLAGS, folder_in, is_at, on_disk, parent_of, try_lock
from inferdock.registry.manifest import MAX_MANIFEST_BYTES, Manifest, decode, sha256_of
from inferdock.registry.paths import MANIFEST, SIGNATURES

WORK: Final = ".inferdock"
_LOCK: Final = "lock"
_PLAN: Final = ".json"
_OF_THE_SYSTEM: Final = frozenset({"lost+found"})
"""What a new disk has at its top."""


@dataclass(slots=True)
class Survey:
    """What a folder holds.

    Attributes:
        complete: the mark is there, and nothing too much.
        ours: it holds a version, or held one.
        strays: paths that no manifest of ours names.
        leftovers: paths of ours that the version does not have.
        old_folders: folders that only other versions have.
    """

    complete: bool = False
    ours: bool = False
    strays: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    old_folders: list[str] = field(default_factory=list)


@contextmanager
def open_folder(target: Path, *, wait: Callable[[], None]) -> Iterator[PlainFolder]:
    """A folder to work on, made when it is not there; ``wait`` is called while another process works on it.

    Raises:
        ResourceError: it cannot be made or written.
    """
    with ExitStack() as stack:
        with on_disk(target):
            target.mkdir(parents=True, exist_ok=True)
            root = stack.enter_context(_opened(target))
            work = _enter(root, wait, stack)
        folder = PlainFolder(target, root, work)
        try:
            yield folder
        finally:
            with suppress(OSError):  # what is left there is looked at by the next pull
                folder.leave()


@contextmanager
def read_folder(target: Path) -> Iterator[PlainFolder]:
    """A folder to look at.

    Raises:
        OSError: it is not there, or not ours to read.
    """
    with _opened(target) as root:
        yield PlainFolder(target, root, -1)


@contextmanager
def _opened(target: Path) -> Iterator[int]:
    # The person named it, so a link to it is followed; from here on none is.
    fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def _enter(root: int, wait: Callable[[], None], stack: ExitStack) -> int:
    """Lock the folder of our work and return it; both are closed by ``stack``."""
    while True:
        with ExitStack() as undo, suppress(FileNotFoundError):  # whoever was before us has just removed it
            work = folder_in(root, WORK, make=True)
            undo.callback(os.close, work)
            lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | FILE_FLAGS, 0o644, dir_fd=work)
            undo.callback(os.close, lock)
            if try_lock(lock) and is_at(lock, _LOCK, work) and is_at(work, WORK, root):
                stack.push(undo.pop_all())
                return work
        wait()


class PlainFolder:
    """One folder.

    Args:
        target: what messages call it.
        root: its descriptor.
        work: descriptor of the folder of our work, locked; -1 when it is only looked at.
    """

    def __init__(self, target: Path, root: int, work: int) -> None:
        self.target = target
        self.root = root
        self.work = work

    def parent_of(self, path: str, *, make: bool = False) -> AbstractContextManager[tuple[int, str]]:
        """The folder of a file, and its name there; see :func:`disk.parent_of`."""
        return parent_of(self.root, path, make=make)

    def stat_partial(self, name: str) -> os.stat_result:
        """About a file that is half fetched; FileNotFoundError when there is none."""
        return os.stat(name, dir_fd=self.work, follow_symlinks=False)

    def survey(self, manifest: Manifest, data: bytes) -> Survey:
        """Sort what is there into the version's, ours and strays. Hidden files of others do not count.

        Raises:
            OSError: a folder cannot be read.
        """
        plans = self._plans()
        mark = _read(self.root, MANIFEST)
        earlier = [found for found in map(_manifest, [mark, *(_read(self.work, plan) for plan in plans)]) if found]
        survey = Survey(ours=bool(earlier))
        _Walk(manifest, earlier, survey).folder(self.root, "")
        survey.complete = mark == data and not plans and not survey.strays and not survey.leftovers
        return survey

    def plan(self, data: bytes) -> None:
        """Note what is about to be put here, and take the mark away."""
        name = sha256_of(data) + _PLAN
        draft = f"{name}.draft"
        with suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=self.work)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | FILE_FLAGS, 0o644, dir_fd=self.work)
        with open(fd, "wb") as file:
            file.write(data)
        os.rename(draft, name, src_dir_fd=self.work, dst_dir_fd=self.work)
        mark = _read(self.root, MANIFEST)
        with suppress(FileNotFoundError):
            if _manifest(mark) is None:
                os.unlink(MANIFEST, dir_fd=self.root)
            else:
                before = sha256_of(mark or b"") + _PLAN
                os.rename(MANIFEST, before, src_dir_fd=self.root, dst_dir_fd=self.work)

    def remove(self, survey: Survey) -> None:
        """Remove what is not the version's."""
        for path in [*survey.leftovers, *survey.strays]:
            with self.parent_of(path) as (folder, name):
                if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                    shutil.rmtree(name, dir_fd=folder)
                else:
                    os.unlink(name, dir_fd=folder)
        for path in sorted(survey.old_folders, reverse=True):  # the inner ones first
            with suppress(OSError), self.parent_of(path) as (folder, name):  # hidden files of others may be in it
                os.rmdir(name, dir_fd=folder)

    def complete(self, data: bytes) -> None:
        """Set the mark: all is there."""
        os.rename(sha256_of(data) + _PLAN, MANIFEST, src_dir_fd=self.work, dst_dir_fd=self.root)
        for plan in self._plans():
            os.unlink(plan, dir_fd=self.work)

    def leave(self) -> None:
        """Remove the folder of our work, unless the next pull needs what is in it."""
        if self._plans():
            return
        for name in sorted(os.listdir(self.work), key=lambda name: name == _LOCK):  # the lock last
            os.unlink(name, dir_fd=self.work)
        os.rmdir(WORK, dir_fd=self.root)

    def _plans(self) -> list[str]:
        return sorted(name for name in os.listdir(self.work) if name.endswith(_PLAN)) if self.work >= 0 else []


class _Walk:
    """Goes through a folder, and no further than manifests tell."""

    def __init__(self, manifest: Manifest, earlier: Iterable[Manifest], survey: Survey) -> None:
        self._files = {entry.path for entry in manifest.content.files}
        self._folders = _folders(self._files)
        self._old_files = {entry.path for one in earlier for entry in one.content.files} | {SIGNATURES}
        self._old_folders = _folders(self._old_files)
        self._survey = survey

    def folder(self, folder: int, prefix: str) -> None:
        """Sort everything in a folder."""
        with os.scandir(folder) as found:
            inner = [one.name for one in found if self._sort(prefix + one.name, one.is_dir(follow_symlinks=False))]
        for name in sorted(inner):
            fd = folder_in(folder, name, make=False)
            try:
                self.folder(fd, f"{prefix}{name}/")
            finally:
                os.close(fd)

    def _sort(self, path: str, is_folder: bool) -> bool:
        """Note a path that is not the version's; whether it is a folder to go into."""
        if is_folder and path in self._folders | self._old_folders:
            if path not in self._folders:
                self._survey.old_folders.append(path)
            return True
        if path in self._files and not is_folder:
            return False
        if path in self._old_files and not is_folder:
            self._survey.leftovers.append(path)
        elif not self._is_hidden(path):
            self._survey.strays.append(path)
        return False

    def _is_hidden(self, path: str) -> bool:
        """Whether nobody loads it, or it is our own."""
        known = path in self._files or path in self._folders
        hidden = path.rpartition("/")[2].startswith(".") and not known
        return hidden or path == MANIFEST or path in _OF_THE_SYSTEM


def _folders(files: Iterable[str]) -> set[str]:
    """Every folder that files lie in."""
    folders: set[str] = set()
    for path in files:
        while "/" in path:
            path = path.rpartition("/")[0]
            folders.add(path)
    return folders


def _read(folder: int, name: str) -> bytes | None:
    """A small file; None when there is none, or it is no file or too long to be a manifest."""
    try:
        fd = os.open(name, os.O_RDONLY | FILE_FLAGS, dir_fd=folder)
        with open(fd, "rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
    except OSError:
        return None
    return data if len(data) <= MAX_MANIFEST_BYTES else None


def _manifest(data: bytes | None) -> Manifest | None:
    try:
        return None if data is None else decode(data, what=MANIFEST)
    except IntegrityError:
        return None
