"""What the bucket answers: what it says about an object, and the refusals that mean something to a push."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import ClientError

from inferdock.registry.aws.errors import MISSING, NO_UPLOAD, TAKEN, code_of

DIGEST: Final = "sha256"
"""Metadata of each object: SHA-256 of the whole file, as its sender said."""


class TakenError(Exception):
    """A write's condition does not hold: somebody else wrote the key meanwhile."""


class NoUploadError(Exception):
    """An upload in parts is not there any more."""


class NoCopyError(Exception):
    """The store does not copy this, for whatever reason: then it is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What the bucket says about an object.

    Attributes:
        size: bytes.
        etag: changes whenever the object does.
        checksum: SHA-256 in base64, as the store computed it: of the bytes, or of its parts' checksums; None where the
            store computes none.
        digest: what the sender said, hexadecimal.
    """

    size: int
    etag: str
    checksum: str | None
    digest: str | None

    @property
    def parts(self) -> int:
        """Parts in which it was sent, 0 for an object sent as a whole."""
        _, dash, count = self.etag.strip('"').rpartition("-")
        return int(count) if dash and count.isdigit() else 0


def base64_of(sha256: str) -> str:
    """The spelling of S3 for a digest that is written in hexadecimal."""
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def head_of(response: Any) -> Head:
    checksum = response.get("ChecksumSHA256")
    return Head(
        size=int(response.get("ContentLength", -1)),
        etag=str(response.get("ETag") or ""),
        checksum=str(checksum).partition("-")[0] if checksum else None,
        digest=(response.get("Metadata") or {}).get(DIGEST),
    )


@contextlib.contextmanager
def taken() -> Iterator[None]:
    try:
        yield
    except ClientError as exc:
        # "NoSuchKey": what was to be replaced is gone.
        if code_of(exc) in TAKEN | MISSING:
            raise TakenError from exc
        raise


@contextlib.contextmanager
def no_copy() -> Iterator[None]:
    try:
        yield
    except ClientError as exc:
        raise NoCopyError from exc


@contextlib.contextmanager
def no_upload() -> Iterator[None]:
    try:
        yield
    except ClientError as exc:
        if code_of(exc) in NO_UPLOAD:
            raise NoUploadError from exc
        raise
