"""Finds the files of a model folder: regular ones, none from elsewhere, none hidden."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import Final

from inferdock.domain.errors import ModelError
from inferdock.registry.inspect.json_files import printable
from inferdock.registry.paths import MAX_DEPTH, RESERVED, check_path, check_paths

MAX_FILES: Final = 100_000
"""Known models have fewer than 300; above this it is a mistake, for instance a home folder."""
_LEAVE_OUT: Final = "Remove it, or leave it out with --exclude."


@dataclass(frozen=True, slots=True)
class LocalFile:
    """One file that is to be pushed.

    Attributes:
        path: relative to the folder, POSIX.
        source: the real file, links followed.
        size: bytes.
    """

    path: str
    source: Path
    size: int


def find_files(folder: Path, exclude: Sequence[str] = ()) -> tuple[LocalFile, ...]:
    """All files of a folder, sorted by path.

    Hidden files and folders are left out, since download tools keep notes there, and so are the registry's own files.

    Args:
        folder: the model.
        exclude: globs of what to leave out; ``*`` also matches ``/``, and a folder's name leaves out all in it.

    Raises:
        ModelError: no folder, no file, too many, a name that may not be, a link that leaves the folder, or something
            that is no regular file.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder.", cure="Give the folder that holds config.json.")
    homes = _homes(folder)
    files = [_local(folder, path, entry, homes) for path, entry in _entries(folder, exclude)]
    if not files:
        raise ModelError(f"{folder} holds no file.", cure="Give the folder that holds config.json.")
    files.sort(key=lambda file: file.path)
    check_paths(file.path for file in files)
    return tuple(files)


def _homes(folder: Path) -> tuple[Path, ...]:
    """Where links may lead: into the folder, or from a snapshot of the Hugging Face cache to its blobs."""
    real = folder.resolve()
    if real.parent.name == "snapshots":
        return (real, real.parents[1] / "blobs")
    return (real,)


def _entries(folder: Path, exclude: Sequence[str]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything but folders, in no order. Counts what it sees, so that a huge tree ends in an error."""
    seen = 0
    waiting = [""]
    while waiting:
        parent = waiting.pop()
        for entry in _scan(folder, parent):
            path = f"{parent}{entry.name}"
            if entry.name.startswith(".") or path in RESERVED or _excluded(path, exclude):
                continue
            seen += 1
            if seen > MAX_FILES:
                raise _too_many(folder)
            if not entry.is_dir(follow_symlinks=False):
                yield path, entry
            elif path.count("/") < MAX_DEPTH:
                waiting.append(f"{path}/")
            else:
                check_path(f"{path}/x")


def _scan(folder: Path, parent: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder / parent) as entries:
            found = list(islice(entries, MAX_FILES + 1))
    except OSError as exc:
        raise ModelError(
            f"{_shown(folder, parent)} cannot be read: {exc.strerror}.", cure="Check its permissions."
        ) from exc
    if len(found) > MAX_FILES:
        raise _too_many(folder)
    return found


def _too_many(folder: Path) -> ModelError:
    return ModelError(f"{folder} holds more than {MAX_FILES:,} files.", cure="Give the folder of one model.")


def _excluded(path: str, exclude: Sequence[str]) -> bool:
    return any(path == glob or fnmatchcase(path, glob.rstrip("/")) for glob in exclude)  # a name may hold brackets


def _shown(folder: Path, path: str) -> str:
    """Names may hold bytes and signs that no terminal should get."""
    return printable(os.fsencode(folder / path).decode(errors="backslashreplace"))


def _local(folder: Path, path: str, entry: os.DirEntry[str], homes: tuple[Path, ...]) -> LocalFile:
    try:
        is_link = entry.is_symlink()
        source = Path(os.path.realpath(entry.path, strict=True)) if is_link else homes[0] / path
        status = source.stat(follow_symlinks=False)
    except OSError as exc:
        raise ModelError(f"{_shown(folder, path)} cannot be read: {exc.strerror}.", cure=_LEAVE_OUT) from exc
    if is_link and not any(source.is_relative_to(home) for home in homes):
        raise ModelError(
            f"{_shown(folder, path)} is a link that leaves the folder.",
            cure="Put the file itself there, or leave it out with --exclude.",
        )
    if stat.S_ISDIR(status.st_mode):
        raise ModelError(f"{_shown(folder, path)} is a link to a folder.", cure="Put the folder itself there.")
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{_shown(folder, path)} is not a regular file.", cure=_LEAVE_OUT)
    return LocalFile(path, source, status.st_size)
