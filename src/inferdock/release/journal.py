"""The journal of one release: lines of JSON in one file, each naming the digest of the line before, synced to disk.

A step counts as begun, or done, when its line is on disk; so whoever takes over knows what may have happened. A crash
can leave half a line at the end. Nothing rested on it yet, so readers leave it out and the next writer cuts it off.
Anything else that is not right is refused: the file was changed by something that is no runner.

Only who holds the lease writes. Reading is free at any time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from inferdock.domain.errors import ConfigError, ConflictError, IntegrityError, RegistryError, ResourceError
from inferdock.domain.moment import spell
from inferdock.release.events import MAX_EVENTS, NO_EVENT, Entry, Event, Planned
from inferdock.release.plan import ID, Plan
from inferdock.release.progress import Progress, after, fold

MAX_LINE_BYTES: Final = 256 * 1024
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
SUFFIX: Final = ".jsonl"
MAX_TEXT: Final = 2000
NEWEST: Final = 20
"""Releases that are asked whether they are over: there is one at a time, so all but the newest are."""
_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_DECODER: Final = msgspec.json.Decoder(Event)
_ENCODE: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class By:
    """Who does something.

    Attributes:
        actor: who, "" for the runner itself.
        origin: from where.
    """

    actor: str
    origin: str


class Journals:
    """All releases of one platform: a folder with a file for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, release: str) -> Path:
        """The journal's file.

        Raises:
            ConfigError: that is no release's id.
        """
        if not re.fullmatch(ID, release):
            raise ConfigError(
                f"{release[:100]!r} is no id of a release.", cure="`inferdock release history` lists them."
            )
        return self.folder / f"{release}{SUFFIX}"

    def ids(self) -> list[str]:
        """Every release, oldest first by its id."""
        with _told(self.folder):
            try:
                names = os.listdir(self.folder)
            except FileNotFoundError:
                return []
        return sorted(
            name.removesuffix(SUFFIX)
            for name in names
            if name.endswith(SUFFIX) and re.fullmatch(ID, name.removesuffix(SUFFIX))
        )

    def create(self, plan: Plan, by: By, now: datetime, *, reason: str) -> Journal:
        """Begin a journal; it is there with its plan, or not at all.

        Raises:
            ConflictError: there is one of that id.
            ConfigError: the plan holds what cannot be written.
            ResourceError: the file cannot be written.
        """
        path = self.path(plan.id)
        event = Event(
            seq=1,
            time=spell(now),
            actor=clean(by.actor, 500),
            origin=clean(by.origin, 500),
            reason=clean(reason, MAX_TEXT),
            previous=NO_EVENT,
            entry=Planned(plan=plan),
        )
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with _told(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                _write_new(draft, _line(event))
                os.link(draft, path)
            except FileExistsError:
                raise ConflictError(f"There is a release {plan.id} already.", cure="Choose another id.") from None
            finally:
                draft.unlink(missing_ok=True)
            _sync_folder(self.folder)
        return self.open(plan.id)

    def open(self, release: str) -> Journal:
        """A journal to write to, under the lease.

        Raises:
            RegistryError: there is no such release.
            IntegrityError: it is damaged.
            ResourceError: it cannot be opened.
        """
        return Journal(self._there(release))

    def events(self, release: str) -> list[Event]:
        """All events of a release, without the lease.

        Raises:
            RegistryError: there is no such release.
            IntegrityError: it is damaged.
        """
        path = self._there(release)
        with _told(path):
            descriptor = os.open(path, os.O_RDONLY | _FLAGS)
        with open(descriptor, "rb") as file:
            return _read(file.fileno(), path).events

    def _there(self, release: str) -> Path:
        path = self.path(release)
        if not path.exists():
            raise RegistryError(
                f"There is no release {release}.", cure="`inferdock release history` lists those there are."
            )
        return path

    def progress(self, release: str) -> Progress:
        """What a release amounts to now.

        Raises:
            RegistryError: there is no such release.
            IntegrityError: its journal is damaged.
        """
        return fold(self.events(release))

    def unfinished(self) -> Progress | None:
        """The newest release that is not over; None when all are.

        Raises:
            IntegrityError: a journal is damaged.
        """
        for release in self.ids()[:-NEWEST:-1]:
            progress = self.progress(release)
            if not progress.over:
                return progress
        return None


class Journal:
    """One release's file, open for writing. Only under the lease.

    Attributes:
        progress: what it amounts to; grows with each :meth:`append`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _told(path):
            self._file = os.open(path, os.O_RDWR | _FLAGS)
        try:
            found = _read(self._file, path)
            self.progress = fold(found.events)
            with _told(path):
                os.ftruncate(self._file, found.size)
                os.fsync(self._file)
        except BaseException:
            os.close(self._file)
            raise
        self._size, self._head = found.size, found.head
        self._broken = False

    def append(self, entry: Entry, by: By, now: datetime, *, reason: str = "") -> Event:
        """Write an event and wait until the disk has it.

        Raises:
            ResourceError: it could not be written, or the journal is full; nothing counts as having happened.
            ConfigError: it holds what cannot be written.
            IntegrityError: it cannot follow what is there (a defect of the caller).
        """
        if self._broken:
            raise ResourceError(f"{self._path} could not be written before.", cure="Resume the release.")
        event = Event(
            seq=self.progress.seq + 1,
            time=max(spell(now), self.progress.time),
            actor=clean(by.actor, 500),
            origin=clean(by.origin, 500),
            reason=clean(reason, MAX_TEXT),
            previous=self._head,
            entry=entry,
        )
        progress = after(self.progress, event)
        line = _line(event)
        if event.seq > MAX_EVENTS or self._size + len(line) > MAX_FILE_BYTES:
            raise ResourceError(f"The journal {self._path} is full.", cure="Abort the release and begin another.")
        self._write(line)
        self._size, self._head, self.progress = self._size + len(line), _digest(line), progress
        return event

    def _write(self, line: bytes) -> None:
        # Whatever goes wrong here, the state of the file is unknown: nothing more is written, and opening it again
        # tells. After a failed fsync the kernel may have dropped the pages and would call the next one a success.
        try:
            with _told(self._path):
                view, at = memoryview(line), self._size
                while view:
                    written = os.pwrite(self._file, view, at)
                    view, at = view[written:], at + written
                os.fsync(self._file)
        except BaseException:
            self._broken = True
            raise

    def close(self) -> None:
        """Let the file go."""
        os.close(self._file)


@dataclass(frozen=True, slots=True)
class _Found:
    events: list[Event]
    size: int
    head: str


def _read(file: int, path: Path) -> _Found:
    """Every whole line, its chain checked."""
    with _told(path):
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
            raise IntegrityError(f"{path} is no journal: too long, or no file.", cure="Move it away.")
        data = _all(file, status.st_size)
    whole = data[: data.rfind(b"\n") + 1]
    events: list[Event] = []
    head = NO_EVENT
    for line in _lines(whole):
        if len(events) >= MAX_EVENTS:
            raise _damaged(path, len(events) + 1, "there are too many")
        event = _decode(line, path, len(events) + 1)
        if event.seq != len(events) + 1 or event.previous != head:
            raise _damaged(path, len(events) + 1, "a line was changed, lost or put in")
        events.append(event)
        head = _digest(line)
    return _Found(events, len(whole), head)


def _lines(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        end = data.index(b"\n", at) + 1
        yield data[at:end]
        at = end


def _all(file: int, size: int) -> bytes:
    parts = []
    at = 0
    while at < size and (part := os.pread(file, size - at, at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _decode(line: bytes, path: Path, number: int) -> Event:
    try:
        if len(line) > MAX_LINE_BYTES:
            raise ValueError("it is too long")
        return _DECODER.decode(line)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise _damaged(path, number, str(exc)[:200]) from exc


def _damaged(path: Path, number: int, why: str) -> IntegrityError:
    return IntegrityError(
        f"The journal {path} is damaged at line {number}: {why}.", cure="Restore it from a backup, or move it away."
    )


def _line(event: Event) -> bytes:
    """The line of an event, which can be read back: what could not would make the whole journal useless.

    Raises:
        ConfigError: it holds what a journal cannot.
    """
    try:
        line = _ENCODE(event) + b"\n"
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"{len(line)} bytes are too long")
        _DECODER.decode(line)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as exc:
        raise ConfigError(f"A journal cannot keep this: {str(exc)[:300]}.", cure="Change it, and try again.") from exc
    return line


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _write_new(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)  # a crash of a process of this number may have left one
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """What the system says about the file becomes a :class:`ResourceError` that names it."""
    try:
        yield
    except OSError as exc:
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = "Make room on the disk, then resume." if full else "Check its owner and permissions."
        raise ResourceError(f"{path} cannot be used: {exc.strerror or exc}.", cure=cure) from exc


def clean(text: str, limit: int) -> str:
    """What a person or a program said, so that a journal can hold it: a command line may hold what is no Unicode."""
    return text[:limit].encode("utf-8", "replace").decode()
