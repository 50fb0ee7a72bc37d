"""A file that is being fetched, in ranges and out of order, and that another process can go on with.

While it lasts it is locked: one process fetches, and the lock ends with it, however it ends. Behind its bytes lies a
note of which ranges are there; the note is cut off before the file is hashed and takes its name. Nothing is flushed to
the disk on the way: what a power cut spoils shows in the digest, which is compared before every use.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final, Self

from inferdock.registry.disk import FILE_FLAGS, is_at, try_lock
from inferdock.registry.hashing import check_regular, fd_sha256
from inferdock.registry.store import Moved

_HEAD: Final = b"ranges %08x\n"
_DONE: Final = b"1"


def ranges(size: int, chunk: int) -> int:
    """Number of ranges of a file; an empty file has one too."""
    return max(1, -(-size // chunk))


class Partial:
    """One file that is not whole yet. Different ranges may be written at once.

    Args:
        fd: the open, locked file.
        folder: descriptor of its folder; both are closed with it.
        name: its name there.
        size: bytes that it is to have.
        chunk: bytes of a range, the last one may have fewer; at most 2**32 - 1.
    """

    def __init__(self, fd: int, folder: int, name: str, *, size: int, chunk: int) -> None:
        self.size = size
        self.chunk = chunk
        self.there: frozenset[int] = frozenset()
        """Ranges that an earlier try left."""
        self._fd: int | None = fd
        self._folder = folder
        self._name = name
        self._head = _HEAD % chunk

    @classmethod
    def open(cls, folder: int, name: str, *, size: int, chunk: int) -> Self | None:
        """Begin a file or go on with it; None when another process (or thread) is at it.

        Takes over ``folder``, also when it fails.

        Raises:
            OSError: the file cannot be made.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, folder)
            fd = _claim(folder, name)
            if fd is None:
                return None
            undo.callback(os.close, fd)
            partial = cls(fd, folder, name, size=size, chunk=chunk)
            partial.there = partial._read_note()
            undo.pop_all()
            return partial

    def _read_note(self) -> frozenset[int]:
        count, there = ranges(self.size, self.chunk), os.fstat(self.fd).st_size
        if there == self.size:  # the note is cut off only when all is there
            return frozenset(range(count))
        if count == 1:  # nothing to note: such a file begins anew
            return frozenset()
        note = os.pread(self.fd, len(self._head) + count, self.size)
        if len(note) == len(self._head) + count == there - self.size and note.startswith(self._head):
            return frozenset(i for i, mark in enumerate(note[len(self._head) :]) if mark == _DONE[0])
        self.reset()
        return frozenset()

    @property
    def fd(self) -> int:
        """The open file."""
        if self._fd is None:
            raise ValueError("the file is closed")
        return self._fd

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes that lie inside the file.

        Raises:
            OSError: the disk is full, or fails.
        """
        if offset + len(data) > self.size:
            raise ValueError("bytes beyond the end of the file")
        view = memoryview(data)
        while view:
            written = os.pwrite(self.fd, view, offset)
            offset += written
            view = view[written:]

    def mark(self, index: int) -> None:
        """Note that a range is there."""
        if ranges(self.size, self.chunk) > 1:
            os.pwrite(self.fd, _DONE, self.size + len(self._head) + index)

    def digest(self, moved: Moved) -> str:
        """SHA-256 of the file, whose ranges are all there."""
        os.ftruncate(self.fd, self.size)
        os.lseek(self.fd, 0, os.SEEK_SET)
        return fd_sha256(self.fd, moved)

    def reset(self) -> None:
        """Forget every byte of it."""
        os.ftruncate(self.fd, 0)
        count = ranges(self.size, self.chunk)
        if count > 1:
            os.pwrite(self.fd, self._head + b"0" * count, self.size)

    def keep(self, folder: int, name: str, mode: int) -> None:
        """Give the file, whose digest is right, its name; what had the name is gone."""
        os.rename(self._name, name, src_dir_fd=self._folder, dst_dir_fd=folder)
        os.fchmod(self.fd, mode)  # after the rename: a read-only file without its name could not be gone on with

    def discard(self) -> None:
        """Remove the file."""
        os.unlink(self._name, dir_fd=self._folder)

    def close(self) -> None:
        """Let go of it; what was fetched stays. Closing twice is no failure."""
        if self._fd is not None:
            os.close(self._fd)
            os.close(self._folder)
            self._fd = None


def _claim(folder: int, name: str) -> int | None:
    """Open and lock a file of that name, made if there is none; None when it is locked."""
    while True:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | FILE_FLAGS, 0o644, dir_fd=folder)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, fd)
            if not try_lock(fd):
                return None
            if not is_at(fd, name, folder):  # renamed or removed since we opened it
                continue
            check_regular(fd)
            if os.fstat(fd).st_nlink > 1:  # a second name of some other file: never written through
                os.unlink(name, dir_fd=folder)
                continue
            undo.pop_all()
            return fd
