"""Finds a version among those that were pulled, without asking the registry.

For engines in containers: another container of the same pod has pulled the version, and one that is started again
must not depend on a registry that may be away. What lies here is believed as far as its own digests go: a manifest's
revision is the digest of its content, and every file has one. So whoever knows the revision knows the bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from inferdock.domain.errors import ConfigError, IntegrityError, RegistryError
from inferdock.registry.disk import FILE_FLAGS, on_disk
from inferdock.registry.manifest import MAX_MANIFEST_BYTES, Manifest, decode
from inferdock.registry.names import Reference
from inferdock.registry.paths import MANIFEST
from inferdock.registry.revision_folder import REVISIONS

FULL_DIGITS: Final = 64
_REVISION: Final = re.compile(r"(?:(?P<version>[^\s/]{1,200})-)?(?P<digits>[0-9a-f]{12,64})", re.ASCII)


def digits_of(revision: str) -> str:
    """The digest, or its beginning, in what people call a revision: ``1.0.0-0123456789ab``, or digits alone.

    Raises:
        ConfigError: there are fewer than 12 digits.
    """
    match = _REVISION.fullmatch(revision)
    if match is None:
        raise ConfigError(
            f"{revision[:100]!r} is no revision.",
            cure="Take 12 to 64 hexadecimal digits, or version-digits, as `inferdock model show` prints them.",
        )
    return match["digits"]


def find_pulled(root: Path, reference: Reference, digits: str = "") -> Manifest:
    """The manifest of a version that was pulled into a cache. The bytes behind it are not looked at.

    Args:
        root: the cache's folder.
        reference: which version; an alias needs ``digits``, because only the registry knows what it means.
        digits: beginning of the revision; "" takes the name and the version.

    Raises:
        ConfigError: an alias, and no digits.
        RegistryError: it was not pulled, or several fit.
        ResourceError: the cache cannot be read.
    """
    if not digits and reference.version is None:
        raise ConfigError(
            f"What {reference} means stands in the registry, which is not to be asked.",
            cure=f"Name the version ({reference.name}@1.0.0), or its revision.",
        )
    with on_disk(root):
        found = {manifest.revision: manifest for manifest in _manifests(root) if _fits(manifest, reference, digits)}
    if len(found) == 1:
        return found.popitem()[1]
    what = f"revision {digits}" if digits else str(reference)
    if not found:
        raise RegistryError(
            f"{root} holds no {what}.",
            cure=f"Pull it first: inferdock model pull {reference} (in a pod, by the init container).",
        )
    raise RegistryError(f"{root} holds {len(found)} revisions that are {what}.", cure="Give the whole revision.")


def _fits(manifest: Manifest, reference: Reference, digits: str) -> bool:
    """By digits alone where there are some: versions of equal content share one folder, and one of their manifests."""
    if digits:
        return manifest.revision.startswith(digits)
    return (manifest.name, manifest.version) == (reference.name, reference.version)


def _manifests(root: Path) -> Iterator[Manifest]:
    """Those of all folders; what is half made or damaged is not there."""
    try:
        names = sorted(os.listdir(root / REVISIONS))
    except FileNotFoundError:
        return
    for name in names:
        if len(name) == FULL_DIGITS:  # drafts begin with a dot
            manifest = manifest_in(root / REVISIONS / name)
            if manifest is not None and manifest.revision == name:
                yield manifest


def manifest_in(folder: Path) -> Manifest | None:
    """What a folder says it holds; None when it says nothing that can be believed."""
    try:
        fd = os.open(folder / MANIFEST, os.O_RDONLY | FILE_FLAGS)
        with open(fd, "rb") as file:
            return decode(file.read(MAX_MANIFEST_BYTES + 1), what=MANIFEST)
    except (OSError, IntegrityError):
        return None
