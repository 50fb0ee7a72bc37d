"""The manifest of a version: every file, the model's facts, how it is served, and where it came from.

:func:`encode` gives the one spelling of ``MANIFEST.json`` (`canonical`); :func:`decode` accepts no other. The schema is
written out in docs/registry.md. A manifest may come from a store that others write to: nothing in it is trusted before
:func:`decode` has checked it, and its digest is compared with the record's by whoever reads it (`reading`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from inferdock.domain.errors import ConfigError, IntegrityError, ModelError
from inferdock.domain.moment import PATTERN
from inferdock.registry.canonical import canonical, digest
from inferdock.registry.inspect.facts import Facts
from inferdock.registry.inspect.folder import Permissions
from inferdock.registry.names import Version, check_name
from inferdock.registry.paths import check_paths

SCHEMA: Final = "inferdock.manifest/1"
MAX_MANIFEST_BYTES: Final = 64 * 1024 * 1024
"""100,000 files with long paths fit."""
MAX_FILES: Final = 100_000

Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Moment = Annotated[str, Meta(pattern=PATTERN)]
"""UTC with milliseconds, of fixed width: the order of the texts is that of the times."""
MAX_LINE: Final = 4096
"""Characters of a text that a person gives."""
Line = Annotated[str, Meta(max_length=MAX_LINE)]
_IMAGE: Final = r"\A[^\s@]{1,400}@sha256:[0-9a-f]{64}\Z"


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file.

    Attributes:
        path: relative, POSIX; see `paths`.
        size: bytes.
        sha256: of the whole file, 64 hex digits.
    """

    path: str
    size: Annotated[int, Meta(ge=0, le=2**53)]
    sha256: Sha256


class Engine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the version is to be served.

    Attributes:
        arguments: for the engine's command line, before those of the configuration.
        image: container image by digest (``registry/repository@sha256:...``), None when none was named.
    """

    arguments: Annotated[tuple[Line, ...], Meta(max_length=1000)] = ()
    image: Annotated[str, Meta(pattern=_IMAGE)] | None = None


class Content(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that decides what the version answers. Its digest is the revision.

    Attributes:
        files: in the order of their paths' bytes.
        facts: what the model is.
        engine: how it is to be served.
        permissions: dangers that somebody allowed at the push, and that the files really hold.
    """

    files: Annotated[tuple[FileEntry, ...], Meta(min_length=1, max_length=MAX_FILES)]
    facts: Facts
    engine: Engine = Engine()
    permissions: Permissions = Permissions()


class MadeFrom(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model that this one was quantised from, and how.

    Attributes:
        revision: of the parent: its 64 hex digits, or the digest of its folder where it was in no registry.
        source: the parent as it was named, for instance ``mistral-7b@1.0.0``.
        method, bits, group_size: of the quantisation.
        library: what did it, with versions.
        calibration: SHA-256 of the calibration file.
        samples, tokens: of it, that were used.
        seed: of their choice.
    """

    revision: Sha256
    source: Line
    method: Line
    bits: Annotated[int, Meta(ge=1, le=16)]
    group_size: Annotated[int, Meta(ge=1, le=2**20)]
    library: Line
    calibration: Sha256
    samples: Annotated[int, Meta(ge=0, le=2**53)]
    tokens: Annotated[int, Meta(ge=0, le=2**53)]
    seed: Annotated[int, Meta(ge=0, le=2**53)]


class Provenance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who pushed it, when, from what.

    ``made_from`` is absent, not null, where nothing is said: manifests that were written before it keep their bytes.
    """

    pushed_at: Moment
    pushed_by: Line
    source: Line
    labels: Mapping[Line, Line] = {}
    made_from: MadeFrom | msgspec.UnsetType = msgspec.UNSET


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything about one version."""

    schema: Literal["inferdock.manifest/1"] = SCHEMA
    name: str
    version: str
    revision: Sha256
    content: Content
    provenance: Provenance

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.content.files)


_DECODER: Final = msgspec.json.Decoder(Manifest)


def make(*, name: str, version: str, content: Content, provenance: Provenance) -> Manifest:
    """The manifest of a version, with its files in order.

    Raises:
        ConfigError: name, version, image, arguments or labels are not what a manifest may hold.
        ModelError: a path is not allowed; see `paths`.
    """
    check_paths(entry.path for entry in content.files)
    files = tuple(sorted(content.files, key=lambda entry: entry.path.encode()))
    content = msgspec.structs.replace(content, files=files)
    cure = "Check the image (repository@sha256:...), arguments, labels and source."
    try:
        manifest = Manifest(
            name=name, version=version, revision=revision_of(content), content=content, provenance=provenance
        )
        decode(encode(manifest), what="The manifest")
    except UnicodeEncodeError as exc:
        raise ConfigError("An argument, a label or the source is not UTF-8.", cure=cure) from exc
    except IntegrityError as exc:
        raise ConfigError(exc.message, cure=cure) from exc
    return manifest


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: what came in as other bytes cannot."""
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in text)


def revision_of(content: Content) -> str:
    """The revision: SHA-256 over the canonical JSON of the content, 64 hex digits."""
    return digest(msgspec.to_builtins(content))


def encode(manifest: Manifest) -> bytes:
    """The bytes of ``MANIFEST.json``."""
    return canonical(msgspec.to_builtins(manifest))


def sha256_of(data: bytes) -> str:
    """Digest by which a record names a manifest."""
    return hashlib.sha256(data).hexdigest()


def decode(data: bytes, *, what: str) -> Manifest:
    """Read ``MANIFEST.json``.

    Args:
        data: its bytes.
        what: how an error calls it, for instance ``MANIFEST.json of demo@1.0.0 in s3://bucket``.

    Raises:
        IntegrityError: it is not a manifest in its one spelling, or contradicts itself.
    """
    try:
        if len(data) > MAX_MANIFEST_BYTES:
            raise ValueError(f"it is larger than {MAX_MANIFEST_BYTES >> 20} MiB")
        manifest = _DECODER.decode(data)
        _check(manifest, data)
    except (msgspec.MsgspecError, ModelError, ConfigError, ValueError, TypeError, RecursionError) as exc:
        reason = exc.message if isinstance(exc, ModelError | ConfigError) else str(exc)
        raise IntegrityError(
            f"{what} is not a manifest: {reason[:300]}.".replace("..", "."),
            cure="Push the version again under another number, or restore the file from a backup.",
        ) from exc
    return manifest


def _check(manifest: Manifest, data: bytes) -> None:
    check_name(manifest.name)
    if str(Version.parse(manifest.version)) != manifest.version:
        raise ValueError("its version is not written with three numbers")
    if encode(manifest) != data:
        raise ValueError("it is not in canonical form")
    paths: Sequence[str] = [entry.path for entry in manifest.content.files]
    if list(paths) != sorted(paths, key=str.encode):
        raise ValueError("its files are not in order")
    check_paths(paths)
    if revision_of(manifest.content) != manifest.revision:
        raise ValueError("its revision is not the digest of its content")
