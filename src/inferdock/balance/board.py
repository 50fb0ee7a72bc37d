"""Counters that all workers of one gateway see: one row per worker, and only that worker writes it.

Nothing is locked: a worker adds to its own row and reads the sum of a column, so what it sees of the others is at
most one machine instruction old. The parent process clears the row of a worker that died. With one worker the same
code runs on private memory.
"""

from __future__ import annotations

import mmap
import os

_CELL = 8  # bytes of one signed counter


class Board:
    """A matrix of signed 64-bit counters in memory that processes share.

    Attributes:
        fd: of the memory, for handing to a child process (``pass_fds``); -1 when the memory is private.
        rows, columns: size of the matrix.
        row: the row that this process writes.
    """

    __slots__ = ("_base", "_cells", "_memory", "columns", "fd", "row", "rows")

    def __init__(self, memory: mmap.mmap, fd: int, *, rows: int, columns: int, row: int) -> None:
        if not 0 <= row < rows:
            raise ValueError(f"row {row} is outside of {rows} rows")
        self._memory = memory
        self._cells = memoryview(memory).cast("q")
        self._base = row * columns
        self.fd = fd
        self.rows = rows
        self.columns = columns
        self.row = row

    @classmethod
    def private(cls, columns: int) -> Board:
        """A board of one row that no other process sees."""
        return cls(mmap.mmap(-1, columns * _CELL), -1, rows=1, columns=columns, row=0)

    @classmethod
    def shared(cls, *, rows: int, columns: int, row: int = 0) -> Board:
        """A new board that children may :meth:`attach` to; all counters are 0."""
        fd = os.memfd_create("inferdock-board")
        os.ftruncate(fd, rows * columns * _CELL)
        return cls.attach(fd, rows=rows, columns=columns, row=row)

    @classmethod
    def attach(cls, fd: int, *, rows: int, columns: int, row: int) -> Board:
        """The board behind an inherited descriptor.

        Raises:
            ValueError: the memory is smaller than the matrix, or ``row`` is outside of it.
        """
        size = rows * columns * _CELL
        if os.fstat(fd).st_size < size:
            raise ValueError("the shared memory is smaller than the board")
        return cls(mmap.mmap(fd, size), fd, rows=rows, columns=columns, row=row)

    def add(self, column: int, amount: int) -> None:
        """Add to our own counter."""
        self._cells[self._base + column] += amount

    def set(self, column: int, value: int) -> None:
        """Set our own counter."""
        self._cells[self._base + column] = value

    def own(self, column: int) -> int:
        """Our own counter."""
        return self._cells[self._base + column]

    def of_row(self, row: int, column: int) -> int:
        """The counter of one worker."""
        return self._cells[row * self.columns + column]

    def total(self, column: int) -> int:
        """The sum over all workers."""
        if self.rows == 1:
            return self._cells[column]
        return sum(self._cells[column :: self.columns])

    def clear_row(self, row: int) -> None:
        """Forget a worker that is gone."""
        start = row * self.columns
        self._memory[start * _CELL : (start + self.columns) * _CELL] = bytes(self.columns * _CELL)
