"""What differs between two versions: files, facts, arguments, permissions. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from inferdock.registry.manifest import FileEntry, Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """One file that is not the same; ``before`` or ``after`` is None where it is only on one side."""

    path: str
    before: FileEntry | None
    after: FileEntry | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueChange:
    """One value that is not the same, named by its dotted path; None where it is only on one side."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """From one version to another.

    Attributes:
        same_revision: all that decides the answers is equal.
        files: that differ, by path.
        same_files: number of files that are equal.
        values: facts, arguments, image and permissions that differ.
        provenance: labels, source and pusher that differ.
    """

    same_revision: bool
    files: tuple[FileChange, ...]
    same_files: int
    values: tuple[ValueChange, ...]
    provenance: tuple[ValueChange, ...]


def compare(before: Manifest, after: Manifest) -> Difference:
    """What a step from ``before`` to ``after`` changes."""
    old = {entry.path: entry for entry in before.content.files}
    new = {entry.path: entry for entry in after.content.files}
    paths = sorted(old.keys() | new.keys())
    files = tuple(
        FileChange(path=path, before=old.get(path), after=new.get(path))
        for path in paths
        if old.get(path) != new.get(path)
    )
    return Difference(
        same_revision=before.revision == after.revision,
        files=files,
        same_files=len(paths) - len(files),
        values=_changes(_values(before), _values(after)),
        provenance=_changes(
            _flat("", msgspec.to_builtins(before.provenance)), _flat("", msgspec.to_builtins(after.provenance))
        ),
    )


def _values(manifest: Manifest) -> dict[str, Any]:
    content = msgspec.to_builtins(manifest.content)
    return _flat("", {part: content[part] for part in ("facts", "engine", "permissions")})


def _provenance(manifest: Manifest) -> dict[str, Any]:
    return _flat("", msgspec.to_builtins(manifest.provenance))


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, part in value.items():
        flat |= _flat(f"{prefix}.{key}" if prefix else key, part)
    return flat


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[ValueChange, ...]:
    names = sorted(before.keys() | after.keys())
    return tuple(
        ValueChange(name=name, before=before.get(name), after=after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    )
