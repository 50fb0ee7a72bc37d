"""Journals in files, a file for each release, synced to disk line by line.

A crash can leave half a line at the end. Nothing rested on it yet, so readers leave it out and the next writer cuts it
off. Anything else that is not right is refused: the file was changed by something that is no runner.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from inferdock.domain.errors import ConflictError, IntegrityError, ResourceError
from inferdock.release.events import Event
from inferdock.release.plan import ID, Plan
from inferdock.release.records.journal import (
    MAX_BYTES,
    By,
    Chain,
    Journal,
    Journals,
    checked_id,
    first_line,
    no_release,
)

SUFFIX: Final = ".jsonl"
FOLDER: Final = "releases"
"""Within the state of this machine's platforms; in it a folder for each model."""
_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def journals_of(root: Path, model: str) -> FileJournals:
    """All releases of a model on this machine.

    Args:
        root: where platforms keep their state.
        model: name that clients use.
    """
    return FileJournals(root / FOLDER / model.replace("/", "_"))


class FileJournals(Journals):
    """All releases of one platform: a folder with a file for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, release: str) -> Path:
        """The journal's file.

        Raises:
            ConfigError: that is no release's id.
        """
        return self.folder / f"{checked_id(release)}{SUFFIX}"

    async def ids(self) -> list[str]:
        """See `journal.Journals`."""
        with _told(self.folder):
            try:
                names = os.listdir(self.folder)
            except FileNotFoundError:
                return []
        return sorted(
            name.removesuffix(SUFFIX)
            for name in names
            if name.endswith(SUFFIX) and re.fullmatch(ID, name.removesuffix(SUFFIX))
        )

    async def create(self, plan: Plan, by: By, now: datetime, *, reason: str) -> Journal:
        """See `journal.Journals`."""
        path = self.path(plan.id)
        line = first_line(plan, by, now, reason)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with _told(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                _write_new(draft, line)
                os.link(draft, path)
            except FileExistsError:
                raise ConflictError(f"There is a release {plan.id} already.", cure="Choose another id.") from None
            finally:
                draft.unlink(missing_ok=True)
            _sync_folder(self.folder)
        return await self.open(plan.id)

    async def open(self, release: str) -> Journal:
        """See `journal.Journals`."""
        path = self._there(release)
        with _told(path):
            file = os.open(path, os.O_RDWR | _FLAGS)
        try:
            chain = _read(file, path)
            journal = FileJournal(path, file, chain)
            with _told(path):
                os.ftruncate(file, chain.size)
                os.fsync(file)
        except BaseException:
            os.close(file)
            raise
        return journal

    async def events(self, release: str) -> list[Event]:
        """See `journal.Journals`."""
        return self.look(release)

    def look(self, release: str) -> list[Event]:
        """The same as :meth:`events`, for who has no loop."""
        path = self._there(release)
        with _told(path):
            descriptor = os.open(path, os.O_RDONLY | _FLAGS)
        with open(descriptor, "rb") as file:
            return _read(file.fileno(), path).events

    def _there(self, release: str) -> Path:
        path = self.path(release)
        if not path.exists():
            raise no_release(release)
        return path


class FileJournal(Journal):
    """One release's file."""

    def __init__(self, path: Path, file: int, chain: Chain) -> None:
        super().__init__(chain)
        self._path = path
        self._file = file

    async def _keep(self, seq: int, line: bytes) -> None:
        # After a failed fsync the kernel may have dropped the pages and would call the next one a success.
        with _told(self._path):
            view, at = memoryview(line), self.size
            while view:
                written = os.pwrite(self._file, view, at)
                view, at = view[written:], at + written
            os.fsync(self._file)

    async def close(self) -> None:
        """Let the file go."""
        os.close(self._file)


def _read(file: int, path: Path) -> Chain:
    """Every whole line, its chain checked."""
    with _told(path):
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            raise IntegrityError(f"{path} is no journal: too long, or no file.", cure="Move it away.")
        data = _all(file, status.st_size)
    chain = Chain(str(path))
    at = 0
    while end := data.find(b"\n", at) + 1:
        chain.take(data[at:end])
        at = end
    return chain


def _all(file: int, size: int) -> bytes:
    parts = []
    at = 0
    while at < size and (part := os.pread(file, size - at, at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _write_new(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)  # a crash of a process of this number may have left one
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """What the system says about the file becomes a :class:`ResourceError` that names it."""
    try:
        yield
    except OSError as exc:
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = "Make room on the disk, then resume." if full else "Check its owner and permissions."
        raise ResourceError(f"{path} cannot be used: {exc.strerror or exc}.", cure=cure) from exc
