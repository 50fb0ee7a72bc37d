"""Objects of a bucket: looked at, written with conditions, read, copied, removed. Nothing here knows what a push is."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from botocore.exceptions import ClientError

from inferdock.config.settings import RegistryS3Settings
from inferdock.domain.errors import IntegrityError
from inferdock.registry.aws.address import Address
from inferdock.registry.aws.answers import (
    DIGEST,
    Head,
    NoUploadError,
    TakenError,
    base64_of,
    head_of,
    no_copy,
    no_upload,
    taken,
)
from inferdock.registry.aws.client import Clients
from inferdock.registry.aws.errors import MISSING, code_of
from inferdock.registry.aws.memory import Block, rewind
from inferdock.registry.aws.reader import ObjectReader, ranged
from inferdock.registry.manifest import FileEntry
from inferdock.registry.store import BLOCK, Moved

MAX_PARTS: Final = 10_000
"""Parts that one object may have."""
COPY_LIMIT: Final = 5 * 1024**3
"""Largest object that is copied in one request."""
BATCH: Final = 1000
"""Keys that are removed in one request."""


class Objects:
    """The objects of one registry.

    Args:
        clients: of the store.
        address: bucket and prefix.
        settings: encryption, size of parts, whether the store knows conditions.
    """

    def __init__(self, clients: Clients, address: Address, settings: RegistryS3Settings) -> None:
        self._s3 = clients.s3
        self._edge = clients.edge
        self.address = address
        self.part_bytes = settings.part_bytes
        self._conditions = settings.conditional_writes
        self._encryption: dict[str, str] = {}
        if settings.encryption != "bucket":
            self._encryption["ServerSideEncryption"] = settings.encryption
            if settings.encryption == "aws:kms" and settings.kms_key_id:
                self._encryption["SSEKMSKeyId"] = settings.kms_key_id

    # -- looking -------------------------------------------------------------------------------------------------

    def head(self, key: str) -> Head | None:
        """What is there; None for nothing."""
        with self._edge.doing(f"look at {key}"):
            try:
                return head_of(self._s3.head_object(Bucket=self.address.bucket, Key=key, ChecksumMode="ENABLED"))
            except ClientError as exc:
                if code_of(exc) in MISSING:
                    return None
                raise

    def proven(self, key: str, head: Head, entry: FileEntry, moved: Moved, *, composite: str | None = None) -> bool:
        """Whether an object has the bytes of a file: by the store's own checksum, or else read back and hashed.

        Args:
            key, head: the object.
            entry: the file.
            moved: asked now and then whether to stop.
            composite: what the checksum of checksums must be, where we know it. An object in parts that another try
                completed has the digest that its sender said: it was completed only after the digest was compared,
                and the store compared each part.
        """
        if head.size != entry.size:
            return False
        if not head.parts and head.checksum == base64_of(entry.sha256):
            return True
        if head.digest != entry.sha256:
            return False
        if head.parts and head.checksum and composite in (None, head.checksum):
            return True
        return self._read_back(key, head, moved) == entry.sha256

    def _read_back(self, key: str, head: Head, moved: Moved) -> str:
        digest = hashlib.sha256()
        with self.open(key, what=key) as reader:
            while block := reader.read(BLOCK):
                digest.update(block)
                moved(0)
        return digest.hexdigest()

    def listed(self, prefix: str) -> dict[str, tuple[int, str]]:
        """Size and ETag of every object below a prefix, by what follows the prefix."""
        found: dict[str, tuple[int, str]] = {}
        with self._edge.doing(f"list {prefix}"):
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.address.bucket, Prefix=prefix)
            for page in pages:
                for item in page.get("Contents", ()):
                    found[str(item["Key"])[len(prefix) :]] = (int(item["Size"]), str(item.get("ETag") or ""))
        return found

    @contextlib.contextmanager
    def open(self, key: str, *, what: str, offset: int = 0, length: int | None = None) -> Iterator[ObjectReader]:
        """The bytes of an object.

        Raises:
            IntegrityError: there is none.
        """
        reader = self._reader(key, what, offset, length)
        try:
            yield reader
        finally:
            reader.close()

    def _reader(self, key: str, what: str, offset: int, length: int | None) -> ObjectReader:
        def get(**more: str) -> Any:
            return self._s3.get_object(Bucket=self.address.bucket, Key=key, **more)

        def reader(first: Any) -> ObjectReader:
            return ObjectReader(get, first, begin=offset, what=what, edge=self._edge)

        with self._edge.doing(f"read {what}"):
            try:
                if length == 0:  # asked for all the same: it says whether there is such a file
                    return reader(_nothing(get()))
                if offset == 0 and length is None:  # also right for an empty object, which has no range
                    return reader(get())
                last = "" if length is None else offset + length - 1
                return reader(ranged(get(Range=f"bytes={offset}-{last}"), offset, what))
            except ClientError as exc:
                if code_of(exc) in MISSING:
                    raise self._missing(what) from exc
                if code_of(exc) in ("InvalidRange", "416"):  # it ends before the range begins
                    return reader(_nothing(get()))
                raise

    def _missing(self, what: str) -> IntegrityError:
        return IntegrityError(
            f"There is no {what} in {self.address}.",
            cure="See that registry.url and registry.s3.table belong together, or restore the file from a backup.",
        )

    # -- writing -------------------------------------------------------------------------------------------------

    def put(self, key: str, data: Block, sha256: str, over: Head | None) -> Head:
        """Write an object as a whole.

        Args:
            key: where.
            data: its bytes.
            sha256: their digest.
            over: what is there now and is to be replaced; None where nothing may be there.

        Raises:
            TakenError: something else is there.
        """
        checksum = base64_of(sha256)
        with self._edge.doing(f"write {key}"), taken():
            response = self._s3.put_object(
                Bucket=self.address.bucket,
                Key=key,
                Body=rewind(data),
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=checksum,
                Metadata={DIGEST: sha256},
                **self._encryption,
                **self._condition(over),
            )
        written = head_of({**response, "ContentLength": len(data), "Metadata": {DIGEST: sha256}})
        return written if written.checksum == checksum else self._written(key)

    def _condition(self, over: Head | None) -> dict[str, str]:
        if not self._conditions:
            return {}
        return {"IfNoneMatch": "*"} if over is None else {"IfMatch": over.etag}

    def _written(self, key: str) -> Head:
        head = self.head(key)
        if head is None:
            raise TakenError
        return head

    def create(self, key: str, sha256: str) -> str:
        """Begin an upload in parts; its id."""
        with self._edge.doing(f"write {key}"):
            response = self._s3.create_multipart_upload(
                Bucket=self.address.bucket,
                Key=key,
                ChecksumAlgorithm="SHA256",
                Metadata={DIGEST: sha256},
                **self._encryption,
            )
        return str(response["UploadId"])

    def put_part(self, key: str, upload: str, number: int, data: Block, checksum: str) -> Mapping[str, object]:
        """Send a part; what :meth:`complete` wants to know of it.

        Raises:
            NoUploadError: the upload is gone.
        """
        with self._edge.doing(f"write {key}"), no_upload():
            response = self._s3.upload_part(
                Bucket=self.address.bucket,
                Key=key,
                UploadId=upload,
                PartNumber=number,
                Body=rewind(data),
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=checksum,
            )
        return _part(number, response)

    def copy_part(self, source: tuple[str, Head], key: str, upload: str, number: int, begin: int, end: int) -> Any:
        """Take a part from another object of the bucket, bytes ``begin`` to ``end`` (not included); see `put_part`.

        Raises:
            NoCopyError: the store does not do it.
        """
        with self._edge.doing(f"copy {source[0]}"), no_copy():
            response = self._s3.upload_part_copy(
                Bucket=self.address.bucket,
                Key=key,
                UploadId=upload,
                PartNumber=number,
                CopySource={"Bucket": self.address.bucket, "Key": source[0]},
                CopySourceIfMatch=source[1].etag,
                CopySourceRange=f"bytes={begin}-{end - 1}",
            )
        return _part(number, response["CopyPartResult"])

    def complete(self, key: str, upload: str, parts: list[Mapping[str, object]], over: Head | None) -> Head:
        """Make one object of the parts; see :meth:`put`.

        Raises:
            TakenError: something else is there; the upload may still be.
            NoUploadError: the upload is gone.
        """
        with self._edge.doing(f"write {key}"), taken(), no_upload():
            self._s3.complete_multipart_upload(
                Bucket=self.address.bucket,
                Key=key,
                UploadId=upload,
                MultipartUpload={"Parts": parts},
                **self._condition(over),
            )
        return self._written(key)

    def copy(self, source: str, head: Head, key: str, sha256: str) -> Head:
        """Copy an object of at most :data:`COPY_LIMIT` bytes.

        Raises:
            NoCopyError: the store does not do it.
        """
        with self._edge.doing(f"copy {source}"), no_copy():
            self._s3.copy_object(
                Bucket=self.address.bucket,
                Key=key,
                CopySource={"Bucket": self.address.bucket, "Key": source},
                CopySourceIfMatch=head.etag,
                MetadataDirective="REPLACE",
                TaggingDirective="REPLACE",  # tags are the bucket's business, and to copy them is a right of its own
                Metadata={DIGEST: sha256},
                ChecksumAlgorithm="SHA256",
                **self._encryption,
                **self._condition(None),
            )
        return self._written(key)

    def layout(self, key: str) -> int:
        """Bytes of the first part of an object that was sent in parts."""
        with self._edge.doing(f"look at {key}"):
            response = self._s3.head_object(Bucket=self.address.bucket, Key=key, PartNumber=1)
        return int(response.get("ContentLength", 0))

    # -- uploads that were not completed -----------------------------------------------------------------------------

    def uploads(self, prefix: str) -> dict[str, list[str]]:
        """Uploads below a prefix that were not completed, by key, the oldest first."""
        found: dict[str, list[tuple[str, str]]] = {}
        with self._edge.doing(f"list the uploads of {prefix}"):
            pages = self._s3.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self.address.bucket, Prefix=prefix):
                for item in page.get("Uploads", ()):
                    when = str(item.get("Initiated", ""))
                    found.setdefault(str(item["Key"]), []).append((when, str(item["UploadId"])))
        return {key: [upload for _, upload in sorted(uploads)] for key, uploads in found.items()}

    def parts(self, key: str, upload: str) -> dict[int, Mapping[str, Any]]:
        """What the store has of an upload, by number of the part.

        Raises:
            NoUploadError: the upload is gone.
        """
        with self._edge.doing(f"list the parts of {key}"), no_upload():
            pages = self._s3.get_paginator("list_parts")
            found = pages.paginate(Bucket=self.address.bucket, Key=key, UploadId=upload)
            return {int(part["PartNumber"]): part for page in found for part in page.get("Parts", ())}

    def abort(self, key: str, upload: str) -> None:
        """Give an upload up, and its parts; twice is no failure."""
        with self._edge.doing(f"give up an upload of {key}"), contextlib.suppress(NoUploadError), no_upload():
            self._s3.abort_multipart_upload(Bucket=self.address.bucket, Key=key, UploadId=upload)

    def abort_all(self, prefix: str) -> None:
        """Give up every upload below a prefix."""
        for key, uploads in self.uploads(prefix).items():
            for upload in uploads:
                self.abort(key, upload)

    def remove(self, prefix: str) -> None:
        """Remove every object below a prefix."""
        keys = [prefix + path for path in self.listed(prefix)]
        for begin in range(0, len(keys), BATCH):
            self._remove(keys[begin : begin + BATCH])

    def _remove(self, keys: list[str]) -> None:
        with self._edge.doing(f"remove {keys[0]}"):
            try:
                response = self._s3.delete_objects(
                    Bucket=self.address.bucket,
                    Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True},
                    ChecksumAlgorithm="SHA256",
                )
            except ClientError as exc:
                if code_of(exc) not in ("NotImplemented", "MissingContentMD5", "InvalidRequest"):
                    raise
                for key in keys:  # stores that only resemble S3
                    self._s3.delete_object(Bucket=self.address.bucket, Key=key)
                return
            for error in response.get("Errors", ())[:1]:
                raise ClientError(
                    {"Error": {"Code": error.get("Code"), "Message": error.get("Message")}}, "DeleteObjects"
                )


def _part(number: int, response: Any) -> Mapping[str, object]:
    part: dict[str, object] = {"PartNumber": number, "ETag": response["ETag"]}
    if response.get("ChecksumSHA256"):
        part["ChecksumSHA256"] = response["ChecksumSHA256"]
    return part


def _nothing(response: Any) -> Any:
    response["Body"].close()
    return {**response, "ContentLength": 0}
