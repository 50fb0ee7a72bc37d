"""However a stream of requests or responses is cut into pieces, the same comes out: all cuttings of short ones, and
many of long ones."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.wire.http1 import LAST_CHUNK, chunk
from tests.fuzz.corpus import CHUNKED, POST, STREAM, VALID_REQUESTS, VALID_RESPONSES
from tests.fuzz.drive import Answering, Driven, SmallLimits, all_cuttings, cut, drive
from tests.fuzz.laws import read_response

SHORT_BODIES = [b"1\r\na\r\n0\r\n\r\n", b"1;x\r\na\r\n0\r\n\r\n", b"0\r\nA: b\r\n\r\n"]
"""Chunked bodies short enough for every one of their cuttings."""

LONG = SmallLimits(max_body_bytes=1_000_000, max_header_bytes=32 * 1024)


def result(pieces, *, at_once: bool = True):
    """What the handler saw and the client got."""
    driven = drive(pieces, at_once=at_once, limits=LONG)
    return driven.seen, driven.handler.statuses, driven.answers


# -- Requests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", SHORT_BODIES)
def test_every_cutting_of_a_chunked_body_gives_the_same_request(body):
    expected = result([CHUNKED + body])
    for pieces in all_cuttings(body):
        driven = Driven(limits=LONG)
        for piece in [CHUNKED, *pieces]:
            driven.feed(piece)
        assert (driven.seen, driven.handler.statuses, driven.answers) == expected


def test_every_cutting_of_a_sized_body_gives_the_same_request():
    head = POST + b"Content-Length: 11\r\n\r\n"
    expected = result([head + b"hello world"])
    assert all(result([head, *pieces]) == expected for pieces in all_cuttings(b"hello world"))


@pytest.mark.parametrize("raw", [pytest.param(raw, id=name) for name, raw in VALID_REQUESTS.items()])
def test_every_request_may_be_cut_anywhere(raw):
    expected = result([raw])
    assert result([raw[place : place + 1] for place in range(len(raw))]) == expected
    assert all(result([raw[:place], raw[place:]]) == expected for place in range(1, len(raw)))


def test_two_requests_may_be_cut_at_any_two_places():
    raw = b"GET / HTTP/1.1\r\nHost:x\r\n\r\nPUT / HTTP/1.1\r\nHost:x\r\nContent-Length:2\r\n\r\n{}"
    expected = result([raw])
    assert len(expected[0]) == 2
    for first, second in itertools.combinations(range(1, len(raw)), 2):
        assert result([raw[:first], raw[first:second], raw[second:]]) == expected


@given(
    st.lists(st.sampled_from(list(VALID_REQUESTS.values())), min_size=1, max_size=30),
    st.lists(st.integers(0, 10_000), max_size=30),
    st.booleans(),
)
def test_long_streams_of_requests_may_be_cut_anywhere(requests, places, at_once):
    raw = b"".join(requests)
    assert result(cut(raw, places), at_once=at_once) == result([raw])


@given(st.lists(st.binary(min_size=1, max_size=20_000), max_size=6), st.lists(st.integers(0, 100_000), max_size=20))
def test_large_bodies_may_be_cut_anywhere(parts, places):
    body = b"".join(parts)
    chunked = CHUNKED + b"".join(chunk(part) for part in parts) + LAST_CHUNK
    raw = POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body) + chunked
    driven = Driven(handler=Answering(at_once=False), limits=LONG)
    for piece in cut(raw, places):
        driven.feed(piece)
    driven.answer_all()
    assert [seen[3] for seen in driven.seen] == [body, body]


# -- Responses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", SHORT_BODIES)
def test_every_cutting_of_a_chunked_response_gives_the_same(body):
    expected = read_response([STREAM + body])
    assert expected[0] == "done"
    assert all(read_response([STREAM, *pieces]) == expected for pieces in all_cuttings(body))


@pytest.mark.parametrize("bodiless", [False, True])
@pytest.mark.parametrize("raw", [pytest.param(raw, id=name) for name, raw in VALID_RESPONSES.items()])
def test_every_response_may_be_cut_at_any_two_places(raw, bodiless):
    for eof in (False, True):
        expected = read_response([raw], bodiless=bodiless, eof=eof)
        assert expected[0] == "done" or not eof
        for first, second in itertools.combinations(range(1, len(raw)), 2):
            pieces = [raw[:first], raw[first:second], raw[second:]]
            assert read_response(pieces, bodiless=bodiless, eof=eof) == expected


framings = st.sampled_from(["chunked", "sized", "close"])


@given(
    framings, st.lists(st.binary(min_size=1, max_size=3000), max_size=20), st.lists(st.integers(0, 60_000), max_size=30)
)
def test_long_responses_of_every_framing_may_be_cut_anywhere(framing, parts, places):
    body = b"".join(parts)
    raw = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n"
    if framing == "chunked":
        raw += b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunk(part) for part in parts) + b"0\r\nX: y\r\n\r\n"
    elif framing == "sized":
        raw += b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    else:
        raw += b"\r\n" + body
    state, out, payload, surplus = read_response(cut(raw, places))
    assert (state, payload, surplus) == ("done", body, False)
    assert framing == "chunked" or out == body


@given(st.sampled_from(list(VALID_RESPONSES.values())), st.binary(min_size=1, max_size=50), st.integers(0, 500))
def test_what_follows_a_response_is_never_part_of_it(raw, more, place):
    alone = read_response([raw], eof=False)
    if alone[0] != "done":
        return  # it goes on until the connection ends
    followed = read_response(cut(raw + more, [place]), eof=False)
    assert followed == (alone[0], alone[1], alone[2], True)
