"""The gateway's client side on raw bytes: framing, limits, pipelining, keep-alive, drain."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from tests.support.gateway import RunningGateway, running_gateway

BODY = json.dumps({"model": "sim", "prompt": "a b", "max_tokens": 3, "ignore_eos": True}).encode()


def post(body: bytes = BODY, *headers: bytes, path: bytes = b"/v1/completions", version: bytes = b"1.1") -> bytes:
    lines = [b"POST %b HTTP/%b" % (path, version), b"host: x", b"content-type: application/json", *headers]
    return b"\r\n".join([*lines, b"content-length: %d" % len(body)]) + b"\r\n\r\n" + body


async def talk(gateway: RunningGateway, *pieces: bytes, eof: bool = False) -> bytes:
    """Send pieces, then read until the gateway closes or has been silent for a moment."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.server.port)
    received = b""
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        if eof:
            writer.write_eof()
        while True:
            async with asyncio.timeout(1.0):
                data = await reader.read(65536)
            if not data:
                break
            received += data
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return received


@pytest.fixture
async def gateway():
    async with running_sim(SimOptions(ttft_s=0, itl_s=0.001)) as replica, running_gateway([replica.url]) as running:
        yield running


async def test_a_request_may_come_byte_by_byte(gateway):
    request = post()
    answer = await talk(gateway, *[request[i : i + 7] for i in range(0, len(request), 7)])
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_chunked_request_body_is_understood(gateway):
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    head += b"transfer-encoding: chunked\r\n\r\n"
    chunks = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (5, BODY[:5], len(BODY) - 5, BODY[5:])
    assert (await talk(gateway, head, chunks)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_pipelined_requests_are_answered_in_order(gateway):
    requests = [post(BODY, b"x-request-id: id-%d" % i) for i in range(5)]
    answer = await talk(gateway, b"".join(requests))
    assert answer.count(b"HTTP/1.1 200 OK") == 5
    assert [answer.index(b"id-%d" % i) for i in range(5)] == sorted(answer.index(b"id-%d" % i) for i in range(5))


async def test_expect_100_continue_is_answered_before_the_body(gateway):
    request = post(BODY, b"expect: 100-continue")
    head, body = request[: -len(BODY)], BODY
    answer = await talk(gateway, head, body)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


async def test_http_1_0_gets_no_chunks_and_a_closed_connection(gateway):
    stream = json.dumps({**json.loads(BODY), "stream": True}).encode()
    answer = await talk(gateway, post(stream, version=b"1.0"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body.startswith(b"data: {")
    assert body.endswith(b"data: [DONE]\n\n")


async def test_head_is_answered_without_a_body(gateway):
    answer = await talk(gateway, b"HEAD /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n")


HOST = b"Host: x\r\n"
POST = b"POST /v1/completions HTTP/1.1\r\n" + HOST


# What a request may look like is tested on the connection itself, in tests/property/test_http_differential.py; here
# one of each kind goes through the whole gateway.
@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(b"\x00\x01\x02\r\n\r\n", 400, id="binary noise"),
        pytest.param(b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400, id="space before colon"),
        pytest.param(b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", 400, id="bare line feed"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no Host"),
        pytest.param(b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400, id="two Hosts"),
        pytest.param(b"GET / HTTP/2.0\r\n\r\n", 505, id="version 2 by name"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, id="version 2 preface"),
        pytest.param(b"CONNECT x:80 HTTP/1.1\r\n" + HOST + b"\r\n", 501, id="CONNECT"),
        pytest.param(POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, id="two lengths"),
        pytest.param(POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400, id="length and chunked"),
        pytest.param(POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501, id="gzip, chunked"),
        pytest.param(POST + b"Content-Length: -5\r\n\r\n", 400, id="negative length"),
        pytest.param(POST + b"Content-Length: 99999999999999999999\r\n\r\n", 400, id="length overflow"),
        pytest.param(POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, id="bad chunk length"),
        pytest.param(POST + b"Content-Length: 999999999\r\n\r\n", 413, id="body too large"),
        pytest.param(
            POST + b"Expect: 100-continue\r\nContent-Length: 999999999\r\n\r\n", 413, id="body too large, not sent yet"
        ),
        pytest.param(b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 431, id="endless target"),
        pytest.param(b"GET / HTTP/1.1\r\nA: " + b"a" * 70_000 + b"\r\n\r\n", 431, id="endless header"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n", 431, id="many headers"),
        pytest.param(b"\r\n" * 50_000, 431, id="endless blank lines"),
        pytest.param(
            POST + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 70_000 + b"\r\n", 400, id="endless extension"
        ),
        pytest.param(
            POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: " + b"a" * 70_000 + b"\r\n", 400, id="endless trailer"
        ),
        pytest.param(POST + b"Expect: a-miracle\r\n\r\n", 417, id="unknown expectation"),
        pytest.param(POST + b"Upgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nab", 501, id="upgrade"),
    ],
)
async def test_bad_requests_get_one_clear_error(gateway, request_bytes, status):
    answer = await talk(gateway, request_bytes)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(body)["error"]["message"]
    assert (await talk(gateway, post(BODY, b"connection: close"))).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_get_with_upgrade_is_answered_as_if_it_had_none(gateway):
    request = b"GET /health HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"
    assert (await talk(gateway, request + request)).count(b"HTTP/1.1 200 OK") == 2


async def test_a_request_cut_by_half_close_gets_400(gateway):
    answer = await talk(gateway, post()[:60], eof=True)
    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_a_refused_head_gets_no_body(gateway):
    answer = await talk(gateway, b"HEAD / HTTP/1.1\r\nA: " + b"a" * 70_000)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert answer.endswith(b"\r\n\r\n")


async def test_a_head_is_refused_by_the_gateway_without_a_body(gateway):
    answer = await talk(gateway, b"HEAD /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert answer.endswith(b"\r\n\r\n")


async def test_a_refusal_reaches_a_client_that_is_still_sending(gateway):
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.server.port)
    writer.write(POST + b"Content-Length: 999999999\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        for _ in range(40):  # 10 MB: more than the buffers of both sides
            writer.write(b"x" * 262_144)
            await writer.drain()
    async with asyncio.timeout(10):
        assert (await reader.read(65536)).startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_a_url_as_target_is_understood(gateway):
    answer = await talk(gateway, b"GET http://x/health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_http_1_0_may_keep_its_connection(gateway):
    request = b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    answer = await talk(gateway, request, request)
    assert answer.count(b"HTTP/1.1 200 OK") == answer.lower().count(b"connection: keep-alive") == 2


async def test_thousands_of_ignored_upgrades_are_answered(gateway):
    request = b"GET /nowhere HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"
    answer = await talk(gateway, request * 3000)
    assert answer.count(b"HTTP/1.1 404 ") == 3000


async def test_a_slow_sender_gets_408():
    async with running_sim() as replica, running_gateway([replica.url], request_read_timeout_s=0.5) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.server.port)
        writer.write(post()[:40])
        async with asyncio.timeout(10):
            assert (await reader.read(4096)).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_an_idle_connection_is_closed_after_its_time():
    async with running_sim() as replica, running_gateway([replica.url], keepalive_timeout_s=0.5) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.server.port)
        async with asyncio.timeout(10):
            assert await reader.read(4096) == b""
        writer.close()


async def test_smuggled_bytes_behind_a_request_are_a_request_of_their_own(gateway):
    answer = await talk(gateway, post() + b"GET /admin/status HTTP/1.1\r\nhost: x\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 1
    assert answer.count(b"HTTP/1.1 404 Not Found") == 1


async def test_more_than_the_bound_of_requests_in_flight_gets_503():
    options = SimOptions(ttft_s=5)
    async with running_sim(options) as replica, running_gateway([replica.url], max_in_flight=2) as gateway:
        held = [asyncio.create_task(talk(gateway, post())) for _ in range(2)]
        while gateway.server.status()["in_flight"] < 2:
            await asyncio.sleep(0.01)
        answer = await talk(gateway, post())
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: " in answer
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
