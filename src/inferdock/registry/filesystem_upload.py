"""A push into a directory store: whole files are gathered in ``staging``, and moved to their place all at once.

``staging/NAME/vVERSION/REVISION/`` holds files as they will be, each durable and compared with its digest before it
gets its name there; ``.../parts/`` holds those that are being written. A file that was cut is written from its
beginning again: comparing what is there would cost as much.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from inferdock.domain.errors import ConflictError, IntegrityError, ModelError
from inferdock.registry.event import Event
from inferdock.registry.filesystem_disk import Disk, fsync_folder, read_all, told, write_all
from inferdock.registry.filesystem_history import History
from inferdock.registry.hashing import Copied, ReadInto, copy_hashed, fd_sha256, opened
from inferdock.registry.manifest import MAX_MANIFEST_BYTES, FileEntry, decode
from inferdock.registry.names import Version, check_name
from inferdock.registry.paths import MANIFEST, SIGNATURES, check_path
from inferdock.registry.store import Moved, Place

STAGING: Final = "staging"
MODELS: Final = "models"


def home(name: str, version: str) -> str:
    """The folder of a version that exists.

    Raises:
        ConfigError: name or version are none.
    """
    return f"{MODELS}/{check_name(name)}/v{Version.parse(version)}"


class DirectoryUpload:
    """A push that is under way; made and used under the version's lock.

    Args:
        disk, history: of the store.
        name, version: what is pushed.
        revision: of its content.
    """

    def __init__(self, disk: Disk, history: History, *, name: str, version: str, revision: str) -> None:
        self._disk, self._history = disk, history
        self._name, self._version, self._revision = name, version, revision
        self._home = home(name, version)
        self._work = f"{STAGING}/{name}/v{version}"
        self._files = f"{self._work}/{revision}"
        self._parts = f"{self._work}/parts"
        self._whole: set[str] = set()

    def prepare(self) -> None:
        """Take over what an earlier push of this revision left, and remove what others did."""
        with told(self._disk.root, self._work):
            for name in self._disk.listing(self._work):
                if name != self._revision:
                    self._disk.discard(f"{self._work}/{name}")
            if not self._disk.exists(self._home) or self._history.lives(self._name, self._version):
                return
            # Moved to its place, but never recorded: a push died in between, or the version was deleted.
            if self._revision_at_home() == self._revision and not self._disk.exists(self._files):
                self._disk.move(self._home, self._files)
            else:
                self._disk.discard(self._home)

    def _revision_at_home(self) -> str | None:
        try:
            with self._disk.file(f"{self._home}/{MANIFEST}") as fd:
                return decode(read_all(fd, MAX_MANIFEST_BYTES), what=MANIFEST).revision
        except (OSError, IntegrityError):
            return None

    def has(self, entry: FileEntry) -> bool:
        """See `store.Upload`; the file is hashed again, since a loss of power may have come in between."""
        path = self._staged(entry)
        with told(self._disk.root, path):
            if self._is_whole(path, entry):
                self._whole.add(entry.path)
                return True
        return False

    def _is_whole(self, path: str, entry: FileEntry, moved: Moved = lambda count: None) -> bool:
        try:
            with self._disk.file(path) as fd:
                return os.fstat(fd).st_size == entry.size and fd_sha256(fd, moved) == entry.sha256
        except OSError:  # missing, or not to be read: it is brought again
            return False

    def copy(self, entry: FileEntry, source: Place, moved: Moved) -> bool:
        """See `store.Upload`. The file gets a second name; it is hashed, so that a damaged one does not spread."""
        check_path(source.path)
        there = f"{home(source.name, source.version)}/{source.path}"
        part, count = self._part(entry), _Count(moved)
        with told(self._disk.root, part):
            if not self._link(there, part) and not self._copy_bytes(there, part, entry):
                return False
            if self._is_whole(part, entry, count):
                self._put(part, entry)
                return True
            self._disk.unlink(part)
        moved(-count.total)
        return False

    def _link(self, source: str, part: str) -> bool:
        self._disk.unlink(part)
        try:
            self._disk.link(source, part)
        except OSError:  # gone, another user's, or no second names here
            return False
        return True

    def _copy_bytes(self, source: str, part: str, entry: FileEntry) -> bool:
        """Where a file cannot have two names; False when the source is gone or cannot be read."""
        with contextlib.ExitStack() as stack:
            try:
                fd = stack.enter_context(self._disk.file(source))
            except OSError:
                return False
            with contextlib.suppress(ModelError), self._disk.draft(part) as target:
                copy_hashed(_reading(fd, Path(source)), target, lambda count: None, limit=entry.size)
                return True
        return False

    def send(self, entry: FileEntry, source: Path, moved: Moved) -> None:
        """See `store.Upload`."""
        part = self._part(entry)
        with _source(source) as fd, told(self._disk.root, part), self._disk.draft(part) as target:
            copied = copy_hashed(_reading(fd, source), target, moved, limit=entry.size)
            if copied != Copied(entry.sha256, entry.size):
                raise ModelError(
                    f"{source} was changed while it was being pushed.",
                    cure="Wait until it is written, then push again.",
                )
        with told(self._disk.root, part):
            self._put(part, entry)

    def _staged(self, entry: FileEntry) -> str:
        check_path(entry.path)
        return f"{self._files}/{entry.path}"

    def _part(self, entry: FileEntry) -> str:
        check_path(entry.path)
        return f"{self._parts}/{hashlib.sha256(entry.path.encode()).hexdigest()}"

    def _put(self, part: str, entry: FileEntry) -> None:
        self._disk.move(part, self._staged(entry))
        self._whole.add(entry.path)

    def commit(self, event: Event, manifest: bytes, signatures: bytes | None) -> bool:
        """See `store.Upload`."""
        what = f"{self._name}@{self._version}"
        entries = decode(manifest, what=f"{MANIFEST} of {what}").content.files
        if self._history.taken(self._name, event.seq) or self._history.lives(self._name, self._version):
            return False
        with told(self._disk.root, self._files):
            self._write(MANIFEST, manifest)
            self._write(SIGNATURES, signatures)
            self._check({entry.path: entry.size for entry in entries})
            self._bring_home()
        if self._history.append(event):
            with contextlib.suppress(OSError):  # the version is there; what is left goes with the next push
                self._disk.discard(self._work)
            return True
        with told(self._disk.root, self._files):
            self._disk.move(self._home, self._files)
        return False

    def _write(self, name: str, data: bytes | None) -> None:
        if data is None:  # also what an earlier try left
            self._disk.unlink(f"{self._files}/{name}")
            return
        with self._disk.draft(f"{self._files}/{name}") as fd:
            write_all(fd, data)

    def _check(self, sizes: dict[str, int]) -> None:
        """Compare what is there with what must be, take away what must not, and make the names durable."""
        found: dict[str, int] = {}
        with self._disk.folder(self._files) as top:
            for where, folders, files, folder in os.fwalk(".", topdown=False, dir_fd=top):
                above = "" if where == "." else f"{where[2:]}/"
                for name in [*files, *folders]:
                    state = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    if above + name in sizes and stat.S_ISREG(state.st_mode):
                        found[above + name] = state.st_size
                    elif not stat.S_ISDIR(state.st_mode) and above + name not in (MANIFEST, SIGNATURES):
                        os.unlink(name, dir_fd=folder)
                fsync_folder(folder)
        for path, size in sizes.items():
            if path not in self._whole or found.get(path) != size:
                raise IntegrityError(
                    f"{path!r} of {self._name}@{self._version} did not arrive in {self._disk.root}.", cure="Push again."
                )

    def _bring_home(self) -> None:
        try:
            self._disk.move(self._files, self._home)
        except OSError as exc:
            if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise ConflictError(
                f"Somebody else put files at {self._disk.root / self._home}.", cure="Push again."
            ) from exc
        self._disk.sync(self._home.rpartition("/")[0])


class _Count:
    """Passes on how many bytes were moved, and adds them up."""

    def __init__(self, moved: Moved) -> None:
        self._moved = moved
        self.total = 0

    def __call__(self, count: int) -> None:
        self.total += count
        self._moved(count)


@contextlib.contextmanager
def _source(path: Path) -> Iterator[int]:
    """The file that is pushed; what is wrong with it is not the store's fault."""
    with contextlib.ExitStack() as stack:
        try:
            fd = stack.enter_context(opened(path))
        except OSError as exc:
            raise _unreadable(path, exc) from exc
        yield fd


def _reading(fd: int, path: Path) -> ReadInto:
    def read(buffer: memoryview) -> int:
        try:
            return os.readv(fd, [buffer])
        except OSError as exc:
            raise _unreadable(path, exc) from exc

    return read


def _unreadable(path: Path, exc: OSError) -> ModelError:
    return ModelError(f"{path} cannot be read: {exc.strerror}.", cure="Check the file and its permissions.")
