"""Sends one large file in parts: several at once, within a bound of memory, going on with what an earlier try left."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field
from typing import IO, Any

from inferdock.registry.aws.answers import Head, NoUploadError, TakenError
from inferdock.registry.aws.memory import Block, Budget, ChangedError, free, read_block
from inferdock.registry.aws.objects import MAX_PARTS, Objects
from inferdock.registry.manifest import FileEntry
from inferdock.registry.store import Moved

Part = Mapping[str, object]
"""What completes an upload wants to know of a part."""


def part_size(size: int, wanted: int) -> int:
    """Bytes of the parts of a file, so that they are not too many."""
    return max(wanted, -(-size // MAX_PARTS))


@dataclass(kw_only=True)
class Multipart:
    """One file that is sent in parts, once or again.

    Attributes:
        objects, key, entry: where it goes, and what it is.
        file: the open file.
        uploads: ids of uploads that an earlier try left for the key.
        check: raises when we may no longer write.
        moved: told how many bytes were moved; below 0 where some must be sent again.
        pool: threads that send.
        budget: of memory, for all files together.
        composite: checksum of the parts' checksums, "" before all are there.
    """

    objects: Objects
    key: str
    entry: FileEntry
    file: IO[bytes]
    uploads: list[str]
    check: Callable[[], None]
    moved: Moved
    pool: Executor
    budget: Budget
    composite: str = ""
    _upload: str = ""
    _parts: list[Part] = field(default_factory=list)
    _counted: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, over: Head | None) -> Head:
        """Send what is not there yet, and make one object of it; see :meth:`Objects.complete`.

        Raises:
            TakenError: something else is there; look at it and call once more.
            ChangedError: the file was changed.
        """
        try:
            if not self._upload:
                self._send()
            self.check()
            return self.objects.complete(self.key, self._upload, self._parts, over)
        except NoUploadError as exc:  # somebody completed it, or gave it up
            self._count(-self._counted)
            self._upload, self._parts, self.composite = "", [], ""
            raise TakenError from exc

    def _send(self) -> None:
        upload, there = self._left()
        upload = upload or self.objects.create(self.key, self.entry.sha256)
        size = part_size(self.entry.size, self.objects.part_bytes)
        whole, checksums = hashlib.sha256(), []
        pending: deque[Future[tuple[Part, bytes]]] = deque()
        parts: list[Part] = []
        self.file.seek(0)

        def collect(*, every: bool) -> None:
            while pending and (every or pending[0].done()):
                part, checksum = pending.popleft().result()
                parts.append(part)
                checksums.append(checksum)

        try:
            for number, begin in enumerate(range(0, self.entry.size, size), 1):
                length = min(size, self.entry.size - begin)
                self.budget.take(length)
                pending.append(self._submit(upload, number, length, there.get(number), whole))
                collect(every=False)  # the first failure ends the rest
            collect(every=True)
            if self.file.read(1) or whole.hexdigest() != self.entry.sha256:
                raise ChangedError
        finally:
            for future in pending:
                future.cancel()
            wait(pending)
        self.composite = base64.b64encode(hashlib.sha256(b"".join(checksums)).digest()).decode()
        self._upload, self._parts = upload, parts

    def _submit(self, upload: str, number: int, length: int, there: Any, whole: Any) -> Future[tuple[Part, bytes]]:
        """Read a part and let it be sent; its memory is given back when that is over, or never began."""
        data: Block = b""

        def done(_: object) -> None:
            free(data)
            self.budget.give(length)

        try:
            data = read_block(self.file, length)
            whole.update(data)
            future = self.pool.submit(self._one, upload, number, data, there)
        except BaseException:
            done(None)
            raise
        future.add_done_callback(done)
        return future

    def _one(self, upload: str, number: int, data: Block, there: Any) -> tuple[Part, bytes]:
        self.moved(0)
        self.check()
        checksum = hashlib.sha256(data).digest()
        text = base64.b64encode(checksum).decode()
        if there is not None and _same(there, data, text):
            part: dict[str, object] = {"PartNumber": number, "ETag": there["ETag"]}
            if there.get("ChecksumSHA256"):
                part["ChecksumSHA256"] = text
            self._count(len(data))
            return part, checksum
        sent = self.objects.put_part(self.key, upload, number, data, text)
        self._count(len(data))
        return sent, checksum

    def finish(self) -> None:
        """Count what nobody had to send: the file was there."""
        self._count(self.entry.size - self._counted)

    def _count(self, size: int) -> None:
        with self._lock:
            self._counted += size
        self.moved(size)

    def _left(self) -> tuple[str, Mapping[int, Mapping[str, Any]]]:
        """The newest upload that an earlier try left, and what is there of it."""
        while self.uploads:
            upload = self.uploads.pop()
            try:
                return upload, self.objects.parts(self.key, upload)
            except NoUploadError:
                continue
        return "", {}


def _same(there: Mapping[str, Any], data: Block, checksum: str) -> bool:
    """Whether a part that is there has these bytes: by its SHA-256, or its MD5 where the store keeps no other."""
    if int(there.get("Size", -1)) != len(data):
        return False
    if there.get("ChecksumSHA256"):
        return str(there["ChecksumSHA256"]) == checksum
    return str(there.get("ETag", "")).strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest()
