"""What the registry needs of a place that keeps it: a history per model, and the bytes of versions.

Implemented by `filesystem` and `aws`; `tests/contract/registry` holds every store to the same suite. A store decides
nothing: it reads and appends events, and moves bytes that it compares with the digests it is given. Methods may be
called from several threads. All of them raise :class:`~inferdock.domain.errors.UnreachableError` when the place cannot
be reached or does not let us in, and :class:`~inferdock.domain.errors.ResourceError` when it is full or not writable.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from inferdock.registry.event import Event
from inferdock.registry.manifest import FileEntry

BLOCK: Final = 1024 * 1024
"""Bytes read at once where bytes are hashed or copied."""

Moved = Callable[[int], None]
"""Told how many more bytes were moved; raises to stop the work (`parallel`)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of a file are: a file of a version."""

    name: str
    version: str
    path: str

    def __str__(self) -> str:
        return f"{self.path} of {self.name}@{self.version}"


class Reader(Protocol):
    """Bytes that come in order."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes, none at the end.

        Raises:
            UnreachableError: the place was lost on the way.
        """
        ...


class Upload(Protocol):
    """A push that is under way; nobody else pushes this version meanwhile. Different files may be sent at once."""

    def has(self, entry: FileEntry) -> bool:
        """Whether an earlier try left this file whole, its bytes compared with the digest by us or by the store."""
        ...

    def copy(self, entry: FileEntry, source: Place, moved: Moved) -> bool:
        """Take the bytes of another version, which has a file of this digest, without sending them.

        Returns:
            False when that cannot be done, for instance because the source is gone or damaged: then send them.
        """
        ...

    def send(self, entry: FileEntry, source: Path, moved: Moved) -> None:
        """Send a file, going on where an earlier try of the same content was cut.

        Raises:
            ModelError: the file's bytes are no longer those of ``entry``.
            ConflictError: another push got in between.
        """
        ...

    def commit(self, event: Event, manifest: bytes, signatures: bytes | None) -> bool:
        """Make the version exist: manifest and signatures first, the event last, all or nothing.

        Args:
            event: the next of the history; its change is a ``Push``.
            manifest, signatures: bytes of the two files.

        Returns:
            False when another event has taken the number; decide again and call once more.

        Raises:
            ConflictError: another push got in between.
            IntegrityError: a file that was sent is not there.
        """
        ...


class Store(Protocol):
    """One place that keeps a registry."""

    @property
    def location(self) -> str:
        """What messages call it, for instance ``s3://bucket`` or a folder."""
        ...

    def names(self) -> list[str]:
        """Models that have a history, in order."""
        ...

    def events(self, name: str) -> list[Event]:
        """A model's whole history from its first event on, as it is now; none for a model that is not there.

        Raises:
            IntegrityError: an event cannot be read.
        """
        ...

    def append(self, event: Event) -> bool:
        """Add an event if its number is still free; False when it is taken. Never overwrites."""
        ...

    def manifest(self, name: str, version: str) -> tuple[bytes, bytes | None]:
        """Bytes of a version's manifest and of its signatures, if there are any; unchecked.

        Raises:
            IntegrityError: there is no manifest.
        """
        ...

    def open(self, place: Place, *, offset: int = 0, length: int | None = None) -> AbstractContextManager[Reader]:
        """The bytes of a file from ``offset`` on, ``length`` of them or all; unchecked.

        Raises:
            IntegrityError: there is no such file.
        """
        ...

    def begin(self, name: str, version: str, *, revision: str, actor: str) -> AbstractContextManager[Upload]:
        """Begin to push a version, or go on with a push that was cut.

        What an earlier push of another revision left is replaced. What this one leaves when it fails stays for the next
        try; it is not visible.

        Raises:
            ConflictError: somebody else pushes this version now.
        """
        ...

    def remove(self, name: str, version: str) -> None:
        """Remove the files of a version that was deleted; removing twice is no failure."""
        ...
