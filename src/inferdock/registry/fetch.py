"""Fetches files of a version: in parallel, also the ranges of one file, going on where an earlier try was cut.

Whoever wants the files (`model_cache`, `pull`) says where each is to lie; a file gets its name only with the right
digest. Nothing here knows how a cache or a folder is laid out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from inferdock.domain.errors import IntegrityError, UnreachableError
from inferdock.registry.disk import on_disk
from inferdock.registry.manifest import FileEntry
from inferdock.registry.parallel import Crew
from inferdock.registry.partial import Partial, ranges
from inferdock.registry.progress import Progress
from inferdock.registry.store import BLOCK, Place, Store

CHUNK: Final = 64 * 1024 * 1024
"""Bytes of one range. A process that is killed loses one per thread at most."""
TRIES: Final = 5
"""Times that a range is asked for, in a row without getting on, before the store counts as lost."""
_FIRST_PAUSE_S: Final = 0.5
"""Doubled each time: 7.5 seconds in all, about what a restarting store or a switched route takes."""
_NAP_S: Final = 0.25

Pause = Callable[[float], None]
"""Waits for so many seconds; tests pass another one."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where files come from.

    Attributes:
        store: the store.
        name, version: of which they are files.
    """

    store: Store
    name: str
    version: str

    def place(self, entry: FileEntry) -> Place:
        """Where a file lies."""
        return Place(self.name, self.version, entry.path)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to fetch.

    Attributes:
        entry: what it must be.
        open: begins it or goes on with it; None when another process is at it or was quicker.
        keep: gives it its name once it is whole and right.
    """

    entry: FileEntry
    open: Callable[[], Partial | None]
    keep: Callable[[Partial], None]


class _Short(Exception):
    """The store has fewer bytes than the manifest says."""


class _Job:
    """A file on its way, shared by the threads that fetch its ranges."""

    def __init__(self, wanted: Wanted, chunk: int) -> None:
        self.wanted = wanted
        self.entry = wanted.entry
        self.chunk = chunk
        self.left = ranges(wanted.entry.size, chunk)
        self.busy = False
        self.short = False
        self.moved = 0
        self.partial: Partial | None = None
        self.lock = threading.Lock()

    def begin(self) -> Partial | None:
        """The file, opened once."""
        with self.lock:
            if self.partial is None and not self.busy:
                self.partial = self.wanted.open()
                self.busy = self.partial is None
            return self.partial

    def is_last(self) -> bool:
        """Count a range as dealt with; whether it was the last one."""
        with self.lock:
            self.left -= 1
            return self.left == 0

    def close(self) -> None:
        """Let go of the file."""
        if self.partial is not None:
            self.partial.close()


class _Range:
    """A range of a file; ``at`` moves while it is fetched."""

    def __init__(self, job: _Job, index: int) -> None:
        self.job = job
        self.index = index
        self.at = index * job.chunk
        self.end = min(self.at + job.chunk, job.entry.size)


class Fetcher:
    """Fetches files with a few threads. Memory: one block of a megabyte for each of them.

    Args:
        source: where from.
        where: what messages call the place they are fetched to.
        threads: ranges fetched at once.
        progress: told how far it is.
        chunk: bytes of a range.
        pause: waits between tries.
    """

    def __init__(
        self,
        source: Source,
        where: Path,
        *,
        threads: int,
        progress: Progress,
        chunk: int = CHUNK,
        pause: Pause = time.sleep,
    ) -> None:
        self.fetched_bytes = 0
        """Bytes that came from the store so far, those that came twice counted twice."""
        self.resumed_bytes = 0
        """Bytes that an earlier try had fetched."""
        self._source = source
        self._where = where
        self._crew = Crew(threads)
        self._progress = progress
        self._chunk = chunk
        self._pause = pause
        self._lock = threading.Lock()

    def fetch(self, wanted: Iterable[Wanted]) -> list[Wanted]:
        """Fetch files, the large ones first; called once.

        Returns:
            those that another process is at: look again later.

        Raises:
            IntegrityError: the store has other bytes than the manifest says, twice.
            UnreachableError: the store was lost; what was fetched stays for the next try.
            ResourceError: the disk is full, or not ours to write.
        """
        jobs = [_Job(one, self._chunk) for one in sorted(wanted, key=lambda one: (-one.entry.size, one.entry.sha256))]
        tasks = (_Range(job, index) for job in jobs for index in range(ranges(job.entry.size, self._chunk)))
        try:
            self._crew.map(self._work, tasks)
        finally:
            for job in jobs:
                job.close()
        return [job.wanted for job in jobs if job.busy]

    def _work(self, task: _Range) -> None:
        self._crew.check()
        job = task.job
        with on_disk(self._where):
            partial = job.begin()
        if partial is None:
            return
        if task.index in partial.there:
            with self._lock:
                self.resumed_bytes += task.end - task.at
            self._moved(job, task.end - task.at)
        else:
            self._range(task, partial)
        if job.is_last():
            self._finish(job, partial)

    def _range(self, task: _Range, partial: Partial) -> None:
        """Fetch a range, and again from where it broke off."""
        failures = 0
        while True:
            begin = task.at
            try:
                self._stream(task, partial)
                break
            except _Short:  # the whole file shows what it is worth
                task.job.short = True
                return
            except UnreachableError as exc:
                failures = 1 if task.at - begin >= BLOCK else failures + 1
                if failures == TRIES:
                    raise _lost(exc) from exc
                self._rest(_FIRST_PAUSE_S * 2 ** (failures - 1))
        with on_disk(self._where):
            partial.mark(task.index)

    def _stream(self, task: _Range, partial: Partial) -> None:
        if task.at == task.end:
            return
        place = self._source.place(task.job.entry)
        with self._source.store.open(place, offset=task.at, length=task.end - task.at) as reader:
            while left := task.end - task.at:
                self._crew.check()
                block = reader.read(min(BLOCK, left))[:left]
                if not block:
                    raise _Short
                with on_disk(self._where):
                    partial.write(task.at, block)
                task.at += len(block)
                with self._lock:
                    self.fetched_bytes += len(block)
                self._moved(task.job, len(block))

    def _moved(self, job: _Job, count: int) -> None:
        with job.lock:
            job.moved += count
        self._progress.moved(job.entry.path, count)

    def _rest(self, seconds: float) -> None:
        """Wait, in naps, so that a failure elsewhere or Ctrl-C ends it."""
        while seconds > 0:
            self._crew.check()
            self._pause(min(_NAP_S, seconds))
            seconds -= _NAP_S

    def _finish(self, job: _Job, partial: Partial) -> None:
        """Compare the whole file with its digest; a wrong one is fetched once more."""
        right = self._is_right(job, partial)
        if not right:
            self._again(job, partial)
            right = self._is_right(job, partial)
        with on_disk(self._where):
            if right:
                job.wanted.keep(partial)
            else:
                partial.discard()
        job.close()
        if not right:
            raise self._wrong(job)
        self._progress.done(job.entry.path)

    def _is_right(self, job: _Job, partial: Partial) -> bool:
        if job.short:
            return False
        with on_disk(self._where):
            return partial.digest(lambda _: self._crew.check()) == job.entry.sha256

    def _again(self, job: _Job, partial: Partial) -> None:
        with on_disk(self._where):
            partial.reset()
        self._moved(job, -job.moved)
        job.short = False
        for index in range(ranges(job.entry.size, self._chunk)):
            if not job.short:
                self._range(_Range(job, index), partial)

    def _wrong(self, job: _Job) -> IntegrityError:
        place, location = self._source.place(job.entry), self._source.store.location
        how = f"fewer than its {job.entry.size} bytes" if job.short else "other bytes than were pushed"
        return IntegrityError(
            f"{place} has {how} in {location}.",
            cure="Restore the file from a backup of the store, or push the model again under a new version.",
        )


def _lost(exc: UnreachableError) -> UnreachableError:
    cure = "What was fetched stays: run the same command again to go on from there."
    return UnreachableError(exc.message, cure=f"{exc.cure} {cure}".strip())
