"""Slow parties on either side: what waits is bounded, nothing is lost, and nothing waits for Nagle."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from inferdock.gateway.http_server import MAX_PIPELINED, WRITE_HIGH_WATER
from inferdock.gateway.upstream import UpstreamConnection
from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from inferdock.wire.http1 import LAST_CHUNK, chunk
from tests.integration.gateway.test_http_front import BODY, post
from tests.support.gateway import RunningGateway, running_gateway

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
ONE_READ = 256 * 1024
"""Most that uvloop reads from a socket at once."""

Session = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Answers one request, whose head it is given; the body is still to be read."""


@contextlib.asynccontextmanager
async def replica(answer: Session) -> AsyncIterator[str]:
    """A replica that is healthy and answers POSTs as the test wants; gives its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET "):
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                else:
                    await answer(head, reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def open_client(gateway: RunningGateway, *, receive_buffer: int = 0):
    """Reader and writer of a raw client."""
    sock = socket.socket()
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", gateway.server.port))
    return await asyncio.open_connection(sock=sock, limit=65536)


def busy(gateway: RunningGateway) -> list[UpstreamConnection]:
    """Connections to replicas that carry a client's request now."""
    pool = gateway.server._front.pool
    return [connection for connection in pool._all if connection.receiver is not None]


def waiting_for_clients(gateway: RunningGateway) -> int:
    """Bytes that wait in the gateway for clients to read them."""
    return max((c.transport.get_write_buffer_size() for c in gateway.server._front.connections), default=0)


async def settled(figure: Callable[[], int]) -> int:
    """A figure, once it has not changed for a moment."""
    async with asyncio.timeout(30):
        last, same = figure(), 0
        while same < 5:
            await asyncio.sleep(0.05)
            same = same + 1 if figure() == last else 0
            last = figure()
    return last


# -- Slow clients --------------------------------------------------------------------------------------------


async def test_a_client_that_does_not_read_stops_its_replica_and_gets_all_later():
    sent = 0
    block = chunk(b"x" * 65_000)
    count = 600  # 39 MB: more than the kernel's buffers on the way can hold

    async def flood(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(CHUNKED)
        for _ in range(count):
            writer.write(block)
            await writer.drain()
            sent += 1
        writer.write(LAST_CHUNK)

    async with replica(flood) as url, running_gateway([url]) as gateway:
        reader, writer = await open_client(gateway)
        writer.write(post(BODY))
        stalled = await settled(lambda: sent)
        assert 0 < stalled < count
        assert waiting_for_clients(gateway) <= WRITE_HIGH_WATER + ONE_READ + len(block)
        digest, size = hashlib.sha256(), 0
        await reader.readuntil(b"\r\n\r\n")
        async with asyncio.timeout(60):
            while size < count * len(block) + len(LAST_CHUNK):
                data = await reader.read(1024 * 1024)
                assert data
                digest.update(data)
                size += len(data)
        writer.close()
    assert digest.digest() == hashlib.sha256(block * count + LAST_CHUNK).digest()


async def test_a_client_that_reads_no_answers_is_not_answered_without_end():
    async with running_sim() as sim, running_gateway([sim.url]) as gateway:
        _, writer = await open_client(gateway, receive_buffer=4096)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20_000)
        held = await settled(lambda: waiting_for_clients(gateway))
        (connection,) = (c for c in gateway.server._front.connections if c.waiting)
        assert WRITE_HIGH_WATER <= held <= WRITE_HIGH_WATER + 256 * 1024
        assert connection.waiting <= MAX_PIPELINED
        assert connection.held_bytes <= ONE_READ
        writer.close()


# -- Slow replicas -------------------------------------------------------------------------------------------


async def test_a_replica_that_does_not_read_holds_one_body_and_no_more():
    async def sleep(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()
        await asyncio.sleep(60)

    body = json.dumps({"model": "sim", "prompt": "x" * (30 * 1024 * 1024)}).encode()
    async with replica(sleep) as url, running_gateway([url], response_timeout_s=1.5, attempts=1) as gateway:
        reader, writer = await open_client(gateway)
        writer.write(post(body))
        await writer.drain()
        async with asyncio.timeout(30):
            while not busy(gateway):
                await asyncio.sleep(0.01)
            (connection,) = busy(gateway)
            assert connection.transport.get_write_buffer_size() <= len(body) + 64 * 1024
            answer = await reader.read(65536)
        assert answer.startswith((b"HTTP/1.1 502 ", b"HTTP/1.1 504 "))
        assert waiting_for_clients(gateway) == 0
        writer.close()


async def test_a_connection_whose_replica_answered_before_reading_all_is_not_used_again():
    heads: list[tuple[bytes, object]] = []

    async def hasty(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((head, writer))
        if len(heads) == 1:
            reader._transport.pause_reading()
        else:
            await reader.readexactly(len(BODY))
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}")
        if len(heads) == 1:
            await writer.drain()
            await asyncio.sleep(0.2)
            reader._transport.resume_reading()

    body = json.dumps({"model": "sim", "prompt": "x" * (20 * 1024 * 1024)}).encode()
    async with replica(hasty) as url, running_gateway([url]) as gateway:
        reader, writer = await open_client(gateway)
        writer.write(post(body))
        await writer.drain()
        async with asyncio.timeout(30):
            assert (await reader.read(65536)).startswith(b"HTTP/1.1 400 ")
            writer.write(post(BODY))
            assert (await reader.read(65536)).startswith(b"HTTP/1.1 400 ")
        writer.close()
    assert len({id(writer) for _, writer in heads}) == 2
    assert all(head.startswith(b"POST /v1/completions HTTP/1.1\r\n") for head, _ in heads)


async def test_a_replica_that_closes_every_connection_at_once_is_given_up_soon():
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with running_sim(SimOptions(ttft_s=0, itl_s=0)) as sim, running_gateway([sim.url]) as gateway:
        failures: asyncio.Queue[str] = asyncio.Queue()
        pool = gateway.server._front.pool

        class Lost:
            def response_failed(self, reason: str, *, stale: bool) -> None:
                failures.put_nowait(reason)

        host, _, port = url.removeprefix("http://").partition(":")
        for _ in range(50):
            pool.connect(
                (host, int(port)),
                lambda connection: connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Lost(), silence_s=600),  # type: ignore[arg-type]
                failures.put_nowait,
            )
        async with asyncio.timeout(10):
            reasons = [await failures.get() for _ in range(50)]
    server.close()
    assert all("closed the connection" in reason or "no connection" in reason for reason in reasons)


# -- Cut answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked", b"X: until close"])
async def test_half_an_answer_that_ends_with_the_connection_is_reset(framing):
    """A FIN would make it a whole one for a client of HTTP/1.0."""

    async def cut(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        part = chunk(b'{"half":') if b"chunked" in framing else b'{"half":'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + framing + b"\r\n\r\n" + part)
        await asyncio.sleep(0.1)
        sock = writer.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with replica(cut) as url, running_gateway([url]) as gateway:
        reader, writer = await open_client(gateway)
        writer.write(post(BODY, version=b"1.0"))
        assert b"200 OK" in await reader.readuntil(b'{"half":')
        with pytest.raises(ConnectionResetError):
            await reader.read(100)
        writer.close()


# -- Order and speed -----------------------------------------------------------------------------------------


async def test_a_thousand_pipelined_requests_are_answered_in_order():
    async def echo(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = head[head.index(b"x-number: ") :].split(b"\r\n")[0][10:]
        await reader.readexactly(len(BODY))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(number), number))

    async with replica(echo) as url, running_gateway([url]) as gateway:
        reader, writer = await open_client(gateway)
        writer.write(b"".join(post(BODY, b"X-Number: %d" % number) for number in range(1000)))
        answers: list[bytes] = []
        async with asyncio.timeout(60):
            while len(answers) < 1000:
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200 OK\r\n")
                length = head[head.index(b"content-length: ") :].split(b"\r\n")[0][16:]
                answers.append(await reader.readexactly(int(length)))
        writer.close()
    assert answers == [b"%d" % number for number in range(1000)]


async def test_no_side_waits_for_nagle():
    async with running_sim(SimOptions(ttft_s=0, itl_s=0.02)) as sim, running_gateway([sim.url]) as gateway:
        stream = json.dumps({"model": "sim", "prompt": "a", "stream": True, "max_tokens": 100, "ignore_eos": True})
        reader, writer = await open_client(gateway)
        writer.write(post(stream.encode()))
        await reader.readuntil(b"data: ")
        transports = [c.transport for c in (*gateway.server._front.connections, *busy(gateway))]
        assert len(transports) >= 2
        for transport in transports:
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()


async def one_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """One streamed answer on a connection that stays open."""
    body = json.dumps({"model": "sim", "prompt": "a b", "stream": True, "max_tokens": 20, "ignore_eos": True}).encode()
    writer.write(post(body))
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    return await reader.readuntil(b"\r\n" + LAST_CHUNK)


@pytest.mark.parametrize("rounds", [3])
async def test_a_hundred_streams_on_connections_that_stay_open(rounds):
    async with running_sim(SimOptions(ttft_s=0, itl_s=0.005)) as sim, running_gateway([sim.url]) as gateway:
        clients = [await open_client(gateway) for _ in range(100)]
        for _ in range(rounds):
            async with asyncio.timeout(20):  # 40 ms for each token, as with Nagle's algorithm, would take 80 s
                answers = await asyncio.gather(*(one_stream(*client) for client in clients))
            assert all(answer.endswith(b"data: [DONE]\n\n\r\n" + LAST_CHUNK) for answer in answers)
        assert len(gateway.server._front.connections) == 100
        for _, writer in clients:
            writer.close()


async def test_many_slow_uploads_together_are_bounded():
    """Ten clients that have each sent most of a large body: those that hold most are sent away with 503."""
    async with running_sim() as replica, running_gateway([replica.url], max_held_bytes=4 * 1024 * 1024) as gateway:
        head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000001\r\n\r\n"
        clients = [await asyncio.open_connection("127.0.0.1", gateway.server.port) for _ in range(10)]
        for _, writer in clients:
            writer.write(head + b"x" * 1_000_000)
            await writer.drain()
        answers = [asyncio.create_task(reader.readline()) for reader, _ in clients]
        async with asyncio.timeout(20):
            while sum(answer.done() for answer in answers) < 6:
                await asyncio.sleep(0.05)
        await asyncio.sleep(1.5)  # nobody else is sent away: the rest fits
        first_lines = [answer.result() for answer in answers if answer.done()]
        assert first_lines == [b"HTTP/1.1 503 Service Unavailable\r\n"] * 6
        for answer, (_, writer) in zip(answers, clients, strict=True):
            answer.cancel()
            writer.close()
