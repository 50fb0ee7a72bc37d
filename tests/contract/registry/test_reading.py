"""Reading: whole files and ranges; what is not there is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferdock.domain.errors import IntegrityError
from inferdock.registry.store import BLOCK, Place, Store
from tests.support.registry_values import FILES, manifest_of, push, write

WEIGHTS = Place("demo", "1.0.0", "model.safetensors")
DATA = FILES["model.safetensors"]
SIZE = len(DATA)


@pytest.fixture
def filled(store: Store, tmp_path: Path) -> Store:
    push(store, manifest_of(FILES), write(tmp_path / "model", FILES))
    return store


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, None),
        (0, 1),
        (0, SIZE),
        (0, SIZE + 10),
        (1, None),
        (BLOCK, BLOCK),
        (BLOCK - 1, 2),
        (SIZE - 1, None),
        (SIZE - 7, 7),
    ],
)
def test_a_range_is_given_exactly(filled: Store, offset: int, length: int | None) -> None:
    data = b""
    with filled.open(WEIGHTS, offset=offset, length=length) as reader:
        while block := reader.read(BLOCK):
            assert len(block) <= BLOCK
            data += block
    assert data == (DATA[offset:] if length is None else DATA[offset : offset + length])


def test_an_empty_file_has_no_bytes(filled: Store) -> None:
    with filled.open(Place("demo", "1.0.0", "empty.txt")) as reader:
        assert reader.read(BLOCK) == b""


def test_small_reads_come_in_order(filled: Store) -> None:
    with filled.open(Place("demo", "1.0.0", "1_Pooling/config.json")) as reader:
        assert b"".join(iter(lambda: reader.read(3), b"")) == FILES["1_Pooling/config.json"]


def test_files_are_read_side_by_side(filled: Store) -> None:
    with filled.open(WEIGHTS) as one, filled.open(WEIGHTS, offset=5) as other:
        assert (one.read(10), other.read(10), one.read(10)) == (DATA[:10], DATA[5:15], DATA[10:20])


def test_a_reader_may_be_left_before_the_end(filled: Store) -> None:
    with filled.open(WEIGHTS) as reader:
        reader.read(1)


@pytest.mark.parametrize(
    "place",
    [
        Place("demo", "1.0.0", "gone.json"),
        Place("demo", "1.0.0", "config.json/inner"),
        Place("demo", "2.0.0", "config.json"),
        Place("nobody", "1.0.0", "config.json"),
    ],
    ids=str,
)
def test_a_file_that_is_not_there_is_named(filled: Store, place: Place) -> None:
    with pytest.raises(IntegrityError, match=place.path), filled.open(place):
        pass


@pytest.mark.parametrize(("name", "version"), [("demo", "2.0.0"), ("nobody", "1.0.0")])
def test_a_manifest_that_is_not_there_is_named(filled: Store, name: str, version: str) -> None:
    with pytest.raises(IntegrityError, match=f"{name}@{version}"):
        filled.manifest(name, version)
