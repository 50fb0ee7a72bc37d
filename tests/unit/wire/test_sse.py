"""Cutting bytes into server-sent events."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.wire.sse import EventSplitter, SseError


def split(*pieces: bytes) -> list[bytes]:
    splitter = EventSplitter()
    return [event for piece in pieces for event in splitter.feed(piece)]


@pytest.mark.parametrize(
    ("raw", "events"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data:a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\n", [b"a"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: one\ndata: two\n\n", [b"one\ntwo"]),
        (b": comment\nevent: x\nid: 1\nretry: 5\ndata: a\n\n", [b"a"]),
        (b"\n\n\n", []),
        (b"data: not ended", []),
        (b"data:  two spaces\n\n", [b" two spaces"]),
        (b"data\n\n", [b""]),
        (b"data: a\r\n\ndata: b\n\r\n", [b"a", b"b"]),
    ],
)
def test_events_of_a_stream(raw, events):
    assert split(raw) == events


@given(
    st.lists(st.text(alphabet="ab: {}é", max_size=12), max_size=6),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(0, 300), max_size=12),
)
def test_any_cutting_gives_the_same_events(texts, end, places):
    raw = "".join(f"data: {text}{end}{end}" for text in texts).encode()
    marks = sorted({0, len(raw), *(place % (len(raw) + 1) for place in places)})
    pieces = [raw[start:stop] for start, stop in itertools.pairwise(marks)]
    assert split(*pieces) == [text.encode() for text in texts]


@pytest.mark.parametrize("raw", [b"data: a\r\n\ndata: b\n\r\n", b"data: a\r\rdata: b\r\n\r\n", b"\r\r\ndata: c\n\r"])
def test_mixed_line_ends_mean_the_same_byte_by_byte(raw):
    assert split(*(raw[i : i + 1] for i in range(len(raw)))) == split(raw)


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_noise_never_crashes(pieces):
    split(*pieces)


@pytest.mark.parametrize("raw", [b"data: " + b"x" * 200, b"data: " + b"x" * 60 + b"\ndata: " + b"y" * 60 + b"\n"])
def test_an_endless_event_is_refused(raw):
    with pytest.raises(SseError):
        EventSplitter(limit=100).feed(raw)
