"""What the gateway accepts reaches the replica as exactly one request: a replica that reads with h11 is the witness."""

from __future__ import annotations

import json

import pytest

from tests.integration.gateway.test_http_front import talk
from tests.support.gateway import running_gateway
from tests.support.h11_replica import h11_replica

BODY = json.dumps({"model": "sim", "messages": []}).encode()
SMUGGLED = b"POST /v1/embeddings HTTP/1.1\r\nHost: evil\r\nContent-Length: 2\r\n\r\n{}"
START = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"


def sized(body: bytes, *headers: bytes) -> bytes:
    return START + b"".join(h + b"\r\n" for h in headers) + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def chunked(body: bytes, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    return (
        START
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + b"%x%b\r\n%b\r\n0%b\r\n%b\r\n" % (len(body), extension, body, extension, trailers)
    )


@pytest.fixture
async def replica():
    async with h11_replica() as running:
        yield running


@pytest.fixture
async def gateway(replica):
    async with running_gateway([replica.url]) as running:
        yield running


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(sized(BODY), id="sized"),
        pytest.param(chunked(BODY), id="chunked"),
        pytest.param(chunked(BODY, b";a=b"), id="chunk extensions"),
        pytest.param(chunked(BODY, trailers=b"X-Sum: 1\r\nAuthorization: Bearer x\r\n"), id="trailers"),
        pytest.param(sized(BODY, b"Connection: content-length, host, x-request-id"), id="connection names framing"),
        pytest.param(sized(BODY, b"Connection: X-A", b"X-A: 1", b"Connection: X-B", b"X-B: 1"), id="two connections"),
        pytest.param(sized(BODY, b"Expect: 100-continue"), id="expect"),
        pytest.param(sized(BODY, b"Content-Length-: 5", b"X-Content-Length: 5"), id="names that look like framing"),
        pytest.param(sized(BODY, b"Content_Length: 5", b"Transfer_Encoding: chunked"), id="underscores"),
        pytest.param(sized(BODY, b"X: \xff\xc3\xa4", b"Y:", b"Z: a\tb"), id="odd values"),
        pytest.param(sized(BODY, b"TE: trailers", b"Keep-Alive: 5", b"Proxy-Connection: close"), id="hop by hop"),
        pytest.param(sized(BODY, b"Upgrade-Insecure-Requests: 1"), id="browser"),
        pytest.param(START + b"Content-Length: 0%d\r\n\r\n%b" % (len(BODY), BODY), id="padded length"),
        pytest.param(sized(BODY).replace(b"/v1/chat", b"http://evil/v1/chat"), id="absolute form"),
    ],
)
async def test_the_replica_sees_one_request_with_the_clients_body(gateway, replica, request_bytes):
    answer = await talk(gateway, request_bytes)
    assert b"HTTP/1.1 200 OK" in answer
    (seen,) = replica.requests
    assert (seen.method, seen.target, seen.body) == (b"POST", b"/v1/chat/completions", BODY)
    assert seen.values(b"content-length") == [b"%d" % len(BODY)]
    assert seen.values(b"host") == [replica.url.removeprefix("http://").encode()]
    names = {name for name, _ in seen.headers}
    assert not names & {b"transfer-encoding", b"authorization", b"expect", b"te", b"keep-alive", b"proxy-connection"}
    assert not names & {b"x-a", b"x-b"}


@pytest.mark.parametrize("frame", [sized, chunked])
async def test_a_request_inside_a_body_stays_inside(gateway, replica, frame):
    raw = frame(SMUGGLED).replace(b"/v1/chat/completions", b"/v1/other").replace(b"application/json", b"text/plain")
    await talk(gateway, raw)
    assert [(seen.target, seen.body) for seen in replica.requests] == [(b"/v1/other", SMUGGLED)]


async def test_a_request_behind_a_request_is_one_of_its_own(gateway, replica):
    second = sized(BODY).replace(b"/v1/chat/completions", b"/v1/embeddings")
    await talk(gateway, sized(BODY).replace(b"Connection: close\r\n", b"") + second)
    assert [seen.target for seen in replica.requests] == [b"/v1/chat/completions", b"/v1/embeddings"]
    assert {seen.body for seen in replica.requests} == {BODY}


@pytest.mark.parametrize(
    "request_bytes",
    [
        pytest.param(
            START
            + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n%b" % (5 + len(SMUGGLED), SMUGGLED),
            id="CL.TE",
        ),
        pytest.param(
            START
            + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
            % (len(SMUGGLED), SMUGGLED),
            id="TE.CL",
        ),
        pytest.param(START + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED, id="TE unknown"),
        pytest.param(START + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, id="TE with space"),
        pytest.param(
            START + b"X: y\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, id="TE behind a line feed"
        ),
        pytest.param(START + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, id="TE folded"),
        pytest.param(START + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED, id="TE not last"),
        pytest.param(
            START + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n%b" % (len(SMUGGLED), SMUGGLED), id="CL.CL"
        ),
        pytest.param(START + b"Content-Length: 0, %d\r\n\r\n%b" % (len(SMUGGLED), SMUGGLED), id="CL list"),
        pytest.param(START + b"Content-Length: +%d\r\n\r\n%b" % (len(SMUGGLED), SMUGGLED), id="CL signed"),
        pytest.param(START + b"X: y\rContent-Length: 0\r\n\r\n" + SMUGGLED, id="CL behind a carriage return"),
        pytest.param(START + b"X: y\x00\r\nContent-Length: 0\r\n\r\n" + SMUGGLED, id="NUL"),
        pytest.param(
            START + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n%b" % (len(SMUGGLED), SMUGGLED),
            id="upgrade with a body",
        ),
    ],
)
async def test_what_could_be_read_in_two_ways_reaches_no_replica(gateway, replica, request_bytes):
    answer = await talk(gateway, request_bytes)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert replica.requests == []
