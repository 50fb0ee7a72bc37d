"""Entries as bytes: what goes in comes out, and no bytes do harm."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.cache.codec import (
    MAX_BYTES,
    Damaged,
    Unstorable,
    decode_entry,
    decode_insert,
    encode_entry,
    encode_insert,
)
from inferdock.cache.entry import Entry, StoredAnswer
from tests.support.cache_values import VECTOR, answer, entry

_TEXT = st.text(max_size=60)
_SHORT = st.text(max_size=20)
_MOMENT = st.floats(min_value=0, max_value=1e10)
ANSWERS = st.builds(
    StoredAnswer,
    kind=st.sampled_from(["chat", "completion"]),
    model=_SHORT,
    text=_TEXT,
    finish_reason=_SHORT,
    prompt_tokens=st.integers(0, 2**40),
    output_tokens=st.integers(0, 2**40),
    reasoning=st.none() | _TEXT,
    reasoning_field=_SHORT,
    stop_reason=st.none() | _SHORT | st.integers(-(2**63), 2**63),
    system_fingerprint=st.none() | _SHORT,
)
ENTRIES = st.builds(
    Entry,
    key=st.binary(min_size=32, max_size=32),
    partition=st.binary(min_size=32, max_size=32),
    text=st.none() | _TEXT,
    answer=ANSWERS,
    tenant=_SHORT,
    model=_SHORT,
    revision=_SHORT,
    epoch=_SHORT,
    created_at=_MOMENT,
    expires_at=_MOMENT,
    duration_s=_MOMENT,
)


def _parts() -> list[Any]:
    """The array of a valid entry, for spoiling."""
    parts: list[Any] = msgspec.msgpack.decode(encode_entry(entry())[1:])
    return parts


def _bytes_of(parts: Any) -> bytes:
    return b"\x01" + msgspec.msgpack.encode(parts)


@given(ENTRIES)
def test_every_entry_comes_back_as_it_was(stored: Entry) -> None:
    assert decode_entry(encode_entry(stored)) == stored


@given(ENTRIES)
def test_every_insert_says_what_its_entry_says(stored: Entry) -> None:
    insert = decode_insert(encode_insert(stored, VECTOR))
    assert insert.vector == VECTOR
    for name in ("key", "partition", "text", "tenant", "model", "epoch", "expires_at"):
        assert getattr(insert, name) == getattr(stored, name)


@given(st.binary(max_size=200))
def test_random_bytes_are_damaged(data: bytes) -> None:
    for decode in (decode_entry, decode_insert):
        with pytest.raises(Damaged):
            decode(data)
        with pytest.raises(Damaged):
            decode(b"\x01" + data)


@given(st.data())
def test_changed_bytes_are_damaged_or_still_an_entry(data: st.DataObject) -> None:
    whole = bytearray(encode_entry(entry()))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Damaged):
        assert isinstance(decode_entry(bytes(whole)), Entry)


def test_no_beginning_of_an_entry_is_one() -> None:
    whole = encode_entry(entry())
    for length in range(len(whole)):
        with pytest.raises(Damaged):
            decode_entry(whole[:length])


def test_an_entry_with_more_behind_it_is_damaged() -> None:
    with pytest.raises(Damaged):
        decode_entry(encode_entry(entry()) + b"\x00")


def test_another_version_is_damaged() -> None:
    with pytest.raises(Damaged):
        decode_entry(b"\x02" + encode_entry(entry())[1:])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, b"short"),
        (0, "x" * 32),
        (1, b"x" * 33),
        (2, 7),
        (3, []),
        (4, None),
        (4, "x" * 2000),
        (7, "x" * 65),
        (8, math.nan),
        (8, -1.0),
        (9, math.nan),
        (9, math.inf),
        (9, 1e12),
        (9, "1"),
        (9, True),
    ],
    ids=str,
)
def test_a_value_of_the_wrong_kind_is_damaged(place: int, value: object) -> None:
    parts = _parts()
    parts[place] = value
    with pytest.raises(Damaged):
        decode_entry(_bytes_of(parts))


@pytest.mark.parametrize("value", ["chatter", None, 3], ids=str)
def test_an_answer_of_an_unknown_kind_is_damaged(value: object) -> None:
    parts = _parts()
    parts[3][0] = value
    with pytest.raises(Damaged):
        decode_entry(_bytes_of(parts))


@pytest.mark.parametrize("count", [-1, 2**60, 1.5])
def test_tokens_that_are_no_count_are_damaged(count: float) -> None:
    parts = _parts()
    parts[3][4] = count
    with pytest.raises(Damaged):
        decode_entry(_bytes_of(parts))


@pytest.mark.parametrize(
    "data",
    [b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff" + b"x" * 10, b"\xc6\xff\xff\xff\xff"],
    ids=["deep", "endless array", "endless string", "endless bytes"],
)
def test_bombs_do_not_go_off(data: bytes) -> None:
    with pytest.raises(Damaged):
        decode_entry(b"\x01" + data)


def test_more_bytes_than_any_entry_has_are_not_looked_at() -> None:
    with pytest.raises(Damaged):
        decode_entry(b"\x01" + bytes(MAX_BYTES))


@pytest.mark.parametrize(
    "bad",
    [
        entry(answer=answer("x" * MAX_BYTES)),
        entry(text="\ud800"),
        entry(answer=answer(output_tokens=2**70)),
        entry(tenant=object()),
    ],
    ids=["too large", "half a character", "a number too large", "no text"],
)
def test_what_cannot_be_encoded_is_said_to_be_so(bad: Entry) -> None:
    with pytest.raises(Unstorable):
        encode_entry(bad)


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(Unstorable):
        encode_insert(entry(), b"short")


def test_an_entry_is_no_insert() -> None:
    with pytest.raises(Damaged):
        decode_insert(encode_entry(entry()))
