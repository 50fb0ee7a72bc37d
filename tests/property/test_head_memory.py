"""A head that was read before means what it meant then: with and without the memory the same requests come out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.domain.errors import RequestError
from inferdock.wire.http_request import Request, RequestReader
from inferdock.wire.request_head import HeadMemory

TOKENS = st.text("abcXYZ-09", min_size=1, max_size=8)
VALUES = st.text("abc XYZ,;=/\t09", max_size=16)
ODD = st.sampled_from(
    [
        "Transfer-Encoding: chunked",
        "Content-Length: 3",
        "content-length:  2",
        "Expect: 100-continue",
        "Connection: close",
        "Connection: keep-alive, x-a",
        "Upgrade: websocket",
        "Host: other",
        " folded",
        "no colon",
    ]
)


@st.composite
def heads(draw: st.DrawFn) -> tuple[str, str]:
    """What stands before and behind the digits of Content-Length."""
    fields = [f"{name}: {value}" for name, value in draw(st.lists(st.tuples(TOKENS, VALUES), max_size=4))]
    fields += draw(st.lists(ODD, max_size=1))
    fields = draw(st.permutations(["Host: x", *fields]))
    place = draw(st.integers(0, len(fields)))
    method, version = draw(st.sampled_from(["POST", "GET", "PUT"])), draw(st.sampled_from(["1.1", "1.0"]))
    start = f"{method} /v1/completions?x=1 HTTP/{version}"
    length = draw(st.sampled_from(["Content-Length: ", "content-length:", "Content-Length:"]))
    before = "\r\n".join([start, *fields[:place], length])
    return before, "\r\n".join(["", *fields[place:], "", ""])


def read(data: bytes, memory: HeadMemory) -> tuple | str:
    """What one connection makes of one read: its request, or the status of its refusal."""
    taken: list[tuple[Request, bool]] = []

    def take(request: Request, keep_alive: bool) -> None:
        taken.append((request, keep_alive))

    reader = RequestReader(max_body_bytes=100, max_header_bytes=4096, taken=take, clock=lambda: 1.0, memory=memory)
    request = reader.whole(data)
    if request is not None:
        take(request, request.head.keep_alive)
    else:
        try:
            reader.feed(data)
        except RequestError as error:
            return f"refused with {error.status}"
    return tuple(
        (
            request.method,
            request.target,
            [field for field in request.headers if field[0] != b"content-length"],
            request.body,
            request.http10,
            keep_alive,
        )
        for request, keep_alive in taken
    )


@given(head=heads(), sizes=st.lists(st.integers(0, 120), min_size=2, max_size=5), pad=st.booleans())
def test_with_and_without_memory_the_same_requests_come_out(head: tuple[str, str], sizes: list[int], pad: bool) -> None:
    memory = HeadMemory()
    for size in sizes:
        digits = f"{size:03d}" if pad else str(size)
        data = (head[0] + digits + head[1]).encode() + b"b" * size
        assert read(data, memory) == read(data, HeadMemory())


@given(head=heads(), other=heads(), order=st.lists(st.tuples(st.booleans(), st.integers(0, 120)), max_size=8))
def test_one_connection_reads_its_next_requests_as_its_first(
    head: tuple[str, str], other: tuple[str, str], order: list[tuple[bool, int]]
) -> None:
    taken: list[Request] = []
    reader = RequestReader(
        max_body_bytes=100, max_header_bytes=4096, taken=lambda request, _: taken.append(request), clock=lambda: 1.0
    )
    for first, size in order:
        before, behind = head if first else other
        data = (before + str(size) + behind).encode() + b"b" * size
        expected = read(data, HeadMemory())
        taken.clear()
        request = reader.whole(data)
        if request is not None:
            taken.append(request)
        elif isinstance(expected, str):
            with pytest.raises(RequestError):
                reader.feed(data)
            return
        else:
            reader.feed(data)
        assert [(r.method, r.target, r.body, r.http10) for r in taken] == [(e[0], e[1], e[3], e[4]) for e in expected]
        if reader.ended or reader.receiving:
            return


def test_the_memory_of_one_connection_serves_another():
    memory = HeadMemory()
    data = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"
    read(data, memory)
    reader = RequestReader(
        max_body_bytes=100, max_header_bytes=4096, taken=lambda *_: None, clock=lambda: 1.0, memory=memory
    )
    other = reader.whole(data.replace(b": 3", b": 5") + b"de")
    assert other is not None
    assert other.body == b"abcde"


def test_a_request_that_is_too_large_takes_the_long_way():
    memory = HeadMemory()
    data = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"
    read(data, memory)
    large = data.replace(b": 3", b": 101").replace(b"abc", b"a" * 101)
    assert read(large, memory) == "refused with 413"
