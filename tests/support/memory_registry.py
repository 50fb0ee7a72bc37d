"""A registry's store in memory, for tests of what uses one; it can fail, stop and lie wherever a test wants.

``tests/contract/registry`` holds it to the same suite as the real stores.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from inferdock.domain.errors import ConflictError, IntegrityError, ModelError
from inferdock.registry.event import Delete, Event, Push
from inferdock.registry.manifest import FileEntry, decode
from inferdock.registry.paths import MANIFEST, SIGNATURES
from inferdock.registry.store import Moved, Place

BLOCK: Final = 64 * 1024
"""Bytes moved between two calls of ``moved``."""


def nothing(step: str) -> None:
    """The hook that lets all go on."""


@dataclass
class MemoryStore:
    """Keeps everything in dictionaries.

    Attributes:
        hook: called with the name of each step before it is done, from whichever thread does it; what it raises, the
            step raises. Steps: ``names``, ``events NAME``, ``append NAME SEQ``, ``manifest NAME@VERSION``,
            ``open PATH``, ``read PATH`` (each block), ``begin NAME@VERSION``, ``has PATH``, ``copy PATH``,
            ``send PATH`` (each block), ``commit NAME@VERSION``, ``place NAME@VERSION`` (all checked, nothing visible),
            ``remove NAME@VERSION``.
        files: bytes by path for each (name, version), ``MANIFEST.json`` among them; a test may change them.
        staged: what pushes that did not end left: the revision, and bytes by path.
        sent, copied: paths in the order in which they came in.
    """

    hook: Callable[[str], None] = nothing
    files: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    staged: dict[tuple[str, str], tuple[str, dict[str, bytes]]] = field(default_factory=dict)
    histories: dict[str, dict[int, Event]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _pushing: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def location(self) -> str:
        return "memory"

    def names(self) -> list[str]:
        self.hook("names")
        with self.lock:
            return sorted(self.histories)

    def events(self, name: str) -> list[Event]:
        self.hook(f"events {name}")
        with self.lock:
            return [event for _, event in sorted(self.histories.get(name, {}).items())]

    def append(self, event: Event) -> bool:
        self.hook(f"append {event.name} {event.seq}")
        with self.lock:
            history = self.histories.setdefault(event.name, {})
            if event.seq in history:
                return False
            history[event.seq] = event
            return True

    def manifest(self, name: str, version: str) -> tuple[bytes, bytes | None]:
        self.hook(f"manifest {name}@{version}")
        with self.lock:
            files = self.files.get((name, version), {})
            if MANIFEST not in files:
                raise IntegrityError(f"There is no {MANIFEST} of {name}@{version} in memory.")
            return files[MANIFEST], files.get(SIGNATURES)

    @contextlib.contextmanager
    def open(self, place: Place, *, offset: int = 0, length: int | None = None) -> Iterator[MemoryReader]:
        self.hook(f"open {place.path}")
        with self.lock:
            data = self.files.get((place.name, place.version), {}).get(place.path)
        if data is None:
            raise IntegrityError(f"There is no {place} in memory.")
        yield MemoryReader(data[offset:] if length is None else data[offset : offset + length], place.path, self)

    @contextlib.contextmanager
    def begin(self, name: str, version: str, *, revision: str, actor: str) -> Iterator[MemoryUpload]:
        self.hook(f"begin {name}@{version}")
        key = (name, version)
        with self.lock:
            if key in self._pushing:
                raise ConflictError(f"{name}@{version} is being pushed right now by {self._pushing[key]}.")
            self._pushing[key] = actor
            if self.staged.get(key, ("", {}))[0] != revision:
                self.staged[key] = (revision, {})
        try:
            yield MemoryUpload(self, name, version)
        finally:
            with self.lock:
                del self._pushing[key]

    def remove(self, name: str, version: str) -> None:
        self.hook(f"remove {name}@{version}")
        with self.lock:
            if not self.lives(name, version):
                self.files.pop((name, version), None)

    def lives(self, name: str, version: str) -> bool:
        """Whether a version's push is in the history, and no later deletion."""
        for _, event in sorted(self.histories.get(name, {}).items(), reverse=True):
            if isinstance(event.change, Push | Delete) and event.change.version == version:
                return isinstance(event.change, Push)
        return False


@dataclass
class MemoryReader:
    """Bytes in order."""

    data: bytes
    path: str
    store: MemoryStore
    at: int = 0

    def read(self, size: int, /) -> bytes:
        self.store.hook(f"read {self.path}")
        block = self.data[self.at : self.at + size]
        self.at += len(block)
        return block


@dataclass
class MemoryUpload:
    """A push that is under way."""

    store: MemoryStore
    name: str
    version: str

    @property
    def _files(self) -> dict[str, bytes]:
        return self.store.staged[self.name, self.version][1]

    def has(self, entry: FileEntry) -> bool:
        self.store.hook(f"has {entry.path}")
        return _is(self._files.get(entry.path), entry)

    def copy(self, entry: FileEntry, source: Place, moved: Moved) -> bool:
        self.store.hook(f"copy {entry.path}")
        with self.store.lock:
            data = self.store.files.get((source.name, source.version), {}).get(source.path)
            if data is None or not _is(data, entry):
                return False
            self._files[entry.path] = data
            self.store.copied.append(entry.path)
        moved(entry.size)
        return True

    def send(self, entry: FileEntry, source: Path, moved: Moved) -> None:
        data = b""
        try:
            whole = source.read_bytes()
        except OSError as exc:
            raise ModelError(f"{source} cannot be read: {exc.strerror}.") from exc
        for at in range(0, len(whole), BLOCK):
            self.store.hook(f"send {entry.path}")
            block = whole[at : at + BLOCK]
            data += block
            moved(len(block))
        if not _is(data, entry):
            raise ModelError(f"{source} was changed while it was being pushed.")
        with self.store.lock:
            self._files[entry.path] = data
            self.store.sent.append(entry.path)

    def commit(self, event: Event, manifest: bytes, signatures: bytes | None) -> bool:
        self.store.hook(f"commit {self.name}@{self.version}")
        files = dict(self._files)
        for entry in decode(manifest, what="the manifest").content.files:
            if entry.path not in files:
                raise IntegrityError(f"{entry.path} of {self.name}@{self.version} did not arrive.")
        self.store.hook(f"place {self.name}@{self.version}")
        with self.store.lock:
            if self.store.lives(self.name, self.version) or not self.store.append(event):
                return False
            signed = {} if signatures is None else {SIGNATURES: signatures}
            self.store.files[self.name, self.version] = {**files, MANIFEST: manifest, **signed}
        return True


def _is(data: bytes | None, entry: FileEntry) -> bool:
    return data is not None and len(data) == entry.size and hashlib.sha256(data).hexdigest() == entry.sha256
