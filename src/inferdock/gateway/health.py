"""Active health: asks each endpoint for ``/health`` and its load, and says which may take requests.

One task per gateway process. An endpoint is ready after one good check, and unready at once when it refuses
connections or answers an error, or after :data:`SILENT_CHECKS` silent checks in a row (a busy engine may be slow
to answer, and ejecting it for that would make the others busier still).
"""

from __future__ import annotations

import asyncio

import msgspec

from inferdock.balance.endpoints import Endpoint, EndpointSet, State
from inferdock.gateway.upstream import UpstreamConnection, UpstreamPool
from inferdock.telemetry import names
from inferdock.telemetry.logs import EventLog
from inferdock.wire.http1 import ResponseHead
from inferdock.wire.prometheus_text import read_sums

SILENT_CHECKS = 3
CHECK_TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 8 * 1024 * 1024


class FetchError(Exception):
    """A health request got no usable answer; ``refused`` when not even a connection could be made."""

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

    def response_failed(self, reason: str, *, stale: bool) -> None:
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        if not self._done.done():
            self._done.set_exception(FetchError(reason))


async def fetch(pool: UpstreamPool, endpoint: Endpoint, path: bytes, *, timeout_s: float) -> tuple[int, bytes]:
    """GET a small document from an endpoint.

    Returns:
        (status, body).

    Raises:
        FetchError: no connection, no valid answer, or none in time.
    """
    connection = await _connect(pool, endpoint)
    done: asyncio.Future[tuple[int, bytes]] = pool.loop.create_future()
    host = b"%b:%d" % (endpoint.spec.host.encode(), endpoint.spec.port)
    connection.send(b"GET %b HTTP/1.1\r\nhost: %b\r\n\r\n" % (path, host), _Collector(done), silence_s=timeout_s)
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


class HealthChecker:
    """Keeps the state and load figures of all endpoints fresh."""

    def __init__(self, *, endpoints: EndpointSet, pool: UpstreamPool, log: EventLog, interval_s: float) -> None:
        self._endpoints = endpoints
        self._pool = pool
        self._log = log
        self._interval_s = interval_s
        self._wake = asyncio.Event()

    def check_soon(self) -> None:
        """Check all endpoints now instead of at the next interval (the set changed, or an attempt failed)."""
        self._wake.set()

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            self._wake.clear()
            await asyncio.gather(*(self._check(endpoint) for endpoint in list(self._endpoints)))
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._wake.wait()
                await asyncio.sleep(0.1)  # many failures at once make one round of checks, not many
            except TimeoutError:
                pass

    async def _check(self, endpoint: Endpoint) -> None:
        try:
            status, _ = await fetch(self._pool, endpoint, b"/health", timeout_s=CHECK_TIMEOUT_S)
            if status != 200:
                self._unhealthy(endpoint, f"/health answers {status}", at_once=True)
                return
            if endpoint.max_model_len is None:
                await self._read_card(endpoint)
            await self._read_load(endpoint)
        except FetchError as exc:
            self._unhealthy(endpoint, str(exc), at_once=exc.refused)
        else:
            self._healthy(endpoint)

    def _healthy(self, endpoint: Endpoint) -> None:
        endpoint.failures = 0
        if endpoint.state is State.UNREADY:
            endpoint.state = State.READY
            self._log.event("info", "endpoint ready", endpoint=endpoint.spec.name, url=endpoint.spec.url)

    def _unhealthy(self, endpoint: Endpoint, reason: str, *, at_once: bool) -> None:
        endpoint.failures += 1
        if endpoint.state is State.READY and (at_once or endpoint.failures >= SILENT_CHECKS):
            endpoint.state = State.UNREADY
            self._log.event("warning", "endpoint unready", endpoint=endpoint.spec.name, reason=reason)

    async def _read_card(self, endpoint: Endpoint) -> None:
        status, body = await fetch(self._pool, endpoint, b"/v1/models", timeout_s=CHECK_TIMEOUT_S)
        if status == 200:
            endpoint.max_model_len = _max_model_len(body, endpoint.spec.model)

    async def _read_load(self, endpoint: Endpoint) -> None:
        status, body = await fetch(self._pool, endpoint, b"/metrics", timeout_s=CHECK_TIMEOUT_S)
        if status != 200:
            return
        sums = read_sums(
            body.decode("utf-8", "replace"), (names.ENGINE_RUNNING, names.ENGINE_WAITING, names.ENGINE_KV_USAGE)
        )
        endpoint.running = int(sums.get(names.ENGINE_RUNNING, 0))
        endpoint.waiting = int(sums.get(names.ENGINE_WAITING, 0))
        endpoint.kv_cache_usage_ratio = sums.get(names.ENGINE_KV_USAGE)


class _Card(msgspec.Struct):
    id: str
    max_model_len: int | None = None


class _Cards(msgspec.Struct):
    data: list[_Card]


def _max_model_len(body: bytes, model: str) -> int | None:
    try:
        cards = msgspec.json.decode(body, type=_Cards)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return next((card.max_model_len for card in cards.data if card.id == model), None)
