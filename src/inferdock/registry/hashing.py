"""Hashes files, and copies them with the digest taken on the way, in blocks that are used again.

Called by whoever pushes, pulls or verifies. ``hashlib`` and the reads let other threads run, so several files are
hashed at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from inferdock.registry.store import BLOCK, Moved

ReadInto = Callable[[memoryview], int]
"""Fills the beginning of a buffer; says how many bytes came, 0 at the end."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What went through a copy: the digest (64 hex digits) and the number of bytes."""

    sha256: str
    size: int


def file_sha256(path: Path, moved: Moved) -> str:
    """SHA-256 of a file, 64 hex digits.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    with opened(path) as fd:
        return fd_sha256(fd, moved)


def fd_sha256(fd: int, moved: Moved) -> str:
    """SHA-256 of an open file from where it stands to its end, 64 hex digits.

    Raises:
        OSError: it cannot be read.
    """
    total = hashlib.sha256()
    buffer = memoryview(bytearray(BLOCK))
    while count := os.readv(fd, [buffer]):
        total.update(buffer[:count])
        moved(count)
    return total.hexdigest()


def copy_hashed(read: ReadInto, target: int, moved: Moved, *, limit: int) -> Copied:
    """Write what ``read`` gives to an open file, and hash the very bytes that are written.

    Args:
        read: gives the bytes; what it raises ends the copy.
        target: file descriptor; written from where it stands.
        limit: bytes that are expected. A source that has more is left as soon as that shows (``size`` is then larger
            than ``limit``), so that it cannot fill the disk.

    Raises:
        OSError: the target cannot be written.
    """
    total = hashlib.sha256()
    buffer = memoryview(bytearray(BLOCK))
    size = 0
    while size <= limit and (count := read(buffer)):
        total.update(buffer[:count])
        _write(target, buffer[:count])
        size += count
        moved(count)
    return Copied(total.hexdigest(), size)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """A file to read, as a file descriptor; links are followed.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    # Non-blocking, so that a named pipe in the file's place cannot hold us up.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        check_regular(fd)
        yield fd
    finally:
        os.close(fd)


def check_regular(fd: int) -> None:
    """Refuse pipes, devices and folders.

    Raises:
        OSError: it is no regular file.
    """
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError(0, "it is no regular file")


def _write(target: int, data: memoryview) -> None:
    while data:  # a signal or a nearly full disk may cut a write short
        data = data[os.write(target, data) :]
