"""Digests of files, and copies that take them on the way."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from inferdock.registry.hashing import Copied, copy_hashed, file_sha256
from inferdock.registry.store import BLOCK

SIZES = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17]


def data_of(size: int) -> bytes:
    return os.urandom(size)


@pytest.mark.parametrize("size", SIZES)
def test_the_digest_is_that_of_all_bytes(tmp_path: Path, size: int) -> None:
    data, moved = data_of(size), list[int]()
    (tmp_path / "file").write_bytes(data)
    assert file_sha256(tmp_path / "file", moved.append) == hashlib.sha256(data).hexdigest()
    assert sum(moved) == size


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_only_regular_files_have_one(tmp_path: Path, make: object) -> None:
    make(tmp_path / "odd")  # type: ignore[operator]
    with pytest.raises(OSError, match=r"regular|directory"):
        file_sha256(tmp_path / "odd", lambda count: None)


@pytest.mark.parametrize("size", SIZES)
def test_a_copy_has_the_bytes_and_the_digest(tmp_path: Path, size: int) -> None:
    data = data_of(size)
    assert copy(tmp_path, data, limit=size) == Copied(hashlib.sha256(data).hexdigest(), size)
    assert (tmp_path / "copy").read_bytes() == data


def test_a_source_that_is_too_long_is_left(tmp_path: Path) -> None:
    copied = copy(tmp_path, bytes(10 * BLOCK), limit=BLOCK)
    assert BLOCK < copied.size <= 2 * BLOCK


def copy(tmp_path: Path, data: bytes, *, limit: int) -> Copied:
    """Copy through a source that gives odd pieces."""
    rest = [data]

    def read(buffer: memoryview) -> int:
        piece = rest[0][: min(len(buffer), 700_001)]
        rest[0] = rest[0][len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)

    with (tmp_path / "copy").open("wb") as target:
        return copy_hashed(read, target.fileno(), lambda count: None, limit=limit)
