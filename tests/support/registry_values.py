"""Manifests, events and small pushes, for tests of stores."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from inferdock.domain.moment import spell
from inferdock.registry import ledger
from inferdock.registry.event import Delete, Event, Push
from inferdock.registry.inspect.facts import Facts
from inferdock.registry.ledger import By
from inferdock.registry.manifest import Content, FileEntry, Manifest, Provenance, encode, make, sha256_of
from inferdock.registry.store import BLOCK, Place, Store, Upload

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
BY = By(actor="ada", now=NOW)

FILES = {
    "config.json": b"{}",
    "empty.txt": b"",
    "model.safetensors": bytes(range(256)) * (BLOCK // 128) + b"the end",
    "1_Pooling/config.json": b'{"deep": 1}',
    "été/日本語 файл.txt": "Straße".encode(),
}
"""Sub-folders, names beyond ASCII, an empty file, and one of three blocks."""


def still(count: int) -> None:
    """Moves nothing on."""


def entry_of(path: str, data: bytes) -> FileEntry:
    """What a manifest says of a file."""
    return FileEntry(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def manifest_of(files: Mapping[str, bytes], name: str = "demo", version: str = "1.0.0") -> Manifest:
    """The manifest of these files."""
    return make(
        name=name,
        version=version,
        content=Content(files=tuple(entry_of(*item) for item in files.items()), facts=Facts(architecture="Tiny")),
        provenance=Provenance(pushed_at=spell(NOW), pushed_by="ada", source="a test"),
    )


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a folder."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def wanted(manifest: Manifest) -> Push:
    """What the history is to say of a version."""
    return Push(
        version=manifest.version,
        revision=manifest.revision,
        manifest_sha256=sha256_of(encode(manifest)),
        size_bytes=manifest.size_bytes,
        files=len(manifest.content.files),
    )


def next_event(store: Store, manifest: Manifest, by: By = BY) -> Event:
    """The event that makes this version, or ConflictError; there must be something to do."""
    event = ledger.push(ledger.fold(manifest.name, store.events(manifest.name)), wanted(manifest), by)
    assert event is not None
    return event


def send_all(upload: Upload, manifest: Manifest, folder: Path) -> list[str]:
    """Send what an earlier try did not leave; the paths that were sent."""
    missing = [entry for entry in manifest.content.files if not upload.has(entry)]
    for entry in missing:
        upload.send(entry, folder / entry.path, still)
    return [entry.path for entry in missing]


def push(store: Store, manifest: Manifest, folder: Path, signatures: bytes | None = None) -> list[str]:
    """Push a version as `registry.push` does; the paths that were sent."""
    with store.begin(manifest.name, manifest.version, revision=manifest.revision, actor="ada") as upload:
        sent = send_all(upload, manifest, folder)
        while not upload.commit(next_event(store, manifest), encode(manifest), signatures):
            pass
    return sent


def delete(store: Store, name: str, version: str) -> None:
    """Delete a version as `registry.Registry` does."""
    event = ledger.delete(ledger.fold(name, store.events(name)), version, BY)
    assert event is not None
    assert isinstance(event.change, Delete)
    assert store.append(event)
    store.remove(name, version)


def read(store: Store, path: str, *, name: str = "demo", version: str = "1.0.0") -> bytes:
    """All bytes of a file."""
    data = b""
    with store.open(Place(name, version, path)) as reader:
        while block := reader.read(BLOCK):
            data += block
    return data


def versions(store: Store, name: str = "demo") -> list[str]:
    """Versions that are there."""
    return list(ledger.fold(name, store.events(name)).versions)
