"""Versions in a store in memory, made without a push, for tests of what fetches them."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from inferdock.registry.inspect.facts import Facts
from inferdock.registry.manifest import Content, FileEntry, Manifest, Provenance, encode, make
from inferdock.registry.paths import MANIFEST
from tests.support.memory_registry import MemoryStore, nothing

CHUNK: Final = 1000
"""Bytes of a range in these tests: files of a few kilobytes have several."""
FILES: Final[Mapping[str, bytes]] = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    "empty.txt": b"",
    "model-00001-of-00002.safetensors": random.Random(1).randbytes(4_500),
    "model-00002-of-00002.safetensors": random.Random(2).randbytes(3_000),
    "tokenizer/größe.json": b"{}",
    "tokenizer/deep/er/same.json": b"{}",
}


def entry_of(path: str, data: bytes) -> FileEntry:
    """What a manifest says of a file."""
    return FileEntry(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def manifest_of(files: Mapping[str, bytes], *, name: str = "demo", version: str = "1.0.0") -> Manifest:
    """The manifest of such files."""
    entries = tuple(entry_of(path, data) for path, data in files.items())
    content = Content(files=entries, facts=Facts(architecture="LlamaForCausalLM"))
    provenance = Provenance(pushed_at="2026-01-31T12:00:00.000Z", pushed_by="ann", source="test")
    return make(name=name, version=version, content=content, provenance=provenance)


def stored(
    files: Mapping[str, bytes] = FILES,
    *,
    version: str = "1.0.0",
    hook: Callable[[str], None] = nothing,
) -> tuple[MemoryStore, Manifest]:
    """A store that holds a version, and the version's manifest."""
    store = MemoryStore(hook=hook)
    manifest = manifest_of(files, version=version)
    store.files["demo", version] = {**files, MANIFEST: encode(manifest)}
    return store, manifest


def read_folder(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder, links followed, hidden ones too; without the manifest."""
    found = {}
    for at, _, names in os.walk(folder):
        for name in names:
            path = Path(at, name)
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    found.pop(MANIFEST, None)
    return found


def never(seconds: float) -> None:
    """Waits no time at all."""
