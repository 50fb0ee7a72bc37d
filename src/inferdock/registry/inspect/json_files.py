"""Reads JSON that may be hostile: in bounded memory, and only the members that somebody asks for.

A file of 64 MiB can hold 20 million empty lists, which are 1.5 GB as Python objects. So nothing here builds a value
that was not asked for: the parser only walks over the rest.
"""

from __future__ import annotations

import codecs
import json
import os
import stat
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from inferdock.domain.errors import ModelError

MAX_JSON_BYTES: Final = 64 * 1024 * 1024
"""The largest tokenizer.json of known models has about 35 MB."""
_LENIENT_BYTES: Final = 4 * 1024 * 1024
"""Up to here Python's parser may judge what the strict one refuses: `Infinity` stands in real configs."""
_MAX_VALUE_BYTES: Final = 1024 * 1024
_NULL: Final = msgspec.Raw(b"null")
_MAX_WORD: Final = 100
_MAX_SHOWN: Final = 1000
_STEP: Final = 1024 * 1024
AGAIN: Final = "Download it again."

Members = dict[str, msgspec.Raw]
"""Members of an object, still as JSON; what is not there is `null`."""


def printable(name: str) -> str:
    """A name from a file for a message: cut, and without signs that would command a terminal."""
    short = name[:_MAX_SHOWN]
    return short if short.isprintable() else ascii(short)[1:-1]


def open_regular(path: Path, absent: str = AGAIN) -> IO[bytes]:
    """Open a regular file; a pipe or a device is refused, where waiting for it could last for ever.

    Raises:
        ModelError: it is not there (``absent`` is the cure), not a file, or cannot be read.
    """
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except (FileNotFoundError, NotADirectoryError):
        raise ModelError(f"{path} is missing.", cure=absent) from None
    except IsADirectoryError:
        raise ModelError(f"{path} is not a file.", cure=AGAIN) from None
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or "no such name"
        raise ModelError(f"{path} cannot be read: {reason}.", cure="Check its permissions.") from exc
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ModelError(f"{path} is not a file.", cure=AGAIN)
    return file


def read_at_most(path: Path, limit: int, absent: str = AGAIN) -> bytes:
    """All bytes of a file.

    Raises:
        ModelError: see :func:`open_regular`; or it has more than ``limit`` bytes.
    """
    with open_regular(path, absent) as file:
        try:
            data = file.read(limit + 1) if os.fstat(file.fileno()).st_size <= limit else None
        except OSError as exc:
            raise ModelError(f"{path} cannot be read: {exc.strerror}.", cure="Check its permissions.") from exc
    if data is None or len(data) > limit:
        raise ModelError(f"{path} is larger than {limit // 2**20} MiB.", cure=AGAIN)
    return data


def check_json(path: Path) -> None:
    """Check that a file is JSON.

    Raises:
        ModelError: it is not, or it is too large.
    """
    data = read_at_most(path, MAX_JSON_BYTES)
    try:
        if not _is_strict(data):
            _by_python(data)
    except (ValueError, RecursionError) as exc:
        raise ModelError(f"{path} is not valid JSON.", cure="Download it again, or leave it out.") from exc


def read_object(path: Path, absent: str = AGAIN) -> bytes:
    """The text of a file that holds a JSON object, for :func:`pick`; `NaN` and `Infinity` have become `null`.

    Raises:
        ModelError: it is missing (``absent`` is the cure), not JSON, not an object, or too large.
    """
    data = read_at_most(path, MAX_JSON_BYTES, absent)
    try:
        if not _is_strict(data):
            data = msgspec.json.encode(_by_python(data))
    except (ValueError, RecursionError) as exc:
        raise ModelError(f"{path} is not valid JSON.", cure=AGAIN) from exc
    if not data.lstrip(b" \t\r\n").startswith(b"{"):
        raise ModelError(f"{path} does not hold a JSON object.", cure=AGAIN)
    return data


def _is_strict(data: bytes) -> bool:
    """Whether data is JSON by the standard's letter. Nothing is built."""
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
        return data.isascii() or _is_utf8(data)
    except (ValueError, RecursionError):
        return False


def _is_utf8(data: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    for at in range(0, len(data), _STEP):  # in steps: text takes up to four times the room of its bytes
        decoder.decode(data[at : at + _STEP], final=at + _STEP >= len(data))
    return True


def _by_python(data: bytes) -> Any:
    if len(data) > _LENIENT_BYTES:
        raise ValueError("too large to be lenient")
    return json.loads(data.decode())


@lru_cache
def _picker(keys: tuple[str, ...]) -> msgspec.json.Decoder[Any]:
    fields: list[tuple[str, type, msgspec.Raw]] = [(key, msgspec.Raw, _NULL) for key in keys]
    return msgspec.json.Decoder(msgspec.defstruct("Picked", fields))


def pick(data: bytes | msgspec.Raw, *keys: str) -> Members:
    """Members of an object by name; all are `null` when it is no object. Of double keys the last counts."""
    try:
        found = _picker(keys).decode(data)
    except (ValueError, RecursionError):
        return dict.fromkeys(keys, _NULL)
    return {key: getattr(found, key) for key in keys}


def is_null(raw: msgspec.Raw) -> bool:
    """Whether a member is absent or `null`."""
    return len(memoryview(raw)) == 4 and bytes(raw) == b"null"


def is_object(raw: msgspec.Raw) -> bool:
    """Whether a member is an object."""
    return bytes(memoryview(raw)[:1]) == b"{"


def integer(raw: msgspec.Raw) -> int | None:
    """A member that is an integer, else None."""
    value = _value(raw, int)
    return value if isinstance(value, int) else None


def text(raw: msgspec.Raw) -> str | None:
    """A member that is a string, else None."""
    value = _value(raw, str)
    return value if isinstance(value, str) else None


def word(raw: msgspec.Raw) -> str | None:
    """A member that is a short printable string, else None: what is shown to people and kept in manifests."""
    value = text(raw)
    return value if value is not None and len(value) <= _MAX_WORD and value.isprintable() else None


def flag(raw: msgspec.Raw) -> bool | None:
    """A member that is true or false, else None."""
    value = _value(raw, bool)
    return value if isinstance(value, bool) else None


def texts(raw: msgspec.Raw) -> list[str]:
    """A member that is a list of strings, else an empty one."""
    value = _value(raw, list[str])
    return value if isinstance(value, list) else []


def integers(raw: msgspec.Raw) -> list[int]:
    """A member that is a list of integers, else an empty one."""
    value = _value(raw, list[int])
    return value if isinstance(value, list) else []


def values(raw: msgspec.Raw) -> list[msgspec.Raw]:
    """The members of a small object whatever their names; an empty list for anything else."""
    value = _value(raw, dict[str, msgspec.Raw])
    return list(value.values()) if isinstance(value, dict) else []


def _value(raw: msgspec.Raw, kind: Any) -> object:
    if len(memoryview(raw)) > _MAX_VALUE_BYTES:
        return None
    try:
        return msgspec.json.decode(raw, type=kind)
    except (ValueError, RecursionError):
        return None
