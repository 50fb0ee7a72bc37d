"""How long work on bytes says how far it is; the command line draws it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told how far a piece of work is, from several threads."""

    def begin(self, title: str, total_bytes: int, total_files: int) -> None:
        """A piece of work begins, or a new one after the last; ``title`` says which ("Hashing")."""
        ...

    def moved(self, path: str, count: int) -> None:
        """``count`` more bytes of a file are done; below 0 where some must be done again."""
        ...

    def done(self, path: str) -> None:
        """A file is done."""
        ...


class Silent:
    """Says nothing."""

    def begin(self, title: str, total_bytes: int, total_files: int) -> None:
        """Nothing."""

    def moved(self, path: str, count: int) -> None:
        """Nothing."""

    def done(self, path: str) -> None:
        """Nothing."""
