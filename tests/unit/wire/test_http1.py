"""The response reader: framing, limits, and what it must refuse."""

import pytest

from inferdock.wire.http1 import MAX_HEAD_BYTES, ProtocolError, ResponseReader, chunk

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"


def read(*pieces: bytes, bodiless: bool = False) -> tuple[ResponseReader, bytes]:
    reader = ResponseReader(bodiless=bodiless)
    body = b"".join(reader.feed(piece) or b"" for piece in pieces)
    return reader, body


def test_a_sized_body_ends_where_its_length_says():
    reader, body = read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", b"lo")
    assert (body, reader.done, reader.surplus) == (b"hello", True, False)


def test_bytes_behind_a_response_are_kept_from_the_client():
    reader, body = read(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n")
    assert (body, reader.done, reader.surplus) == (b"ok", True, True)


def test_a_chunked_body_is_handed_on_with_its_framing():
    reader, body = read(CHUNKED + chunk(b"data: 1\n\n"), chunk(b"data: 2\n\n") + b"0\r\n\r\n")
    assert body == chunk(b"data: 1\n\n") + chunk(b"data: 2\n\n") + b"0\r\n\r\n"
    assert reader.done
    assert not reader.surplus


def test_only_whole_chunks_are_handed_on():
    reader = ResponseReader()
    whole, cut = chunk(b"first"), chunk(b"second")
    assert reader.feed(CHUNKED + whole + cut[:4]) == whole
    assert reader.feed(cut[4:]) == cut


def test_the_places_of_payloads_are_told():
    reader = ResponseReader()
    body = reader.feed(CHUNKED + chunk(b"ab") + chunk(b"cde"))
    assert body is not None
    assert [body[start:end] for start, end in reader.payloads] == [b"ab", b"cde"]


def test_chunk_extensions_and_trailers_pass():
    reader, body = read(CHUNKED + b"2;name=value\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n")
    assert reader.done
    assert body.endswith(b"0\r\nX-Sum: 1\r\n\r\n")


def test_a_body_without_length_ends_with_the_connection():
    reader, body = read(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    assert not reader.done
    reader.feed_eof()
    assert (body, reader.done) == (b"all of it", True)


def test_an_early_close_is_a_cut_response():
    reader, _ = read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
    with pytest.raises(ProtocolError, match="closed in the middle"):
        reader.feed_eof()


def test_informational_responses_are_skipped():
    reader, body = read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
    assert reader.head is not None
    assert (reader.head.status, body) == (200, b"x")


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body_have_none(status):
    reader, _ = read(b"HTTP/1.1 %d X\r\nContent-Length: 10\r\n\r\n" % status)
    assert not reader.done or not reader.surplus
    reader.feed(b"")
    assert reader.done


def test_the_answer_to_head_has_no_body():
    reader, body = read(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", b"", bodiless=True)
    assert (body, reader.done) == (b"", True)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="another protocol"),
        pytest.param(b"HTTP/2.0 200 OK\r\n\r\n", id="another version"),
        pytest.param(b"HTTP/1.1 2x0 OK\r\n\r\n", id="status not a number"),
        pytest.param(b"HTTP/1.1 999 Odd\r\n\r\n", id="status out of range"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", id="protocol switch"),
        pytest.param(b"HTTP/1.1 200 OK\r\nNo colon here\r\n\r\n", id="header without colon"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n", id="folded header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nName : v\r\n\r\n", id="space before colon"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\nInjected: c\r\n\r\n", id="bare line feed"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", id="negative length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", id="two lengths"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", id="length and chunked"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", id="another coding"),
        pytest.param(CHUNKED + b"zz\r\n", id="length not hexadecimal"),
        pytest.param(CHUNKED + b"-2\r\nab\r\n", id="negative chunk"),
        pytest.param(CHUNKED + b"0x2\r\nab\r\n", id="prefixed chunk length"),
        pytest.param(CHUNKED + b"2\r\nabXX", id="chunk without CRLF"),
        pytest.param(CHUNKED + b"ffffffff\r\n", id="chunk too large"),
        pytest.param(CHUNKED + b"1" * 2000, id="endless chunk line"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: " + b"b" * MAX_HEAD_BYTES + b"\r\n\r\n", id="head too large"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: " + b"b" * MAX_HEAD_BYTES, id="endless head"),
    ],
)
def test_malformed_responses_are_refused(raw):
    with pytest.raises(ProtocolError):
        read(raw)
