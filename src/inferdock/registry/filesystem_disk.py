"""The folder of a directory store, and the only way to it: no link is followed out of it, every change is durable.

Paths are relative to the store's root, POSIX. Each of their folders is opened below the one before without following
links, so a link that somebody planted in a shared store leads nowhere. Used by `filesystem`, `filesystem_history`,
`filesystem_lock` and `filesystem_upload`; errors of the system are translated in :func:`told` alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from inferdock.domain.errors import IntegrityError, ResourceError, UnreachableError
from inferdock.registry.hashing import check_regular

TRASH: Final = "staging/.trash"
"""Folders that are being deleted."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Non-blocking, so that a named pipe in a file's place cannot hold us up.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_ONLY: Final = 0o444
NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
"""What a system answers that cannot give this file a second name."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_ODD: Final = frozenset(
    {0, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EXDEV, errno.ENXIO}
)


@contextlib.contextmanager
def told(root: Path, path: str = "") -> Iterator[None]:
    """Turn an error of the system into ours.

    Args:
        root: the store.
        path: what is worked on, for the message.

    Raises:
        ResourceError: the store is full, not ours to use, or not what a store is.
        UnreachableError: disk or network failed.
    """
    try:
        yield
    except OSError as exc:
        where = root / path
        reason = os.strerror(exc.errno) if exc.errno else exc.strerror
        if exc.errno in _FULL:
            raise ResourceError(
                f"The store {root} is full: {reason}.", cure="Free space there, then try again; nothing is half there."
            ) from exc
        if exc.errno in _REFUSED:
            raise ResourceError(
                f"{where} cannot be used: {reason}.",
                cure="Give this user access, or name another store with --registry or `registry.url`.",
            ) from exc
        if exc.errno in _ODD:
            raise ResourceError(
                f"{where} is not what a store has there: {reason} (links are not followed).",
                cure="Move it away, or name another store with --registry or `registry.url`.",
            ) from exc
        raise UnreachableError(
            f"The store {root} failed at {path or 'its folder'}: {reason}.", cure="Check the disk or the network mount."
        ) from exc


class Disk:
    """Folders and files below one root. Methods raise OSError where they say nothing else.

    Args:
        root: the store's folder; made when something is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def folder(self, path: str, *, make: bool = False) -> Iterator[int]:
        """A folder as a file descriptor, for the ``dir_fd`` of calls.

        Args:
            make: make what is missing.
        """
        fd = self._open_root(make=make)
        try:
            for part in path.split("/") if path else ():
                inner = _enter(fd, part, make=make)
                os.close(fd)
                fd = inner
            yield fd
        finally:
            os.close(fd)

    def _open_root(self, *, make: bool) -> int:
        try:
            return os.open(self.root, _FOLDER)
        except FileNotFoundError:
            if not make:
                raise
        self.root.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # durable as far as we may say so: the folder above need not be ours
            above = os.open(self.root.parent, _FOLDER)
            try:
                os.fsync(above)
            finally:
                os.close(above)
        return os.open(self.root, _FOLDER)

    @contextlib.contextmanager
    def file(self, path: str) -> Iterator[int]:
        """A regular file to read, as a file descriptor."""
        above, _, name = path.rpartition("/")
        with self.folder(above) as folder:
            fd = os.open(name, _READ, dir_fd=folder)
        try:
            check_regular(fd)
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def draft(self, path: str) -> Iterator[int]:
        """A new file to write, in the place of one of this name; durable at the end, gone when the writing fails.

        It can be read by whom the umask lets, and written by nobody once it is closed.
        """
        above, _, name = path.rpartition("/")
        with self.folder(above, make=True) as folder:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            fd = os.open(name, _NEW, _READ_ONLY, dir_fd=folder)
            try:
                yield fd
                os.fsync(fd)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=folder)
                raise
            finally:
                os.close(fd)

    def move(self, source: str, target: str) -> None:
        """Rename a file or folder, over a file of this name; folders above the target are made."""
        (above, _, name), (below, _, new) = source.rpartition("/"), target.rpartition("/")
        with self.folder(above) as there, self.folder(below, make=True) as here:
            os.rename(name, new, src_dir_fd=there, dst_dir_fd=here)

    def link(self, source: str, target: str) -> None:
        """Give a file a second name; FileExistsError when that is taken."""
        (above, _, name), (below, _, new) = source.rpartition("/"), target.rpartition("/")
        with self.folder(above) as there, self.folder(below, make=True) as here:
            os.link(name, new, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)

    def unlink(self, path: str) -> None:
        """Remove a file; one that is not there is no failure."""
        above, _, name = path.rpartition("/")
        with contextlib.suppress(FileNotFoundError), self.folder(above) as folder:
            os.unlink(name, dir_fd=folder)

    def exists(self, path: str) -> bool:
        """Whether there is anything of this name."""
        above, _, name = path.rpartition("/")
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), self.folder(above) as folder:
            os.stat(name, dir_fd=folder, follow_symlinks=False)
            return True
        return False

    def listing(self, path: str) -> list[str]:
        """Names in a folder, in order; none where there is no folder."""
        with contextlib.suppress(FileNotFoundError), self.folder(path) as folder:
            return sorted(os.listdir(folder))
        return []

    def sync(self, path: str) -> None:
        """Make the names in a folder durable."""
        with self.folder(path) as folder:
            fsync_folder(folder)

    def same(self, one: str, other: str) -> bool:
        """Whether two names are one file."""
        with self.file(one) as first, self.file(other) as second:
            return os.path.samestat(os.fstat(first), os.fstat(second))

    def discard(self, path: str) -> None:
        """Delete a file or a folder with all in it: first its name goes, so that nobody sees half of it."""
        if self.exists(path):
            with contextlib.suppress(FileNotFoundError):
                self.move(path, f"{TRASH}/{secrets.token_hex(16)}")
                self.sync(path.rpartition("/")[0])
        with contextlib.suppress(FileNotFoundError), self.folder(TRASH) as trash:
            for name in os.listdir(trash):  # also what somebody left who died here
                _delete(trash, name)


def write_all(fd: int, data: bytes) -> None:
    """Write all of it, however often a write is cut short."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def read_all(fd: int, limit: int) -> bytes:
    """The bytes of a file; one more than ``limit`` where there are more."""
    with open(fd, "rb", closefd=False) as file:
        return file.read(limit + 1)


def read_file(folder: int, name: str, limit: int, *, what: str) -> bytes:
    """The bytes of a small file in an open folder.

    Raises:
        FileNotFoundError: there is none.
        IntegrityError: it is no regular file.
    """
    try:
        fd = os.open(name, _READ, dir_fd=folder)
    except OSError as exc:
        if exc.errno != errno.ELOOP:
            raise
        raise IntegrityError(f"{what} is a link, not a file.", cure="Restore it from a backup of the store.") from exc
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise IntegrityError(f"{what} is not a file.", cure="Restore it from a backup of the store.")
        return read_all(fd, limit)
    finally:
        os.close(fd)


def fsync_folder(folder: int) -> None:
    """Make the names in an open folder durable, where the file system can say so."""
    try:
        os.fsync(folder)
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise


def _enter(above: int, name: str, *, make: bool) -> int:
    if name in ("", ".", ".."):
        raise ValueError(f"{name!r} is no folder below another")
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=above)
    except FileNotFoundError:
        if not make:
            raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=above)
    fsync_folder(above)
    return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=above)


def _delete(folder: int, name: str) -> None:
    """Delete a file or a tree; what somebody else deletes meanwhile is gone as well."""
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if not stat.S_ISDIR(mode):
            os.unlink(name, dir_fd=folder)
            return
        if mode & stat.S_IRWXU != stat.S_IRWXU:  # what is in a folder without write permission could not go
            os.chmod(name, stat.S_IRWXU, dir_fd=folder)
        fd = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        try:
            for inner in os.listdir(fd):
                _delete(fd, inner)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=folder)
