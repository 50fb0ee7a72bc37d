"""The response reader: framing, limits, and what it must refuse."""

import pytest

from inferdock.wire.http1 import (
    HOP_BY_HOP,
    LAST_CHUNK,
    MAX_CHUNK_BYTES,
    MAX_HEAD_BYTES,
    MAX_INFORMATIONAL,
    MAX_TRAILER_BYTES,
    ProtocolError,
    ResponseHeads,
    ResponseReader,
    chunk,
    end_to_end,
)

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


def test_chunk_extensions_pass_and_trailers_are_dropped():
    reader, body = read(CHUNKED + b"2;name=value\r\nab\r\n0;last\r\nX-Sum: 1\r\n\r\n")
    assert (reader.done, reader.surplus) == (True, False)
    assert body == b"2;name=value\r\nab\r\n" + LAST_CHUNK


def test_a_trailer_never_becomes_a_header():
    reader, _ = read(CHUNKED + b"0\r\nSet-Cookie: a=b\r\nContent-Type: text/html\r\n\r\n")
    assert reader.head is not None
    assert reader.head.headers == [(b"content-type", b"text/event-stream")]


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


@pytest.mark.parametrize(
    ("framing", "length", "chunked"),
    [(b"Content-Length: 10", 10, False), (b"Transfer-Encoding: chunked", None, True), (b"X: y", None, False)],
)
def test_the_answer_to_head_has_no_body_and_says_what_a_get_would_have(framing, length, chunked):
    reader, body = read(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n", bodiless=True)
    assert reader.head is not None
    assert (body, reader.done, reader.head.length, reader.head.chunked) == (b"", True, length, chunked)


def test_headers_that_connection_names_are_dropped_wherever_they_stand():
    reader, _ = read(
        b"HTTP/1.1 200 OK\r\nX-Before: 1\r\nConnection: keep-alive, x-before\r\nConnection: X-After\r\n"
        b"X-After: 1\r\nX-Kept: 1\r\nContent-Length: 0\r\n\r\n"
    )
    assert reader.head is not None
    assert reader.head.headers == [(b"x-kept", b"1")]
    assert reader.head.keep_alive


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        (b"1.1", b"keep-alive", True),
        (b"1.1", b"foo,Close", False),
        (b"1.1", b"not-close", True),
        (b"1.0", b"Keep-Alive", True),
        (b"1.0", b"x", False),
    ],
)
def test_a_connection_is_kept_as_version_and_connection_say(version, connection, kept):
    reader, _ = read(b"HTTP/%b 200 OK\r\nConnection: %b\r\nContent-Length: 0\r\n\r\n" % (version, connection))
    assert reader.head is not None
    assert reader.head.keep_alive is kept


def test_end_to_end_drops_what_any_connection_header_names():
    headers = [(b"connection", b"x-a"), (b"x-a", b"1"), (b"x-b", b"2"), (b"connection", b"close, X-B"), (b"x-c", b"3")]
    assert end_to_end(headers, HOP_BY_HOP) == [(b"x-c", b"3")]
    assert end_to_end([(b"connection", b"Keep-Alive"), (b"a", b"1")], HOP_BY_HOP) == [(b"a", b"1")]


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
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", id="bare carriage return"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\x00c\r\n\r\n", id="NUL in a value"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\x1bc\r\n\r\n", id="escape in a value"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA b: c\r\n\r\n", id="space in a name"),
        pytest.param(b"HTTP/1.1 200 OK\r\n: c\r\n\r\n", id="no name"),
        pytest.param(b"HTTP/1.1 200 OK\r\nN\xc3\xa4me: c\r\n\r\n", id="name not a token"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", id="equal lengths"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"0" * 5000 + b"\r\n\r\n", id="endless length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n", id="underscore in a length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", id="signed length"),
        pytest.param(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", id="chunked in version 1.0"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", id="chunked twice"
        ),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_INFORMATIONAL + 1), id="endless informational"),
        pytest.param(CHUNKED + b"1_0\r\n", id="underscore in a chunk length"),
        pytest.param(CHUNKED + b"+2\r\nab\r\n", id="signed chunk"),
        pytest.param(CHUNKED + b" 2\r\nab\r\n", id="space before a chunk length"),
        pytest.param(CHUNKED + b"2 \r\nab\r\n", id="space behind a chunk length"),
        pytest.param(CHUNKED + b"000000002\r\nab\r\n", id="overlong chunk length"),
        pytest.param(CHUNKED + b"2;a\nb\r\nab\r\n", id="line feed in an extension"),
        pytest.param(CHUNKED + b"2;a\x00\r\nab\r\n", id="NUL in an extension"),
        pytest.param(CHUNKED + b"\r\n", id="empty chunk line"),
        pytest.param(CHUNKED + b"%x\r\n" % (MAX_CHUNK_BYTES + 1), id="chunk a byte too large"),
        pytest.param(CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n", id="length in a trailer"),
        pytest.param(CHUNKED + b"0\r\nnot a field\r\n\r\n", id="malformed trailer"),
        pytest.param(CHUNKED + b"0\r\nA: b\nC: d\r\n\r\n", id="bare line feed in a trailer"),
        pytest.param(CHUNKED + b"0\r\nA: " + b"b" * MAX_TRAILER_BYTES + b"\r\n\r\n", id="trailers too large"),
        pytest.param(CHUNKED + b"0\r\nA: " + b"b" * MAX_TRAILER_BYTES, id="endless trailers"),
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


def test_a_remembered_head_is_found_for_every_length_of_its_own():
    heads = ResponseHeads()
    raws = [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nA: b" % length for length in (5, 7, 5)]
    read_heads = [heads.read(raw) for raw in raws]
    assert [head.length for head in read_heads] == [5, 7, 5]
    assert {tuple(head.headers) for head in read_heads} == {((b"a", b"b"),)}


@pytest.mark.parametrize("line", [b"Content-Length: ", b"Content-Length:", b"Content-Length: 5\r\nContent-Length: "])
def test_a_malformed_length_does_not_find_a_remembered_head(line):
    heads = ResponseHeads()
    for value in (b" 5", b"5", b"  5"):
        heads.read(b"HTTP/1.1 200 OK\r\nContent-Length:" + value)
    with pytest.raises(ProtocolError):
        heads.read(b"HTTP/1.1 200 OK\r\n" + line)
