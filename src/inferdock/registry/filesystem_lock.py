"""Locks of a directory store: the kernel lets them go however their holder ends, so nobody has to break one.

``flock`` counts per open file, so threads of one process exclude each other too; Linux passes it on to the server of a
network file system. A lock's file stays: were it removed, two could hold two files of one name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from inferdock.domain.errors import ConflictError, ResourceError
from inferdock.registry.filesystem_disk import Disk, told

LOCKS: Final = "locks"
HOLDER_BYTES: Final = 500
"""Of the text that says who holds a lock; as much as a message shows."""
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


@contextlib.contextmanager
def held(disk: Disk, name: str, *, what: str, doing: str) -> Iterator[None]:
    """Hold a lock without waiting for it.

    Args:
        disk: the store.
        name: of the lock.
        what: what it is about, for the error.
        doing: what others' errors say that we do with it ("pushed right now by ada").

    Raises:
        ConflictError: somebody else holds it.
        ResourceError: the file system has no locks.
    """
    with told(disk.root, f"{LOCKS}/{name}"):
        lock = _open(disk, name)
    try:
        with told(disk.root, f"{LOCKS}/{name}"):
            if not _flock(lock, disk, fcntl.LOCK_EX | fcntl.LOCK_NB):
                raise ConflictError(
                    f"{what} is being {_holder(lock)}.", cure="Wait until that is done, then try again."
                )
            os.ftruncate(lock, 0)
            os.pwrite(lock, doing.encode("utf-8", "replace")[:HOLDER_BYTES], 0)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.close(lock)


@contextlib.contextmanager
def waited_for(disk: Disk, name: str) -> Iterator[None]:
    """Hold a lock that others hold for moments only; OSError where there are no locks."""
    lock = _open(disk, name)
    try:
        _flock(lock, disk, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _open(disk: Disk, name: str) -> int:
    with disk.folder(LOCKS, make=True) as folder:
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder)


def _flock(lock: int, disk: Disk, how: int) -> bool:
    try:
        fcntl.flock(lock, how)
    except BlockingIOError:
        return False
    except OSError as exc:
        if exc.errno not in _NO_LOCKS:
            raise
        raise ResourceError(
            f"The file system of {disk.root} has no locks, without which two pushes could mix.",
            cure="Mount it with locks, or name another store with --registry or `registry.url`.",
        ) from exc
    return True


def _holder(lock: int) -> str:
    """What the holder says of itself; anything may be in the file."""
    text = os.pread(lock, HOLDER_BYTES, 0).decode("utf-8", "replace")
    since = datetime.fromtimestamp(os.fstat(lock).st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return f"{shown} (since {since})" if shown else "changed by somebody else"
