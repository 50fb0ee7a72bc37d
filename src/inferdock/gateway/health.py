"""Active health: asks each endpoint for ``/health`` and its load, and says which may take requests.

One checker per gateway; with several workers it runs in their parent, so that replicas are not asked by each. An
endpoint is ready after one good check, and unready at once when it refuses connections or answers an error, or after
:data:`SILENT_CHECKS` silent checks in a row (a busy engine may be slow to answer, and ejecting it for that would make
the others busier still). Endpoints are checked independently: one that is silent does not delay the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

import msgspec

from inferdock.balance.endpoints import Endpoint, EndpointSet, State
from inferdock.gateway.fetch import FetchError, fetch
from inferdock.gateway.upstream import UpstreamPool
from inferdock.telemetry import names
from inferdock.telemetry.logs import EventLog
from inferdock.wire.prometheus_text import read_sums

SILENT_CHECKS = 3
CHECK_TIMEOUT_S = 5.0


class HealthChecker:
    """Keeps the state and load figures of all endpoints fresh."""

    def __init__(
        self,
        *,
        endpoints: EndpointSet,
        pool: UpstreamPool,
        log: EventLog,
        interval_s: float,
        checked: Callable[[Endpoint], None] = lambda _: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``checked`` is called after each check, when state and figures are fresh; ``clock`` is the set's."""
        self.interval_s = interval_s
        self._endpoints = endpoints
        self._pool = pool
        self._log = log
        self._checked = checked
        self._clock = clock
        self._wake = asyncio.Event()
        self._under_way: dict[Endpoint, asyncio.Task[None]] = {}

    def check_soon(self) -> None:
        """Check all endpoints now instead of at the next interval (the set changed, or an attempt failed)."""
        self._wake.set()

    async def run(self) -> None:
        """Check until cancelled."""
        try:
            while True:
                self._wake.clear()
                for endpoint in self._endpoints:
                    if endpoint not in self._under_way:
                        task = self._under_way[endpoint] = asyncio.create_task(self._check(endpoint))
                        task.add_done_callback(partial(self._done, endpoint))
                await self._pause()
        finally:
            for task in list(self._under_way.values()):
                task.cancel()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self.interval_s):
                await self._wake.wait()
            await asyncio.sleep(0.1)  # many failures at once make one round of checks, not many
        except TimeoutError:
            pass

    def _done(self, endpoint: Endpoint, task: asyncio.Task[None]) -> None:
        self._under_way.pop(endpoint, None)
        if not task.cancelled():
            self._checked(endpoint)

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
        self._endpoints.check_passed(endpoint, self._clock())
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
