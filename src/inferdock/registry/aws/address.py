"""Reads ``s3://bucket/prefix``, and makes the keys of objects."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from inferdock.domain.errors import ConfigError
from inferdock.registry.names import Version, check_name
from inferdock.registry.paths import RESERVED, check_path

MAX_PREFIX_BYTES: Final = 80
"""A key may have 1,024 bytes: `models/`, a name (128), a version (97) and a path (700) come after the prefix."""
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a registry's objects are.

    Attributes:
        bucket: its name.
        prefix: "" or text that ends with a slash.
    """

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read ``s3://bucket`` or ``s3://bucket/prefix``.

        Raises:
            ConfigError: it is something else. The message leaves out what stands before an ``@``, which may be secret.
        """
        parts = urlsplit(url)
        bucket, prefix = parts.netloc, parts.path.strip("/")
        if parts.scheme != "s3" or not _BUCKET.fullmatch(bucket) or ".." in bucket:
            raise ConfigError(
                f"registry.url names no bucket: {parts.scheme[:20]}://{bucket.rpartition('@')[2][:100]}.",
                cure="Give s3://bucket or s3://bucket/prefix; its name has 3 to 63 small letters, digits, dashes.",
            )
        plain = not prefix or (_PREFIX.fullmatch(prefix) and not {".", ".."} & set(prefix.split("/")))
        if not plain or len(prefix) > MAX_PREFIX_BYTES or parts.query or parts.fragment:
            raise ConfigError(
                f"registry.url has a prefix that cannot be used: {prefix[:100]!r}.",
                cure=f"Take at most {MAX_PREFIX_BYTES} letters, digits, dashes, dots and slashes after the bucket.",
            )
        return cls(bucket, f"{prefix}/" if prefix else "")

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def folder(self, name: str, version: str) -> str:
        """Beginning of the keys of a version, with the slash.

        Raises:
            ConfigError: name or version are none.
        """
        return f"{self.prefix}models/{check_name(name)}/v{Version.parse(version)}/"

    def key(self, name: str, version: str, path: str) -> str:
        """Key of a file of a version.

        Raises:
            ConfigError: name or version are none.
            ModelError: the path is none that a file may have.
        """
        if path not in RESERVED:
            check_path(path)
        return self.folder(name, version) + path
