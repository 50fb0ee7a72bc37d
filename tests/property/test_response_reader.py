"""Laws of the response reader: pieces do not matter, h11 agrees, noise never crashes it."""

import itertools

import h11
from hypothesis import given
from hypothesis import strategies as st

from inferdock.wire.http1 import LAST_CHUNK, ProtocolError, ResponseReader, chunk

payloads = st.lists(st.binary(min_size=1, max_size=300), max_size=8)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Split ``data`` at the given places (taken modulo its length)."""
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(marks)]


def chunked_response(parts: list[bytes]) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(chunk(part) for part in parts) + LAST_CHUNK


def payload_of(reader: ResponseReader, pieces: list[bytes]) -> bytes:
    """Feed pieces; return the de-chunked payload, as the places say."""
    out = b""
    for piece in pieces:
        body = reader.feed(piece)
        if body:
            out += b"".join(body[start:end] for start, end in reader.payloads)
    return out


@given(payloads, st.lists(st.integers(min_value=0), max_size=20))
def test_any_cutting_of_a_chunked_response_gives_the_same_payload(parts, places):
    reader = ResponseReader()
    assert payload_of(reader, cut(chunked_response(parts), places)) == b"".join(parts)
    assert reader.done
    assert not reader.surplus


@given(payloads, st.lists(st.integers(min_value=0), max_size=20))
def test_raw_bytes_handed_on_are_the_bytes_that_came(parts, places):
    raw = chunked_response(parts)
    reader = ResponseReader()
    out = b"".join(reader.feed(piece) or b"" for piece in cut(raw, places))
    assert out == raw[raw.index(b"\r\n\r\n") + 4 :]


@given(st.binary(max_size=200), st.lists(st.integers(min_value=0), max_size=10))
def test_any_cutting_of_a_sized_response_gives_the_same_body(body, places):
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    reader = ResponseReader()
    assert b"".join(reader.feed(piece) or b"" for piece in cut(raw, places)) == body


@given(payloads)
def test_h11_reads_the_same(parts):
    raw = chunked_response(parts)
    other = h11.Connection(our_role=h11.CLIENT)
    other.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    other.send(h11.EndOfMessage())
    other.receive_data(raw)
    theirs = b""
    while type(event := other.next_event()) is not h11.EndOfMessage:
        if isinstance(event, h11.Data):
            theirs += bytes(event.data)
    assert payload_of(ResponseReader(), [raw]) == theirs


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_noise_is_refused_or_awaited_but_never_crashes(pieces):
    reader = ResponseReader()
    try:
        for piece in pieces:
            reader.feed(piece)
        reader.feed_eof()
    except ProtocolError:
        pass


@given(st.binary(max_size=80), st.integers(min_value=0, max_value=200))
def test_a_damaged_response_is_refused_or_read_but_never_crashes(noise, place):
    raw = chunked_response([b"data: one\n\n", b"data: two\n\n"])
    damaged = raw[:place] + noise + raw[place:]
    reader = ResponseReader()
    try:
        reader.feed(damaged)
        reader.feed_eof()
    except ProtocolError:
        pass
