"""Small requests of the gateway's own to a replica: health, metrics, texts of token ids."""

from __future__ import annotations

import asyncio

from inferdock.balance.endpoints import Endpoint
from inferdock.gateway.upstream import UpstreamConnection, UpstreamPool
from inferdock.wire.http1 import Header, ResponseHead, head

MAX_ANSWER_BYTES = 8 * 1024 * 1024


class FetchError(Exception):
    """A small request got no usable answer; ``refused`` when not even a connection could be made."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class _Collector:
    """Receives one small answer whole."""

    def __init__(self, done: asyncio.Future[tuple[int, bytes]]) -> None:
        self._done = done
        self._status = 0
        self._chunked = False
        self._body = bytearray()

    def response_head(self, head: ResponseHead) -> None:
        self._status = head.status
        self._chunked = head.chunked

    def response_body(self, data: bytes, payloads: list[tuple[int, int]]) -> None:
        if len(self._body) + len(data) > MAX_ANSWER_BYTES:
            self._fail("the answer is too large")
        elif self._chunked:
            for start, end in payloads:
                self._body += data[start:end]
        else:
            self._body += data

    def response_done(self) -> None:
        if not self._done.done():
            self._done.set_result((self._status, bytes(self._body)))

    def response_whole(self, head: ResponseHead, body: bytes) -> None:
        if not self._done.done():
            self._done.set_result((head.status, body))

    def response_failed(self, reason: str, *, stale: bool) -> None:
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        if not self._done.done():
            self._done.set_exception(FetchError(reason))


async def fetch(
    pool: UpstreamPool, endpoint: Endpoint, path: bytes, *, timeout_s: float, body: bytes | None = None
) -> tuple[int, bytes]:
    """GET a small document from an endpoint, or POST ``body`` (JSON) and get the answer.

    Returns:
        (status, body).

    Raises:
        FetchError: no connection, no valid answer, or none in time.
    """
    connection = await _connect(pool, endpoint)
    done: asyncio.Future[tuple[int, bytes]] = pool.loop.create_future()
    fields: list[Header] = [(b"host", endpoint.authority)]
    if body is None:
        request = head(b"GET %b HTTP/1.1" % path, fields)
    else:
        fields += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        request = head(b"POST %b HTTP/1.1" % path, fields)
    connection.send(request, _Collector(done), silence_s=timeout_s, body=body or b"")
    try:
        async with asyncio.timeout(timeout_s):
            return await done
    except TimeoutError:
        connection.abort()
        raise FetchError(f"no answer within {timeout_s:g} s") from None
    except asyncio.CancelledError:
        connection.abort()
        raise


async def _connect(pool: UpstreamPool, endpoint: Endpoint) -> UpstreamConnection:
    """A connection of its own for each check: it shows that new connections are taken."""
    opened: asyncio.Future[UpstreamConnection] = pool.loop.create_future()

    def connected(connection: UpstreamConnection) -> None:
        if opened.done():
            pool.give_back(connection)
        else:
            opened.set_result(connection)

    def failed(reason: str) -> None:
        if not opened.done():
            opened.set_exception(FetchError(reason, refused=True))

    pool.connect((endpoint.spec.host, endpoint.spec.port), connected, failed)
    return await opened
