"""What is kept beside a release's journal, by name: how its quality gate judges."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from inferdock.domain.errors import ConfigError, ResourceError
from inferdock.release.records.journal import checked_id

MAX_NOTE_BYTES: Final = 256 * 1024


class Notes(Protocol):
    """Notes of one model's releases; each is written once, before its release begins."""

    async def keep(self, release: str, name: str, data: bytes) -> None:
        """Write a note.

        Raises:
            ResourceError, UnreachableError: it cannot be written.
        """
        ...

    async def read(self, release: str, name: str) -> bytes | None:
        """A note; None when there is none.

        Raises:
            ConfigError: it is there and cannot be read.
            UnreachableError: nobody answers.
        """
        ...


class FileNotes:
    """Notes as files beside the journals."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def keep(self, release: str, name: str, data: bytes) -> None:
        """See :class:`Notes`."""
        path = self._path(release, name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as exc:
            raise ResourceError(f"Cannot write {path}: {exc.strerror}.", cure="Choose another --state-dir.") from exc

    async def read(self, release: str, name: str) -> bytes | None:
        """See :class:`Notes`."""
        path = self._path(release, name)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_NOTE_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise ConfigError(f"{path} cannot be read: {exc.strerror}.", cure="Check its owner.") from exc
        if len(data) > MAX_NOTE_BYTES:
            raise ConfigError(f"{path} is too long.", cure="Restore it, or remove it and start anew.")
        return data

    def _path(self, release: str, name: str) -> Path:
        return self._folder / f"{checked_id(release)}.{name}.json"
