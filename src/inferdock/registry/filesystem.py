"""A registry in a directory of this machine or of a network mount. The default.

::

    models/NAME/vVERSION/...            a version's files, MANIFEST.json and MANIFEST.sig; in place before the record
    history/NAME/0000000001.json, ...   its events; a version exists if its push is among them
    staging/NAME/vVERSION/REVISION/...  what pushes that did not end left, for the next try
    locks/NAME@VERSION                  held while a version is pushed or removed

Safe when a writer dies at any point or the power goes, and with several writers on several machines, as long as they
share a file system with locks.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from inferdock.domain.errors import IntegrityError
from inferdock.registry.event import Event
from inferdock.registry.filesystem_disk import Disk, read_all, told
from inferdock.registry.filesystem_history import History
from inferdock.registry.filesystem_lock import held
from inferdock.registry.filesystem_upload import DirectoryUpload, home
from inferdock.registry.manifest import MAX_MANIFEST_BYTES
from inferdock.registry.names import Version, check_name
from inferdock.registry.paths import MANIFEST, SIGNATURES, check_path
from inferdock.registry.store import Place

MAX_SIGNATURES_BYTES: Final = 1024 * 1024
"""Thousands of signatures fit."""


class FilesystemStore:
    """A store in a directory; see `store.Store`.

    Args:
        root: its folder; made with the first push.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._disk = Disk(self._root)
        self._history = History(self._disk)

    @property
    def location(self) -> str:
        """The folder."""
        return str(self._root)

    def names(self) -> list[str]:
        """See `store.Store`."""
        return self._history.names()

    def events(self, name: str) -> list[Event]:
        """See `store.Store`."""
        return self._history.events(name)

    def append(self, event: Event) -> bool:
        """See `store.Store`."""
        return self._history.append(event)

    def manifest(self, name: str, version: str) -> tuple[bytes, bytes | None]:
        """See `store.Store`."""
        folder = home(name, version)
        data = self._small(f"{folder}/{MANIFEST}", MAX_MANIFEST_BYTES)
        if data is None:
            raise self._missing(f"{MANIFEST} of {name}@{version}")
        return data, self._small(f"{folder}/{SIGNATURES}", MAX_SIGNATURES_BYTES)

    def _small(self, path: str, limit: int) -> bytes | None:
        with self._reading(path) as fd:
            if fd is None:
                return None
            with told(self._root, path):
                data = read_all(fd, limit)
        if len(data) > limit:
            raise IntegrityError(f"{self._root / path} is larger than {limit >> 20} MiB.")
        return data

    @contextlib.contextmanager
    def open(self, place: Place, *, offset: int = 0, length: int | None = None) -> Iterator[FileReader]:
        """See `store.Store`."""
        check_path(place.path)
        path = f"{home(place.name, place.version)}/{place.path}"
        with self._reading(path) as fd:
            if fd is None:
                raise self._missing(str(place))
            with told(self._root, path):
                os.lseek(fd, offset, os.SEEK_SET)
            yield FileReader(fd, length, self._root, path)

    @contextlib.contextmanager
    def _reading(self, path: str) -> Iterator[int | None]:
        """A file of a version; None where there is none."""
        with contextlib.ExitStack() as stack:
            fd: int | None = None
            with told(self._root, path), contextlib.suppress(FileNotFoundError):
                try:
                    fd = stack.enter_context(self._disk.file(path))
                except OSError as exc:
                    if exc.errno not in (0, errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
                        raise
                    raise IntegrityError(
                        f"{self._root / path} is not a file.", cure="Restore it from a backup of the store."
                    ) from exc
            yield fd

    def _missing(self, what: str) -> IntegrityError:
        return IntegrityError(
            f"There is no {what} in {self._root}.",
            cure="Restore it from a backup of the store, or push the model again under a new version.",
        )

    @contextlib.contextmanager
    def begin(self, name: str, version: str, *, revision: str, actor: str) -> Iterator[DirectoryUpload]:
        """See `store.Store`."""
        version = str(Version.parse(version))
        upload = DirectoryUpload(self._disk, self._history, name=name, version=version, revision=revision)
        with self._locked(name, version, f"pushed right now by {actor}"):
            upload.prepare()
            yield upload

    def remove(self, name: str, version: str) -> None:
        """See `store.Store`. A version that was pushed again meanwhile stays.

        Raises:
            ConflictError: it is being pushed again right now.
        """
        version = str(Version.parse(version))
        with self._locked(name, version, "deleted right now"):
            if not self._history.lives(name, version):
                with told(self._root, home(name, version)):
                    self._disk.discard(home(name, version))

    def _locked(self, name: str, version: str, doing: str) -> contextlib.AbstractContextManager[None]:
        return held(self._disk, f"{check_name(name)}@{version}", what=f"{name}@{version}", doing=doing)


class FileReader:
    """The bytes of an open file from where it stands; see `store.Reader`.

    Args:
        fd: the file.
        length: bytes to give, None for all.
        root, path: which file, for errors.
    """

    def __init__(self, fd: int, length: int | None, root: Path, path: str) -> None:
        self._fd, self._left = fd, length
        self._root, self._path = root, path

    def read(self, size: int, /) -> bytes:
        """See `store.Reader`."""
        if self._left is not None:
            size = min(size, self._left)
        with told(self._root, self._path):
            data = os.read(self._fd, size)
        if self._left is not None:
            self._left -= len(data)
        return data
