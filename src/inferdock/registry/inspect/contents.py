"""Tells what can run code from its name and its first bytes: pickles, programs, scripts.

Nothing is unpickled or unpacked. This finds what a loader would take for a pickle or a program; text pickles of
protocol 0 without one of the usual names are not found, and no loader of models opens those.
"""

from __future__ import annotations

import lzma
import pickletools
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO, Final

from inferdock.domain.errors import ModelError
from inferdock.registry.inspect.json_files import open_regular

_HEAD_BYTES: Final = 4096
_MAX_DIRECTORY_BYTES: Final = 4 * 1024 * 1024
_PICKLE_NAMES: Final = frozenset(
    ("bin", "pt", "pth", "ckpt", "pkl", "pickle", "pck", "pcl", "dill", "joblib", "mar", "nemo", "pt2", "ptl")
)
_CODE_NAMES: Final = frozenset(
    (
        *("py", "pyc", "pyo", "pyd", "pyx", "pyz", "pyw", "whl", "egg"),
        *("so", "dll", "dylib", "exe", "com", "msi", "o", "a", "ko", "cubin", "ptx"),
        *("sh", "bash", "zsh", "csh", "ksh", "fish", "bat", "cmd", "ps1", "vbs"),
        *("js", "mjs", "cjs", "jar", "war", "class", "wasm", "pl", "rb", "lua", "php"),
    )
)
_VERSIONED_LIBRARY: Final = re.compile(r".*\.so(\.\d+)+", re.DOTALL)
_OPCODES: Final = frozenset(ord(opcode.code) for opcode in pickletools.opcodes)
_OBJECT_ARRAY: Final = re.compile(rb"'[|<>=]?O\d*'")
_MAGICS: Final = (
    (b"\x7fELF", "is a program or a shared library (ELF)"),
    (b"\xfe\xed\xfa\xce", "is a program (Mach-O)"),
    (b"\xfe\xed\xfa\xcf", "is a program (Mach-O)"),
    (b"\xce\xfa\xed\xfe", "is a program (Mach-O)"),
    (b"\xcf\xfa\xed\xfe", "is a program (Mach-O)"),
    (b"\xca\xfe\xba\xbe", "is a program (Mach-O or Java)"),
    (b"\x00asm", "is a program (WebAssembly)"),
)
_UNREADABLE: Final = (
    OSError,
    ValueError,
    RuntimeError,  # encrypted, or a method that is not supported
    EOFError,
    KeyError,
    OverflowError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)


class Danger(Enum):
    """What a file can do."""

    PICKLE = "pickle"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Finding:
    """A file that can run code.

    Attributes:
        danger: which permission it needs.
        why: rest of a sentence whose subject is the file.
    """

    danger: Danger
    why: str


def look(path: Path) -> Finding | None:
    """What is dangerous about a file; None when nothing is known to be.

    Not for safetensors files whose header was checked: their first bytes are a length, which may look like anything.

    Raises:
        ModelError: it cannot be read.
    """
    by_name = _by_name(path.name.lower())
    if by_name is not None:
        return by_name
    with open_regular(path) as file:
        try:
            return _by_content(file)
        except OSError as exc:
            raise ModelError(f"{path} cannot be read: {exc.strerror}.", cure="Check its permissions.") from exc


def _by_name(name: str) -> Finding | None:
    ending = name.rpartition(".")[2] if "." in name else ""
    if ending in _PICKLE_NAMES:
        return Finding(Danger.PICKLE, "may be a pickle by its name, and those can run code when loaded")
    if ending in _CODE_NAMES or _VERSIONED_LIBRARY.fullmatch(name):
        return Finding(Danger.CODE, "is code by its name")
    return None


def _by_content(file: IO[bytes]) -> Finding | None:
    head = file.read(_HEAD_BYTES)
    if head[:1] == b"\x80" and len(head) > 2 and head[1] <= 5 and head[2] in _OPCODES:
        return Finding(Danger.PICKLE, "is a pickle, which can run code when loaded")
    if _is_object_array(head):
        return Finding(Danger.PICKLE, "is an array of Python objects, which are pickles")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _in_archive(file)
    for magic, why in _MAGICS:
        if head.startswith(magic):
            return Finding(Danger.CODE, why)
    if head.startswith((b"#!/", b"#! /")):
        return Finding(Danger.CODE, "is a script")
    return Finding(Danger.CODE, "is a program (Windows)") if _is_windows_program(file, head) else None


def _is_object_array(head: bytes) -> bool:
    return head.startswith(b"\x93NUMPY") and _OBJECT_ARRAY.search(head) is not None


def _is_windows_program(file: IO[bytes], head: bytes) -> bool:
    """`MZ` alone may begin any text; the word at 60 leads to the real mark."""
    if not head.startswith(b"MZ") or len(head) < 64:
        return False
    file.seek(int.from_bytes(head[60:64], "little"))
    return file.read(4) == b"PE\0\0"


def _in_archive(file: IO[bytes]) -> Finding | None:
    """PyTorch and NumPy both write ZIP archives; what cannot be looked into counts as a pickle."""
    closed = Finding(Danger.PICKLE, "is an archive that cannot be looked into, and may hold pickles")
    try:
        if not _has_small_directory(file):
            return closed
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                finding = _by_name(entry.filename.lower())
                if finding is not None:
                    return Finding(finding.danger, f"is an archive with {entry.filename[-100:]!r}, which {finding.why}")
                if entry.filename.endswith(".npy"):
                    with archive.open(entry) as member:
                        if _is_object_array(member.read(_HEAD_BYTES)):
                            return Finding(Danger.PICKLE, "holds arrays of Python objects, which are pickles")
    except _UNREADABLE:
        return closed
    return None


def _has_small_directory(file: IO[bytes]) -> bool:
    """The list of an archive's files is read as a whole, so its size (in the last record) is asked first."""
    end = file.seek(0, 2)
    file.seek(max(0, end - 65_557))  # the last record has 22 bytes and a comment of at most 65,535
    tail = file.read(65_557)
    at = tail.rfind(b"PK\x05\x06")
    record = tail[at : at + 22]
    return at >= 0 and len(record) == 22 and int.from_bytes(record[12:16], "little") <= _MAX_DIRECTORY_BYTES
