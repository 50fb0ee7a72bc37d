"""Folders of links into the cache's files, one for each revision: what an engine is pointed at."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from inferdock.domain.errors import IntegrityError
from inferdock.registry.disk import FILE_FLAGS
from inferdock.registry.manifest import MAX_MANIFEST_BYTES, FileEntry, Manifest, decode
from inferdock.registry.paths import MANIFEST

BLOBS: Final = "blobs/sha256"
REVISIONS: Final = "revisions"


def blob_path(digest: str) -> str:
    """Where a file lies below the cache's root."""
    return f"{BLOBS}/{digest[:2]}/{digest}"


def link_of(entry: FileEntry) -> str:
    """Where a link in a revision's folder leads, relative, so that the cache may be moved or mounted elsewhere."""
    return "../" * (2 + entry.path.count("/")) + blob_path(entry.sha256)


def folder_of(root: Path, revision: str) -> Path:
    """The folder of a revision."""
    return root / REVISIONS / revision


def is_right(root: Path, manifest: Manifest) -> bool:
    """Whether the folder of a revision is there with exactly its links. The bytes behind them are not looked at."""
    folder = folder_of(root, manifest.revision)
    wanted = {entry.path: link_of(entry) for entry in manifest.content.files}
    try:
        return _links(folder) == wanted and _describes(folder / MANIFEST, manifest.revision)
    except OSError:
        return False


def publish(root: Path, manifest: Manifest, data: bytes) -> Path:
    """Make the folder of a revision, whose files are all there and right; whole, or not at all.

    Args:
        root: the cache.
        manifest: of the version.
        data: its bytes.

    Raises:
        OSError: it cannot be made.
    """
    folder = folder_of(root, manifest.revision)
    if is_right(root, manifest):
        return folder
    with _alone(root):
        if not is_right(root, manifest):
            draft, old = (folder.with_name(f".{manifest.revision}.{what}") for what in ("draft", "old"))
            _remove(draft)
            _remove(old)
            _fill(draft, manifest, data)
            if os.path.lexists(folder):
                folder.rename(old)
            draft.rename(folder)
            _remove(old)
    return folder


def _fill(draft: Path, manifest: Manifest, data: bytes) -> None:
    draft.mkdir(parents=True)
    for entry in manifest.content.files:
        link = draft / entry.path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(link_of(entry))
    (draft / MANIFEST).write_bytes(data)


def _links(folder: Path) -> dict[str, str]:
    """Every link below a folder, and where it leads. Anything else but the manifest counts as a link to nowhere."""
    if folder.is_symlink():
        raise NotADirectoryError
    links: dict[str, str] = {}
    for at, folders, files in os.walk(folder, onerror=_raise):
        for name in [*files, *(name for name in folders if os.path.islink(os.path.join(at, name)))]:
            path = Path(at, name)
            if path != folder / MANIFEST:
                links[path.relative_to(folder).as_posix()] = os.readlink(path) if path.is_symlink() else ""
    return links


def _raise(exc: OSError) -> None:
    raise exc


def _describes(path: Path, revision: str) -> bool:
    """Whether a manifest is that of a revision; another version with the same content may have brought it."""
    fd = os.open(path, os.O_RDONLY | FILE_FLAGS)
    with open(fd, "rb") as file:
        data = file.read(MAX_MANIFEST_BYTES + 1)
    try:
        return decode(data, what=MANIFEST).revision == revision
    except IntegrityError:
        return False


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One process at a time; the lock ends with the process that holds it."""
    fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | FILE_FLAGS, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
