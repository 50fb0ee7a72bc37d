"""Reading an object over connections that break."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from inferdock.domain.errors import IntegrityError, UnreachableError
from inferdock.registry.aws.errors import Edge
from inferdock.registry.aws.reader import BREAKS, ObjectReader, ranged

DATA = bytes(range(256)) * 4
EDGE = Edge(bucket="models", table="versions")


class Body:
    """Some bytes, and then a break or an early end."""

    def __init__(self, data: bytes, failure: Exception | None) -> None:
        self._data = data
        self._failure = failure

    def read(self, size: int) -> bytes:
        if not self._data and self._failure is not None:
            raise self._failure
        block, self._data = self._data[:size], self._data[size:]
        return block

    def close(self) -> None:
        pass


class Bucket:
    """An object whose connections give so many bytes each.

    Args:
        lengths: bytes that come before each connection breaks; the last one for all further ones.
        failure: how it breaks; None: it just ends.
    """

    def __init__(self, *lengths: int, failure: Exception | None = None) -> None:
        self._lengths = list(lengths)
        self._failure = failure
        self.ranges: list[str] = []
        self.slept: list[float] = []
        self.refusal: ClientError | None = None

    def get(self, **wanted: str) -> Any:
        if self.refusal is not None and self.ranges:
            raise self.refusal
        self.ranges.append(wanted.get("Range", ""))
        assert wanted.get("IfMatch", '"e"') == '"e"'
        begin, _, end = wanted.get("Range", "bytes=0-1023").removeprefix("bytes=").partition("-")
        data = DATA[int(begin) : int(end) + 1]
        length = self._lengths.pop(0) if len(self._lengths) > 1 else self._lengths[0]
        return {
            "Body": Body(data[:length], self._failure),
            "ETag": '"e"',
            "ContentLength": len(data),
            "ContentRange": f"bytes {begin}-{end}/1024",
        }

    def reader(self, begin: int = 0, end: int = 1023) -> ObjectReader:
        first = self.get(Range=f"bytes={begin}-{end}")
        return ObjectReader(self.get, first, begin=begin, what="a file", edge=EDGE, sleep=self.slept.append)


def all_of(reader: ObjectReader) -> bytes:
    return b"".join(iter(lambda: reader.read(100), b""))


@pytest.mark.parametrize("failure", [None, ReadTimeoutError(endpoint_url="x"), ConnectionResetError()], ids=repr)
def test_a_read_goes_on_where_the_connection_broke(failure: Exception | None) -> None:
    bucket = Bucket(300, 0, 1, 2000, failure=failure)
    assert all_of(bucket.reader()) == DATA
    assert bucket.ranges == ["bytes=0-1023", "bytes=300-1023", "bytes=300-1023", "bytes=301-1023"]


def test_a_range_that_broke_ends_where_it_was_to_end() -> None:
    bucket = Bucket(10, 2000)
    assert all_of(bucket.reader(100, 149)) == DATA[100:150]
    assert bucket.ranges[-1] == "bytes=110-149"


def test_a_connection_that_breaks_forever_is_given_up_with_growing_pauses() -> None:
    bucket = Bucket(0)
    with pytest.raises(UnreachableError, match="again and again while a file was read"):
        all_of(bucket.reader())
    assert len(bucket.slept) == BREAKS
    assert bucket.slept[-1] > bucket.slept[0]


def test_breaks_count_anew_after_each_byte() -> None:
    bucket = Bucket(*[1] * 1100)
    assert all_of(bucket.reader()) == DATA


@pytest.mark.parametrize("code", ["PreconditionFailed", "NoSuchKey"])
def test_an_object_that_is_replaced_meanwhile_is_not_mixed(code: str) -> None:
    bucket = Bucket(10)
    bucket.refusal = ClientError({"Error": {"Code": code}}, "GetObject")
    with pytest.raises(IntegrityError, match="replaced or removed"):
        all_of(bucket.reader())


def test_a_store_that_knows_no_ranges_is_told_apart() -> None:
    answer = {"Body": Body(DATA, None), "ContentLength": len(DATA)}
    with pytest.raises(UnreachableError, match="does not serve ranges"):
        ranged(answer, 5, "a file")
