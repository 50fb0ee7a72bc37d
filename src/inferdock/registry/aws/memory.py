"""Memory for what is being sent: bounded, and given back to the system at once.

Blocks of many megabytes from the usual allocator stay with the process, in pieces, for each thread; so they are mapped:
a push of 1 GB with 8 threads (`tests/integration/registry/test_aws_memory.py`) took 257 MB instead of 444.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
from collections.abc import Iterator
from typing import IO

Block = mmap.mmap | bytes
"""Bytes that are sent: the library reads it like a file. Empty ones cannot be mapped."""


class ChangedError(Exception):
    """The file's bytes are not those that were hashed before."""


class Budget:
    """A bound of the bytes that are in memory at once.

    Args:
        limit: bytes; something larger gets through alone.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._freed = threading.Condition()

    def take(self, size: int) -> None:
        """Wait until there is room."""
        with self._freed:
            self._freed.wait_for(lambda: not self._used or self._used + size <= self._limit)
            self._used += size

    def give(self, size: int) -> None:
        """Give room back."""
        with self._freed:
            self._used -= size
            self._freed.notify_all()

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Room for a while."""
        self.take(size)
        try:
            yield
        finally:
            self.give(size)


def read_block(file: IO[bytes], size: int) -> Block:
    """The next ``size`` bytes of a file; whoever asks frees them with :func:`free`.

    Raises:
        ChangedError: there are fewer.
    """
    if not size:
        return b""
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        if file.readinto(block) != size:  # type: ignore[attr-defined]
            raise ChangedError
    except BaseException:
        block.close()
        raise
    return block


def rewind(block: Block) -> Block:
    """The block, to be read from its beginning."""
    if isinstance(block, mmap.mmap):
        block.seek(0)
    return block


def free(block: Block) -> None:
    """Give a block back."""
    if isinstance(block, mmap.mmap):
        block.close()
