"""One push into the bucket: files, then the manifest, then the record; each write only while the claim is ours."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from inferdock.domain.errors import ConflictError, IntegrityError, ModelError
from inferdock.registry.aws.answers import Head, NoCopyError, NoUploadError, TakenError, base64_of
from inferdock.registry.aws.claim import Claim
from inferdock.registry.aws.claims import Held
from inferdock.registry.aws.memory import Block, Budget, ChangedError, free, read_block
from inferdock.registry.aws.objects import COPY_LIMIT, Objects
from inferdock.registry.aws.parts import Multipart, Part
from inferdock.registry.aws.table import Table
from inferdock.registry.event import Event
from inferdock.registry.manifest import FileEntry, decode
from inferdock.registry.paths import MANIFEST, SIGNATURES
from inferdock.registry.store import Moved, Place

TRIES: Final = 5
"""Writes of one key that may meet another writer."""


@dataclass(kw_only=True)
class AwsUpload:
    """A push that is under way; see `store.Upload`.

    Attributes:
        objects, table: of the store.
        held, claim: the right to push this version.
        uploads: ids of uploads that an earlier try of the same content left, by key.
        pool: threads that send parts.
        budget: of memory.
        copy_limit: bytes above which a copy is made in parts.
    """

    objects: Objects
    table: Table
    held: Held
    claim: Claim
    uploads: Mapping[str, list[str]]
    pool: Executor
    budget: Budget
    copy_limit: int = COPY_LIMIT
    _etags: dict[str, str] = field(default_factory=dict)

    @property
    def _what(self) -> str:
        return f"{self.held.name}@{self.held.version}"

    def _key(self, path: str) -> str:
        return self.objects.address.key(self.held.name, self.held.version, path)

    def has(self, entry: FileEntry) -> bool:
        key = self._key(entry.path)
        head = self.objects.head(key)
        return head is not None and self._right(key, head, entry, _unmoved)

    def _right(self, key: str, head: Head, entry: FileEntry, moved: Moved, composite: str | None = None) -> bool:
        """Whether an object is the file; then :meth:`commit` asks whether it still is that object."""
        if not self.objects.proven(key, head, entry, moved, composite=composite):
            return False
        self._etags[entry.path] = head.etag.strip('"')
        return True

    # -- copying -------------------------------------------------------------------------------------------------

    def copy(self, entry: FileEntry, source: Place, moved: Moved) -> bool:
        key, from_key = self._key(entry.path), self.objects.address.key(source.name, source.version, source.path)
        head = self.objects.head(from_key)
        if head is None or head.size != entry.size or not head.etag:
            return False
        if not head.parts and head.checksum not in (None, base64_of(entry.sha256)):
            return False
        self.claim.check()
        try:
            large = entry.size > self.copy_limit
            copied = (self._copy_parts if large else self._copy_whole)(from_key, head, key, entry, moved)
        except (NoCopyError, NoUploadError, TakenError):
            return False
        # What the checksum of the source's parts does not prove is read back: a damaged file must not spread.
        composite = head.checksum if head.parts and head.digest == entry.sha256 else None
        if not self._right(key, copied, entry, moved, composite=composite or ""):
            return False
        moved(entry.size)
        return True

    def _copy_whole(self, source: str, head: Head, key: str, entry: FileEntry, moved: Moved) -> Head:
        return self.objects.copy(source, head, key, entry.sha256)

    def _copy_parts(self, source: str, head: Head, key: str, entry: FileEntry, moved: Moved) -> Head:
        """Copy in the parts in which the source was sent: then the checksum of the parts' checksums is the same."""
        size = self.objects.layout(source) if head.parts else 0
        if not size or -(-entry.size // size) != head.parts:
            raise NoCopyError
        upload = self.objects.create(key, entry.sha256)
        futures: list[Future[Part]] = []

        def one(number: int, begin: int) -> Part:
            moved(0)
            self.claim.check()
            end = min(begin + size, entry.size)
            part: Part = self.objects.copy_part((source, head), key, upload, number, begin, end)
            return part

        try:
            begins = range(0, entry.size, size)
            futures = [self.pool.submit(one, number, begin) for number, begin in enumerate(begins, 1)]
            parts = [future.result() for future in futures]
            return self.objects.complete(key, upload, parts, None)
        except BaseException:
            for future in futures:
                future.cancel()
            wait(futures)
            self.objects.abort(key, upload)
            raise

    # -- sending -------------------------------------------------------------------------------------------------

    def send(self, entry: FileEntry, source: Path, moved: Moved) -> None:
        try:
            with source.open("rb") as file:
                if entry.size <= self.objects.part_bytes:
                    self._send_whole(entry, file, moved)
                else:
                    self._send_parts(entry, file, moved)
        except ChangedError as exc:
            raise ModelError(
                f"{source} was changed while it was being pushed.", cure="Run the command again when it is complete."
            ) from exc
        except OSError as exc:
            raise ModelError(f"{source} cannot be read: {exc.strerror}.", cure="Check its permissions.") from exc

    def _send_whole(self, entry: FileEntry, file: IO[bytes], moved: Moved) -> None:
        with self.budget.hold(entry.size):
            data = read_block(file, entry.size)
            try:
                if file.read(1) or hashlib.sha256(data).hexdigest() != entry.sha256:
                    raise ChangedError
                self._put(entry, data, moved)
            finally:
                free(data)
        moved(entry.size)

    def _put(self, entry: FileEntry, data: Block, moved: Moved) -> None:
        key = self._key(entry.path)
        self._settle(entry, lambda over: self.objects.put(key, data, entry.sha256, over), moved)

    def _send_parts(self, entry: FileEntry, file: IO[bytes], moved: Moved) -> None:
        key = self._key(entry.path)
        multipart = Multipart(
            objects=self.objects,
            key=key,
            entry=entry,
            file=file,
            uploads=list(self.uploads.get(key, ())),
            check=self.claim.check,
            moved=moved,
            pool=self.pool,
            budget=self.budget,
        )
        self._settle(entry, multipart.write, moved, over=self.objects.head(key), multipart=multipart)
        multipart.finish()

    def _settle(
        self,
        entry: FileEntry,
        write: Callable[[Head | None], Head],
        moved: Moved,
        *,
        over: Head | None = None,
        multipart: Multipart | None = None,
    ) -> None:
        """Write until the object is the file, over what an earlier push left and over nothing else.

        Raises:
            ConflictError: somebody else writes it, too.
            IntegrityError: other bytes arrived.
        """
        key = self._key(entry.path)
        for _ in range(TRIES):
            moved(0)
            self.claim.check()  # after the last look at what is there, before the write that depends on it
            try:
                written = write(over)
            except TakenError:
                over = self.objects.head(key)
                if over is not None and self._right(key, over, entry, moved):
                    return
                continue
            if self._right(key, written, entry, moved, multipart.composite if multipart else ""):
                return
            raise IntegrityError(
                f"Other bytes of {entry.path} arrived in {self.objects.address} than were sent.",
                cure="Run the command again; when it comes back, check this machine's memory and network.",
            )
        raise ConflictError(f"Somebody else writes {entry.path} of {self._what}.", cure="Run the command again.")

    # -- the record ----------------------------------------------------------------------------------------------

    def commit(self, event: Event, manifest: bytes, signatures: bytes | None) -> bool:
        self.claim.check()
        decoded = decode(manifest, what=f"{MANIFEST} of {self._what}")
        folder = self.objects.address.folder(self.held.name, self.held.version)
        there = self.objects.listed(folder)
        for entry in decoded.content.files:
            self._check_there(entry, there.get(entry.path))
        self.objects.abort_all(folder)  # whatever is still open is of no use now
        self._put_own(MANIFEST, manifest)
        if signatures is not None or SIGNATURES in there:
            self._put_own(SIGNATURES, signatures or b"")  # empty: what an earlier try signed does not count
        more = {"location": {"S": f"s3://{self.objects.address.bucket}/{folder}"}}
        if decoded.content.engine.image is not None:
            more["docker_image"] = {"S": decoded.content.engine.image}
        with self.claim.still():
            if not self.table.commit(event, self.held.token, more):
                return False
            self.claim.use_up()
        return True

    def _check_there(self, entry: FileEntry, found: tuple[int, str] | None) -> None:
        known = self._etags.get(entry.path)
        if found is None or found[0] != entry.size or known not in (None, found[1].strip('"')):
            raise IntegrityError(
                f"{entry.path} of {self._what} is {'not' if found is None else 'no longer what was sent'} in "
                f"{self.objects.address}.",
                cure="Run the command again: it sends what is missing.",
            )

    def _put_own(self, path: str, data: bytes) -> None:
        entry = FileEntry(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        self._put(entry, data, _unmoved)


class Settled:
    """A push of a version that came to be since the caller looked: nothing is written, and the caller decides again."""

    def has(self, entry: FileEntry) -> bool:
        return True

    def copy(self, entry: FileEntry, source: Place, moved: Moved) -> bool:
        return True

    def send(self, entry: FileEntry, source: Path, moved: Moved) -> None:
        return None

    def commit(self, event: Event, manifest: bytes, signatures: bytes | None) -> bool:
        return False


def _unmoved(count: int) -> None:
    """Nobody asks."""
