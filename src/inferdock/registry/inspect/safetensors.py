"""Reads and checks the header of a safetensors file, and nothing of its weights.

The rules are the format's own (https://huggingface.co/docs/safetensors/index#format) as its reference reader enforces
them, plus one: no key twice, since readers differ in which of the two they take.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, Final

import msgspec
from msgspec import Meta

from inferdock.domain.errors import ModelError
from inferdock.registry.inspect.json_files import AGAIN, open_regular, printable

MAX_HEADER_BYTES: Final = 16 * 1024 * 1024
"""The format allows 100 MB. All 91,000 tensors of a model of 671 B parameters in one file would need 12 MB, and what
is read here takes some ten times its size in memory."""
MAX_TENSORS: Final = 500_000
"""In one model. The most known are about 210,000: a trillion parameters as 4-bit experts."""
_MAX_DIMENSIONS: Final = 64
_METADATA: Final = "__metadata__"
_MAX_METADATA_BYTES: Final = 4 * 1024 * 1024

DTYPES: Final[dict[str, tuple[int, str]]] = {
    "BOOL": (8, "bool"),
    "F4": (4, "float4_e2m1fn"),
    "F6_E2M3": (6, "float6_e2m3fn"),
    "F6_E3M2": (6, "float6_e3m2fn"),
    "U8": (8, "uint8"),
    "I8": (8, "int8"),
    "F8_E5M2": (8, "float8_e5m2"),
    "F8_E4M3": (8, "float8_e4m3fn"),
    "F8_E8M0": (8, "float8_e8m0fnu"),
    "F8_E4M3FNUZ": (8, "float8_e4m3fnuz"),
    "F8_E5M2FNUZ": (8, "float8_e5m2fnuz"),
    "I16": (16, "int16"),
    "U16": (16, "uint16"),
    "F16": (16, "float16"),
    "BF16": (16, "bfloat16"),
    "I32": (32, "int32"),
    "U32": (32, "uint32"),
    "F32": (32, "float32"),
    "C64": (64, "complex64"),
    "F64": (64, "float64"),
    "I64": (64, "int64"),
    "U64": (64, "uint64"),
}
"""The format's name of a type, its bits, and the name that engines give it."""

_Size = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """One tensor in the header. Unknown fields are refused: they could hold anything."""

    dtype: str
    shape: Annotated[tuple[_Size, ...], Meta(max_length=_MAX_DIMENSIONS)]
    data_offsets: tuple[_Size, _Size]


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file.

    Attributes:
        name: its name.
        dtype: the format's name of its type, a key of :data:`DTYPES`.
        shape: its sides.
        begin: first byte within the file's data.
        end: the byte after its last.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        """Product of the sides."""
        return math.prod(self.shape)


def read_header(path: Path) -> tuple[Tensor, ...]:
    """The tensors of a file in the order of their bytes.

    Raises:
        ModelError: it is not a safetensors file, is cut, or its header breaks a rule of the format.
    """
    with open_regular(path) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            raw = _raw_header(path, file, size)
        except OSError as exc:
            raise ModelError(f"{path} cannot be read: {exc.strerror}.", cure="Check its permissions.") from exc
    tensors = _parse(path, raw)
    _check_cover(path, tensors, size - 8 - len(raw))
    return tensors


def _raw_header(path: Path, file: IO[bytes], size: int) -> bytes:
    start = file.read(8)
    if start == b"version ":
        raise ModelError(f"{path} is a Git LFS pointer instead of the file.", cure="Fetch it with `git lfs pull`.")
    length = int.from_bytes(start, "little")
    if MAX_HEADER_BYTES < length <= size - 8:
        raise ModelError(
            f"{path} is not a safetensors file, or has a header of more than {MAX_HEADER_BYTES // 2**20} MiB.",
            cure="Split the weights into shards.",
        )
    if size < 8 or length > size - 8:
        raise ModelError(f"{path} is cut or not a safetensors file.", cure=AGAIN)
    raw = file.read(length)
    if len(raw) < length:
        raise ModelError(f"{path} changed while it was read.", cure="Try again when nobody writes to it.")
    return raw


def _damaged(path: Path, why: str) -> ModelError:
    return ModelError(f"{path} has a damaged header: {why}.", cure=AGAIN)


def _parse(path: Path, raw: bytes) -> tuple[Tensor, ...]:
    try:
        members = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        if len(members) > MAX_TENSORS:
            raise _damaged(path, f"it names more than {MAX_TENSORS:,} tensors")
        _check_metadata(path, members.pop(_METADATA, None))
        decode = msgspec.json.Decoder(_Entry).decode
        tensors = [_tensor(path, name, decode(entry)) for name, entry in members.items()]
        members.clear()
        _check_keys(path, raw)
    except (ValueError, RecursionError) as exc:
        raise _damaged(path, "it is not the JSON that the format asks for") from exc
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    return tuple(tensors)


def _check_metadata(path: Path, raw: msgspec.Raw | None) -> None:
    """Notes of whoever wrote the file: text to text, by the format."""
    if raw is None:
        return
    if len(memoryview(raw)) > _MAX_METADATA_BYTES:
        raise _damaged(path, f"its notes are larger than {_MAX_METADATA_BYTES // 2**20} MiB")
    msgspec.json.decode(raw, type=dict[str, str] | None)


def _check_keys(path: Path, raw: bytes) -> None:
    """Refuse a key twice, at any level. Runs on what is known to have the right types, so nothing grows here."""

    def once(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _damaged(path, f"`{printable(key)}` is there twice")
            seen.add(key)

    json.loads(raw, object_pairs_hook=once)


def _tensor(path: Path, name: str, entry: _Entry) -> Tensor:
    if entry.dtype not in DTYPES:
        raise _damaged(path, f"`{printable(name)}` has the unknown type {entry.dtype[:50]!r}")
    begin, end = entry.data_offsets
    tensor = Tensor(name, entry.dtype, entry.shape, begin, end)
    if end < begin or (end - begin) * 8 != tensor.elements * DTYPES[entry.dtype][0]:
        raise _damaged(path, f"the size of `{printable(name)}` is not that of its shape")
    return tensor


def _check_cover(path: Path, tensors: Iterable[Tensor], size: int) -> None:
    """The tensors must lie one after the other over all data: an overlap or a hole could hide something."""
    at = 0
    for tensor in tensors:
        if tensor.begin != at:
            what = "overlaps another tensor" if tensor.begin < at else "leaves bytes that belong to no tensor"
            raise _damaged(path, f"`{printable(tensor.name)}` {what}")
        at = tensor.end
    if at > size:
        raise ModelError(f"{path} is cut: {at - size} bytes are missing.", cure="Finish the download.")
    if at < size:
        raise _damaged(path, f"{size - at} bytes at the end belong to no tensor")
