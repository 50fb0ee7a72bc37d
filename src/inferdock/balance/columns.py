"""Which column of the board belongs to which endpoint."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from inferdock.balance.board import Board
from inferdock.balance.endpoint import Endpoint

MAX_ENDPOINTS = 1024
"""Most endpoints of one gateway, over all models."""


class Columns:
    """Hands out columns; one is used again only when its endpoint is gone and holds no requests."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._count = min(MAX_ENDPOINTS, board.columns)
        self._leaving: set[int] = set()

    def assign(
        self,
        names: Collection[str],
        kept: Mapping[str, Endpoint],
        old: Collection[Endpoint],
        slots: Mapping[str, int] | None,
    ) -> dict[str, int]:
        """Columns of the endpoints ``names``.

        Args:
            names: unique.
            kept: those of them that stay as they are.
            old: all endpoints until now.
            slots: columns that somebody else has handed out.

        Raises:
            ValueError: too many endpoints, or ``slots`` does not fit; nothing has changed.
        """
        if len(names) > self._count:
            raise ValueError(f"{len(names)} endpoints are more than the {self._count} that one gateway can have")
        if slots is not None:
            return self._given(names, kept, slots)
        staying = {endpoint.slot for endpoint in kept.values()}
        leaving = {slot for slot in self._leaving | {e.slot for e in old} if self._board.total(slot)} - staying
        free = (slot for slot in range(self._count) if slot not in staying and slot not in leaving)
        columns = {name: kept[name].slot if name in kept else next(free, -1) for name in names}
        if -1 in columns.values():
            raise ValueError("too many endpoints that are gone still hold requests; try again when they have ended")
        self._leaving = leaving
        return columns

    def _given(self, names: Collection[str], kept: Mapping[str, Endpoint], slots: Mapping[str, int]) -> dict[str, int]:
        columns = {}
        for name in names:
            slot = slots.get(name)
            if slot is None or not 0 <= slot < self._count:
                raise ValueError(f"endpoint `{name}` has no column on the board")
            if name in kept and kept[name].slot != slot:
                raise ValueError(f"endpoint `{name}` cannot move to another column")
            columns[name] = slot
        if len(set(columns.values())) != len(columns):
            raise ValueError("two endpoints share a column")
        return columns
