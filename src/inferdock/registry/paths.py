"""Which paths a file of a version may have: the same file on every system, and never outside of its folder.

A path here is relative, POSIX, text. Manifests come from stores that others may write to, so whoever writes a file
to disk or makes a key of a path checks it first.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Final

from inferdock.domain.errors import ModelError

MAX_PATH_BYTES: Final = 700
"""An S3 key may have 1,024 bytes, and `models/NAME/vVERSION/` comes before the path."""
MAX_PART_BYTES: Final = 255
"""Longest name that common file systems take."""
MAX_DEPTH: Final = 16
MANIFEST: Final = "MANIFEST.json"
SIGNATURES: Final = "MANIFEST.sig"
RESERVED: Final = frozenset({MANIFEST, SIGNATURES})
"""Names at the top that are the registry's own, whatever their case."""
_RESERVED_FOLDED: Final = frozenset(name.casefold() for name in RESERVED)
_DEVICES: Final = frozenset({"con", "prn", "aux", "nul", *(f"{k}{n}" for k in ("com", "lpt") for n in range(1, 10))})
_FORBIDDEN: Final = frozenset('\\:*?"<>|')


def check_path(path: str) -> None:
    """Refuse a path that is not a plain relative one.

    Raises:
        ModelError: it leaves its folder, cannot be spelt on common systems, or is reserved for the registry.
    """
    if reason := _fault(path):
        raise ModelError(
            f"The file name {path[:200]!r} {reason}.", cure="Rename the file, or leave it out with --exclude."
        )


def check_paths(paths: Iterable[str]) -> None:
    """Check each path, and that no two of them would be one file on some system.

    Raises:
        ModelError: see :func:`check_path`; or two differ only in case or spelling, or one is the folder of another.
    """
    seen: dict[str, str] = {}
    for path in paths:
        check_path(path)
        folded = _fold(path)
        if folded in seen:
            raise ModelError(
                f"The files {seen[folded][:200]!r} and {path[:200]!r} are one file where case does not count.",
                cure="Rename one of them.",
            )
        seen[folded] = path
    for folded, path in seen.items():
        above = folded
        while "/" in above:
            above = above.rpartition("/")[0]
            if above in seen:
                raise ModelError(
                    f"{seen[above][:200]!r} is a file and the folder of {path[:200]!r}.", cure="Rename one of them."
                )


def _fold(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def _fault(path: str) -> str:
    """What is wrong with a path, "" when nothing is."""
    if not path:
        return "is empty"
    if any(0xD800 <= ord(c) <= 0xDFFF for c in path):
        return "is not UTF-8"
    if len(path.encode()) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes"
    parts = path.split("/")
    if len(parts) > MAX_DEPTH:
        return f"lies more than {MAX_DEPTH} folders deep"
    if path.casefold() in _RESERVED_FOLDED:
        return "is one that the registry writes itself"
    return next((fault for part in parts if (fault := _part_fault(part))), "")


def _part_fault(part: str) -> str:
    if part in ("", ".", ".."):
        return "is no plain relative path"
    if len(part.encode()) > MAX_PART_BYTES:
        return f"has a part longer than {MAX_PART_BYTES} bytes"
    if any(unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Co") for c in part):
        return "holds control or invisible characters"
    if _FORBIDDEN & set(part):
        return "holds a character that not every system takes"
    if part != part.strip() or part.endswith("."):
        return "begins or ends with a space, or ends with a dot"
    if part.partition(".")[0].casefold() in _DEVICES:
        return "is the name of a device on some systems"
    if unicodedata.normalize("NFC", part) != part:
        return "is not in the composed form of Unicode (NFC)"
    return ""
