"""Encryption: who has the key reads it, where it was put, unchanged."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.cache.codec import Damaged
from inferdock.cache.sealer import Sealer, sealer_from_files
from inferdock.domain.errors import ConfigError

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
SEALER = Sealer([KEY])


@given(st.binary(max_size=500), st.binary(max_size=50))
def test_what_was_sealed_opens(data: bytes, context: bytes) -> None:
    assert SEALER.open(SEALER.seal(data, context), context) == data


@given(st.binary(max_size=100), st.data())
def test_nothing_that_was_changed_opens(data: bytes, draw: st.DataObject) -> None:
    sealed = bytearray(SEALER.seal(data, b"c"))
    sealed[draw.draw(st.integers(0, len(sealed) - 1))] ^= draw.draw(st.integers(1, 255))
    with pytest.raises(Damaged):
        SEALER.open(bytes(sealed), b"c")


@pytest.mark.parametrize("length", [0, 1, 5, 16, 17, 32, 40])
def test_no_part_of_it_opens(length: int) -> None:
    with pytest.raises(Damaged):
        SEALER.open(SEALER.seal(b"hello", b"c")[:length][:37], b"c")


def test_a_value_does_not_open_under_another_key_of_the_cache() -> None:
    with pytest.raises(Damaged):
        SEALER.open(SEALER.seal(b"hello", b"entry:one"), b"entry:two")


def test_plain_bytes_do_not_open() -> None:
    with pytest.raises(Damaged):
        SEALER.open(b"\x01hello", b"c")


def test_the_same_value_is_never_sealed_the_same_way() -> None:
    assert SEALER.seal(b"hello", b"c") != SEALER.seal(b"hello", b"c")


def test_no_text_is_left_to_read() -> None:
    assert b"hello" not in SEALER.seal(b"hello" * 10, b"c")


def test_old_keys_open_and_the_first_seals() -> None:
    rotated = Sealer([OTHER, KEY])
    assert rotated.open(SEALER.seal(b"hello", b"c"), b"c") == b"hello"
    with pytest.raises(Damaged):
        SEALER.open(rotated.seal(b"hello", b"c"), b"c")


@pytest.mark.parametrize(
    "content",
    [
        KEY,
        KEY.hex().encode(),
        KEY.hex().upper().encode() + b"\n",
        base64.b64encode(KEY) + b"\r\n",
        base64.urlsafe_b64encode(KEY),
        b"\n\n" + b"\n" * 29 + b"\n",
    ],
    ids=["raw", "hex", "upper hex", "base64", "url base64", "raw that looks blank"],
)
def test_key_files_of_all_forms_are_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    key = content if len(content) == 32 else KEY
    assert Sealer([key]).open(sealer_from_files([path]).seal(b"x", b"c"), b"c") == b"x"


@pytest.mark.parametrize(
    "content",
    [b"", b"secret-word", KEY + b"\n", KEY[:31], KEY.hex()[:-1].encode(), base64.b64encode(KEY + b"x"), b"x" * 5000],
    ids=["empty", "password", "33 raw", "31 raw", "odd hex", "long base64", "huge"],
)
def test_a_file_without_a_key_is_named_and_its_content_is_not(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        sealer_from_files([path])
    assert str(path) in str(caught.value)
    assert "secret-word" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        sealer_from_files([tmp_path / "missing"])


@pytest.mark.parametrize("keys", [[], [b"short"]], ids=["none", "short"])
def test_a_sealer_needs_keys(keys: list[bytes]) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Sealer(keys)
