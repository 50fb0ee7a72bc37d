"""Our reading of requests beside h11's: agreement, and the whole list of where and why we differ."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import mutate
from tests.fuzz.corpus import CHUNKED, GET, HOST, POST, VALID_REQUESTS, VALID_RESPONSES
from tests.fuzz.drive import cut, drive, read_by_h11
from tests.fuzz.laws import check_against_h11, check_requests, check_response

LAST = b"0\r\n\r\n"

BOTH_REFUSE: dict[str, bytes] = {
    "lengths that differ": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "a length with a sign": POST + b"Content-Length: +3\r\n\r\nabc",
    "a negative length": POST + b"Content-Length: -3\r\n\r\nabc",
    "a length with an underscore": POST + b"Content-Length: 1_0\r\n\r\n0123456789",
    "a hexadecimal length": POST + b"Content-Length: 0x3\r\n\r\nabc",
    "a length in other digits": POST + b"Content-Length: \xd9\xa3\r\n\r\nabc",
    "an empty length": POST + b"Content-Length:\r\n\r\n",
    "an overlong length": POST + b"Content-Length: " + b"0" * 30 + b"3\r\n\r\nabc",
    "an endless length": POST + b"Content-Length: " + b"0" * 5000 + b"3\r\n\r\nabc",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST,
    "chunked, chunked": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + LAST,
    "gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + LAST,
    "chunked, gzip": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + LAST,
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "a vertical tab before chunked": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + LAST,
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
    "a space before the colon": POST + b"A : b\r\n\r\n",
    "a space in a name": POST + b"A b: c\r\n\r\n",
    "no name": POST + b": b\r\n\r\n",
    "no colon": POST + b"A\r\n\r\n",
    "a folded first line": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "NUL in a value": POST + b"A: b\x00c\r\n\r\n",
    "NUL in a name": POST + b"A\x00: c\r\n\r\n",
    "a bare carriage return": POST + b"A: b\rc\r\n\r\n",
    "high bytes in the target": b"GET /\xc3\xa4 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tab for a space": b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "no version": b"GET /\r\n\r\n",
    "a version in small letters": b"GET / http/1.1\r\n" + HOST + b"\r\n",
    "version 1.10": b"GET / HTTP/1.10\r\n" + HOST + b"\r\n",
    "another protocol": b"SOURCE / ICE/1.0\r\n" + HOST + b"\r\n",
    "a signed chunk": CHUNKED + b"+3\r\nabc\r\n" + LAST,
    "an underscore in a chunk length": CHUNKED + b"1_0\r\n0123456789abcdef\r\n" + LAST,
    "a prefixed chunk length": CHUNKED + b"0x3\r\nabc\r\n" + LAST,
    "a space before a chunk length": CHUNKED + b" 3\r\nabc\r\n" + LAST,
    "a space before an extension": CHUNKED + b"3 ;a\r\nabc\r\n" + LAST,
    "a line feed in an extension": CHUNKED + b"3;a\nb\r\nabc\r\n" + LAST,
    "a chunk longer than it says": CHUNKED + b"3\r\nabcX\r\n" + LAST,
    "a malformed trailer": CHUNKED + b"0\r\nA b: 1\r\n\r\n",
}

STRICTER: dict[str, tuple[bytes, int, str]] = {
    "folded header": (POST + b"A: b\r\n folded\r\n\r\n", 400, "RFC 9112, 5.2: a server may refuse; parsers differ"),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: x\n\n", 400, "parsers differ on where the head ends"),
    "bare line feeds in chunks": (CHUNKED + b"3\nabc\n0\n\n", 400, "the same for chunks; h11 waits for more"),
    "equal lengths": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400, "RFC 9112, 6.3: may refuse"),
    "a list of equal lengths": (POST + b"Content-Length: 3, 3\r\n\r\nabc", 400, "RFC 9112, 6.3: may refuse"),
    "length before chunked": (
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST,
        400,
        "RFC 9112, 6.1: the sign of request smuggling",
    ),
    "length behind chunked": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" + LAST,
        400,
        "RFC 9112, 6.1: the sign of request smuggling",
    ),
    "white space behind chunked": (POST + b"Transfer-Encoding: chunked \t\r\n\r\n" + LAST, 400, "llhttp refuses it"),
    "chunked in version 1.0": (
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST,
        400,
        "RFC 9112, 6.1: its framing is faulty",
    ),
    "an escape in a value": (POST + b"A: b\x1bc\r\n\r\n", 400, "RFC 9110, 5.5: control characters are invalid"),
    "DEL in a value": (POST + b"A: b\x7fc\r\n\r\n", 400, "RFC 9110, 5.5: control characters are invalid"),
    "a Host that is none": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "RFC 9112, 3.2: 400 for an invalid Host"),
    "a URL that is not HTTP's": (b"GET ftp://y/ HTTP/1.1\r\n" + HOST + b"\r\n", 400, "nothing here serves it"),
    "a URL with a user": (b"GET http://u:p@y/ HTTP/1.1\r\n" + HOST + b"\r\n", 400, "RFC 9110, 4.2.4: an error"),
    "a URL without a host": (b"GET http:///x HTTP/1.1\r\n" + HOST + b"\r\n", 400, "RFC 9110, 4.2.1: invalid"),
    "an asterisk without OPTIONS": (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", 400, "RFC 9112, 3.2.4: OPTIONS only"),
    "an authority without CONNECT": (b"GET y:80 HTTP/1.1\r\n" + HOST + b"\r\n", 400, "RFC 9112, 3.2.3: CONNECT only"),
    "a fragment": (b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n", 400, "RFC 9112, 3.2.1: not part of a target"),
    "CONNECT": (b"CONNECT y:80 HTTP/1.1\r\nHost: y:80\r\n\r\n", 501, "we are no tunnel"),
    "TRACE": (b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n", 501, "shows headers to whoever can make a browser send it"),
    "an unknown method": (b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n", 400, "llhttp has a list of methods"),
    "a method in small letters": (b"get / HTTP/1.1\r\n" + HOST + b"\r\n", 400, "the same; methods are case-sensitive"),
    "version 0.9": (b"GET / HTTP/0.9\r\n" + HOST + b"\r\n", 505, "we speak 1.1 and 1.0"),
    "version 1.2": (b"GET / HTTP/1.2\r\n" + HOST + b"\r\n", 400, "we speak 1.1 and 1.0"),
    "version 2.0": (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505, "we speak 1.1 and 1.0"),
    "preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "we speak 1.1 and 1.0"),
    "a huge length": (POST + b"Content-Length: " + b"9" * 19 + b"\r\n\r\n", 413, "above the limit: said at once"),
    "an overflowing length": (POST + b"Content-Length: " + b"9" * 20 + b"\r\n\r\n", 400, "h11 waits for the body"),
    "an overflowing chunk": (CHUNKED + b"f" * 17 + b"\r\n", 400, "h11 waits for the chunk"),
    "white space behind a chunk length": (CHUNKED + b"3 \r\nabc\r\n" + LAST, 400, "RFC 9112, 7.1 has none"),
    "length in a trailer": (CHUNKED + b"0\r\nContent-Length: 3\r\n\r\n", 400, "RFC 9110, 6.5.1: framing in a trailer"),
    "coding in a trailer": (CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "the same"),
    "an unknown expectation": (POST + b"Expect: a-miracle\r\n\r\n", 417, "RFC 9110, 10.1.1: may answer 417"),
    "an Upgrade with a body": (
        POST + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}",
        501,
        "llhttp would take the body for the next request",
    ),
}
"""What h11 accepts (or waits for) and we refuse: the bytes, our status, the reason."""

LAXER: dict[str, tuple[bytes, str]] = {
    "blank lines first": (b"\r\n\r\n" + GET, "RFC 9112, 2.2: should be ignored, some clients send them"),
    "line feeds first": (b"\n" + GET, "the same, and nothing has begun yet that they could end"),
    "a carriage return first": (b"\r" + GET, "the same"),
    "two spaces behind the method": (
        b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n",
        "RFC 9112, 3: may; we write it anew",
    ),
    "two spaces before the version": (b"GET /  HTTP/1.1\r\n" + HOST + b"\r\n", "the same"),
    "RTSP by name": (b"GET / RTSP/1.0\r\n" + HOST + b"\r\n", "llhttp hides the name: read, and closed, as HTTP/1.0"),
    "a chunk length with many zeros": (
        CHUNKED + b"0" * 30 + b"3\r\nabc\r\n" + LAST,
        "h11 takes 20 digits; same value",
    ),
}
"""What we accept and h11 refuses, with the reason why that is safe: none of it goes on as it came."""


@pytest.mark.parametrize("raw", [pytest.param(raw, id=name) for name, raw in VALID_REQUESTS.items()])
def test_valid_requests_are_read_as_h11_reads_them(raw):
    driven, theirs = drive([raw]), read_by_h11(raw)
    assert len(driven.seen) == len(theirs.seen) == 1
    assert not driven.handler.statuses
    check_against_h11(raw)


@pytest.mark.parametrize("raw", [pytest.param(raw, id=name) for name, raw in BOTH_REFUSE.items()])
def test_both_refuse(raw):
    driven, theirs = drive([raw]), read_by_h11(raw)
    assert driven.seen == theirs.seen == []
    assert driven.handler.statuses
    assert theirs.refused


@pytest.mark.parametrize(("raw", "status", "reason"), [pytest.param(*row, id=name) for name, row in STRICTER.items()])
def test_we_are_stricter(raw, status, reason):
    driven, theirs = drive([raw]), read_by_h11(raw)
    assert driven.seen == []
    assert driven.handler.statuses == [status], reason
    assert theirs.seen or not theirs.refused, "h11 refuses it now: move the row"


@pytest.mark.parametrize(("raw", "reason"), [pytest.param(*row, id=name) for name, row in LAXER.items()])
def test_we_are_laxer_for_a_reason(raw, reason):
    driven, theirs = drive([raw]), read_by_h11(raw)
    assert len(driven.seen) == 1, reason
    assert theirs.refused
    check_requests([raw])


@pytest.mark.parametrize(
    ("target", "path"),
    [(b"http://y/z?q", b"/z?q"), (b"HTTPS://y:80?q", b"/?q"), (b"http://[::1]:8", b"/"), (b"http://y", b"/")],
)
def test_a_url_as_target_is_cut_to_its_path_and_overrules_the_host(target, path):
    driven = drive([b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n"])
    ((_, seen, headers, _),) = driven.seen
    assert seen == path
    assert [name for name, _ in headers] == [b"a", b"host"]
    assert dict(headers)[b"host"] == target.split(b"//")[1].split(b"?")[0].split(b"/")[0]


def test_trailers_are_not_among_the_headers():
    driven = drive([CHUNKED + b"3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\nX-Request-Id: y\r\n\r\n"])
    ((_, _, headers, body),) = driven.seen
    assert headers == ((b"host", b"x"),)
    assert body == b"abc"


def test_what_follows_a_close_is_not_read():
    driven = drive([POST + b"Connection: close\r\n\r\n" + GET])
    assert len(driven.seen) == 1
    assert not driven.handler.statuses


# -- Generated -----------------------------------------------------------------------------------------------

tokens = st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True)
values = st.from_regex(rb"[\x21-\x7e\x80-\xff]([\x21-\x7e\x80-\xff \t]{0,20}[\x21-\x7e\x80-\xff])?", fullmatch=True)
paths = st.from_regex(rb"/[!$-~\"]{0,30}", fullmatch=True)  # all that is printable but `#`
free_headers = st.lists(
    st.tuples(tokens, values).filter(
        lambda field: (
            field[0].lower()
            not in (b"host", b"content-length", b"transfer-encoding", b"expect", b"connection", b"upgrade")
        )
    ),
    max_size=6,
)


@st.composite
def valid_requests(draw) -> bytes:
    """Any request that the grammar allows and that we serve."""
    method = draw(st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"]))
    lines = [b"%b %b HTTP/1.1" % (method, draw(paths)), b"host: " + draw(st.sampled_from([b"x", b"x:80", b"[::1]:8"]))]
    lines += [
        b"%b:%b%b" % (name, draw(st.sampled_from([b"", b" ", b"\t "])), value) for name, value in draw(free_headers)
    ]
    chunks = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
    framing = draw(st.sampled_from(["none", "sized", "chunked"]))
    body = b""
    if framing == "sized":
        body = b"".join(chunks)
        lines.append(b"Content-Length: %d" % len(body))
    elif framing == "chunked":
        extension = draw(st.sampled_from([b"", b";a", b';a="b"', b";a=b;c"]))
        trailer = draw(st.sampled_from([b"", b"X-Sum: 1\r\n"]))
        lines.append(b"Transfer-Encoding: chunked")
        body = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in chunks)
        body += b"0\r\n" + trailer + b"\r\n"
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


operations = st.lists(
    st.tuples(st.sampled_from(mutate.KINDS), st.integers(0, 2000), st.integers(0, 200), st.integers(0, 10_000)),
    max_size=3,
)


@given(st.lists(valid_requests(), min_size=1, max_size=3))
def test_every_valid_request_is_taken_and_read_as_h11_reads_it(requests):
    raw = b"".join(requests)
    driven = drive([raw])
    assert not driven.handler.statuses
    assert len(driven.seen) == len(requests)
    assert driven.seen == read_by_h11(raw).seen


@given(st.lists(valid_requests(), min_size=1, max_size=3), operations, st.lists(st.integers(0, 2000), max_size=5))
def test_damaged_requests_keep_all_laws(requests, damage, places):
    check_requests(cut(mutate.apply(b"".join(requests), damage), places))


@given(st.sampled_from(list(VALID_RESPONSES.values())), operations, st.lists(st.integers(0, 2000), max_size=5))
def test_damaged_responses_keep_all_laws(response, damage, places):
    check_response(cut(mutate.apply(response, damage), places))


@given(valid_requests(), operations, st.integers(2, 4))
def test_a_request_is_read_the_same_however_often_it_comes(request, damage, times):
    """What is remembered of earlier requests must not change the reading of later ones."""
    raw = mutate.apply(request, damage)
    once = drive([raw])
    again = drive([raw] * times)
    if len(once.seen) == 1 and not once.handler.statuses and not once.ended_by_answer:
        assert again.seen == once.seen * times
        assert not again.handler.statuses


@given(free_headers, st.lists(st.binary(max_size=40), min_size=2, max_size=6), st.sampled_from([b"", b" "]))
def test_heads_that_differ_in_their_length_only_are_each_read_with_their_own_body(headers, bodies, space):
    lines = b"".join(b"%b: %b\r\n" % field for field in headers)
    requests = [POST + b"Content-Length:%b%d\r\n%b\r\n%b" % (space, len(body), lines, body) for body in bodies]
    assert drive(requests).seen == drive([b"".join(requests)]).seen
    assert [seen[3] for seen in drive(requests).seen] == bodies


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_noise_keeps_all_laws(noise, places):
    check_requests(cut(noise, places))
    check_response(cut(noise, places))
