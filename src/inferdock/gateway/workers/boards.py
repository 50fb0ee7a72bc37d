"""The shared boards of a gateway with workers: a row for each worker, and a last one for the parent.

To share another board, add a line to :data:`BOARDS` and hand ``boards["name"]`` to whoever needs it in
``app.front``; with one process the same line makes a private one.
"""

from __future__ import annotations

from collections.abc import Mapping

from inferdock.balance.board import Board
from inferdock.balance.columns import MAX_ENDPOINTS
from inferdock.gateway.limits import COLUMNS as LIMITER_COLUMNS
from inferdock.gateway.load import LOAD_COLUMNS
from inferdock.gateway.workers.frames import BoardPlace

BOARDS: Mapping[str, int] = {"load": LOAD_COLUMNS, "endpoints": MAX_ENDPOINTS, "limits": LIMITER_COLUMNS}
"""Name of each board to its columns. Memory is 8 bytes per column and worker, where it is used."""


def private_boards() -> dict[str, Board]:
    """Boards for a gateway of one process."""
    return {name: Board.private(columns) for name, columns in BOARDS.items()}


def shared_boards(workers: int) -> dict[str, Board]:
    """Boards for so many workers and their parent, whose row is the last."""
    return {name: Board.shared(rows=workers + 1, columns=size, row=workers) for name, size in BOARDS.items()}


def places(boards: Mapping[str, Board]) -> list[BoardPlace]:
    """What a worker must be told to attach to them."""
    return [BoardPlace(name, board.fd, board.rows, board.columns) for name, board in boards.items()]


def attached(found: list[BoardPlace], row: int) -> dict[str, Board]:
    """The boards in a worker, which writes ``row``."""
    return {p.name: Board.attach(p.fd, rows=p.rows, columns=p.columns, row=row) for p in found}


def forget_row(boards: Mapping[str, Board], row: int) -> None:
    """A worker is gone: what it held is free."""
    for board in boards.values():
        board.clear_row(row)
