"""This machine's disk, for whoever fetches: its failures in words, room on it, locks, and files compared with a digest.

Folders are file descriptors here, so that a link that somebody plants in a path meanwhile leads nowhere.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inferdock.domain.errors import ResourceError
from inferdock.registry.hashing import fd_sha256
from inferdock.registry.manifest import FileEntry
from inferdock.registry.store import Moved

FILE_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""No link is followed, and a named pipe in a file's place cannot hold us up."""
FOLDER_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS})
_UNREADABLE: Final = frozenset({errno.EIO, errno.ELOOP, errno.EISDIR, errno.ENXIO})

Identity = tuple[int, int]
"""Tells one file from another in its place: device and inode."""


@contextlib.contextmanager
def on_disk(where: Path | str) -> Iterator[None]:
    """What the system says about a folder of ours becomes a :class:`ResourceError` that names it."""
    try:
        yield
    except OSError as exc:
        raise trouble(exc, where) from exc


def trouble(exc: OSError, where: Path | str) -> ResourceError:
    """A failure of the system in words."""
    if exc.errno in _FULL:
        return ResourceError(
            f"The disk of {where} is full.", cure="Make room on it and run the command again: it goes on from here."
        )
    if exc.errno in _NO_LOCKS:
        return ResourceError(f"The file system of {where} cannot lock files.", cure="Choose a folder on a local disk.")
    return ResourceError(
        f"{where} cannot be used: {exc.strerror or exc}.", cure="Check its owner and permissions, or choose another."
    )


def check_room(folder: int, needed: int, where: Path | str) -> None:
    """Refuse what does not fit, before anything is fetched.

    Raises:
        ResourceError: fewer than ``needed`` bytes are free.
    """
    figures = os.fstatvfs(folder)
    free = figures.f_bavail * figures.f_frsize
    if needed > free:
        raise ResourceError(
            f"{where} has room for {free / 1e9:.1f} GB, and {needed / 1e9:.1f} GB are still to be fetched.",
            cure=f"Free {(needed - free) / 1e9:.1f} GB there, or choose a folder on another disk.",
        )


def try_lock(fd: int) -> bool:
    """Lock an open file until it is closed or the process dies; False when another one holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def identity(status: os.stat_result) -> Identity:
    """Which file it is."""
    return status.st_dev, status.st_ino


def is_at(fd: int, name: str, folder: int) -> bool:
    """Whether an open file is still the one of that name: another process may have renamed or removed it."""
    try:
        return identity(os.fstat(fd)) == identity(os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return False


def folder_in(folder: int, name: str, *, make: bool) -> int:
    """Open a folder in a folder, which is no link.

    Raises:
        OSError: it is something else, or not there and not to be made.
    """
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=folder)
    return os.open(name, FOLDER_FLAGS, dir_fd=folder)


@contextlib.contextmanager
def parent_of(root: int, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
    """The folder that a path lies in, below ``root`` and through no link, and the file's name there.

    Raises:
        OSError: a folder on the way is none, or not there and not to be made.
    """
    *above, name = path.split("/")
    folder = os.dup(root)
    try:
        for part in above:
            inner = folder_in(folder, part, make=make)
            os.close(folder)
            folder = inner
        yield folder, name
    finally:
        os.close(folder)


class State(enum.Enum):
    """What lies where a file should be."""

    RIGHT = "right"
    MISSING = "missing"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Look:
    """What was found in a file's place; ``identity`` is that of a wrong file."""

    state: State
    identity: Identity | None = None


def look(folder: int, name: str, entry: FileEntry, moved: Moved) -> Look:
    """Compare what lies in a file's place with the manifest, every byte of it. A link is wrong wherever it leads.

    Raises:
        OSError: we may not read it.
    """
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return Look(State.MISSING)
    wrong = Look(State.WRONG, identity(status))
    if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
        return wrong
    try:
        fd = os.open(name, os.O_RDONLY | FILE_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        return Look(State.MISSING)
    try:
        wrong = Look(State.WRONG, identity(os.fstat(fd)))
        return Look(State.RIGHT) if fd_sha256(fd, moved) == entry.sha256 else wrong
    except OSError as exc:
        if exc.errno in _UNREADABLE:  # a bad sector: as good as other bytes
            return wrong
        raise
    finally:
        os.close(fd)
