"""Run by `test_filesystem_crash`: dies at every step of a push or a deletion, and looks at what each death left.

Usage: python -m tests.integration.registry.filesystem_deaths SCENARIO FOLDER
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from inferdock.registry import ledger
from inferdock.registry.filesystem import FilesystemStore
from inferdock.registry.manifest import encode
from inferdock.registry.store import Place
from tests.support.crash import deaths
from tests.support.registry_values import (
    BY,
    manifest_of,
    next_event,
    push,
    read,
    send_all,
    still,
    versions,
    write,
)

OLD = {"config.json": b'{"old": 1}', "model.safetensors": b"w" * 5000, "sub/empty": b""}
NEW = {**OLD, "config.json": b'{"new": 1}', "sub/added": b"a"}


class Scene:
    """A store with version 1.0.0, and folders to push from."""

    def __init__(self, folder: Path) -> None:
        self.old = write(folder / "old", OLD)
        self.new = write(folder / "new", NEW)
        self.start = folder / "start"
        self.root = folder / "store"
        self.elsewhere = folder / "elsewhere"

    def reset(self) -> None:
        """Begin again from the start."""
        shutil.rmtree(self.root, ignore_errors=True)
        if self.start.exists():
            shutil.copytree(self.start, self.root, symlinks=True)

    def push(self, version: str, *, new: bool = True, root: Path | None = None) -> None:
        """Push without copies."""
        manifest = manifest_of(NEW if new else OLD, version=version)
        push(FilesystemStore(root or self.root), manifest, self.new if new else self.old)

    def push_by_copies(self) -> None:
        """Push 1.1.0, whose files are mostly those of 1.0.0."""
        store, manifest = FilesystemStore(self.root), manifest_of(NEW, version="1.1.0")
        with store.begin("demo", "1.1.0", revision=manifest.revision, actor="ada") as upload:
            for entry in manifest.content.files:
                if not upload.copy(entry, Place("demo", "1.0.0", entry.path), still):
                    upload.send(entry, self.new / entry.path, still)
            assert upload.commit(next_event(store, manifest), encode(manifest), b"signed")

    def leave_another_revision(self) -> None:
        """Leave what a push of other bytes as 1.1.0 sent before it was cut."""
        manifest = manifest_of(OLD, version="1.1.0")
        store = FilesystemStore(self.start)
        with store.begin("demo", "1.1.0", revision=manifest.revision, actor="ada") as upload:
            send_all(upload, manifest, self.old)

    def delete(self) -> None:
        """Delete 1.0.0, once or going on."""
        store = FilesystemStore(self.root)
        event = ledger.delete(ledger.fold("demo", store.events("demo")), "1.0.0", BY)
        assert event is None or store.append(event)
        store.remove("demo", "1.0.0")

    def check(self, version: str, *, root: Path | None = None, old_as_well: bool = True) -> bool:
        """Whether the version is there; if so it must be whole, and 1.0.0 must be as it was."""
        store = FilesystemStore(root or self.root)
        there = versions(store)
        if version in there:
            assert {path: read(store, path, version=version) for path in NEW} == NEW
            assert store.manifest("demo", version)[0] == encode(manifest_of(NEW, version=version))
        if old_as_well:
            assert {path: read(store, path, version="1.0.0") for path in OLD} == OLD
        return version in there

    def no_leftovers(self) -> None:
        """What is in staging after a push that ended well: nothing but drafts of the dead."""
        left = [path for path in (self.root / "staging").rglob("*") if path.is_file()]
        assert [path for path in left if ".drafts" not in path.parts] == []


def pushes(scene: Scene, work: Callable[[], object], *, old_as_well: bool = True) -> int:
    """Die at every step of a push; the next push of the same or of other bytes must come through."""
    count = 0
    version = "1.1.0"
    for count in deaths(work, scene.reset):  # noqa: B007 - the number of the last is the result
        if scene.check(version, old_as_well=old_as_well):
            continue
        shutil.rmtree(scene.elsewhere, ignore_errors=True)
        if scene.root.exists():
            shutil.copytree(scene.root, scene.elsewhere, symlinks=True)
        scene.push(version, new=False, root=scene.elsewhere)
        other = FilesystemStore(scene.elsewhere)
        assert {path: read(other, path, version=version) for path in OLD} == OLD
        scene.push(version)
        assert scene.check(version, old_as_well=old_as_well)
        scene.no_leftovers()
    assert scene.check(version, old_as_well=old_as_well)  # the one that nobody killed
    return count


def deletions(scene: Scene) -> int:
    """Die at every step of a deletion; it can be done again, and the number filled with the same bytes."""
    count = 0
    for count in deaths(scene.delete, scene.reset):  # noqa: B007
        if versions(FilesystemStore(scene.root)):
            scene.check("none")
        scene.delete()
        assert versions(FilesystemStore(scene.root)) == []
        assert not (scene.root / "models/demo/v1.0.0").exists()
        scene.push("1.0.0", new=False)
        scene.check("none")
        scene.no_leftovers()
    return count


def main(scenario: str, folder: Path) -> int:
    """Steps at which it died."""
    scene = Scene(folder)
    if scenario == "first":
        return pushes(scene, lambda: scene.push("1.1.0"), old_as_well=False)
    scene.push("1.0.0", new=False, root=scene.start)
    if scenario == "copies":
        return pushes(scene, scene.push_by_copies)
    if scenario == "leftovers":
        scene.leave_another_revision()
        return pushes(scene, lambda: scene.push("1.1.0"))
    return deletions(scene)


if __name__ == "__main__":
    print(main(sys.argv[1], Path(sys.argv[2])))
