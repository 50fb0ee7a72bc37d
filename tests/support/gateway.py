"""A gateway in front of given replicas: in this process, or as the command that people start."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inferdock.app.gateway import build_gateway
from inferdock.config.settings import (
    BalanceSettings,
    CacheSettings,
    GatewaySettings,
    KeysSettings,
    LogSettings,
    Settings,
    TracingSettings,
)
from inferdock.domain.endpoint import EndpointSpec
from inferdock.gateway.server import GatewayServer
from inferdock.telemetry.logs import EventLog

WITHOUT_KEYS = KeysSettings(check="never")
"""Whatever keys the person has who runs the tests."""

TRACING_OFF = TracingSettings()
AS_SHIPPED = BalanceSettings()
CACHE_OFF = CacheSettings()


@dataclass
class RunningGateway:
    """A gateway that serves.

    Attributes:
        log: everything it has logged, as bytes.
    """

    server: GatewayServer
    log: bytearray = field(default_factory=bytearray)

    @property
    def url(self) -> str:
        """Base URL, without /v1."""
        return f"http://127.0.0.1:{self.server.port}"

    @property
    def admin_url(self) -> str:
        """Base URL of the admin port."""
        return f"http://127.0.0.1:{self.server.admin_port}"

    async def until_ready(self, count: int) -> None:
        """Wait until so many endpoints are ready."""
        async with asyncio.timeout(20):
            while [e["state"] for e in self.endpoints()].count("ready") != count:
                await asyncio.sleep(0.01)

    def endpoints(self) -> list[dict]:
        """Rows of the endpoints, as the admin API shows them."""
        return self.server.status()["endpoints"]


def specs(urls: Sequence[str], model: str = "sim", revision: str = "r1") -> list[EndpointSpec]:
    """Endpoints at these base URLs, named replica-0 and so on."""
    made = []
    for index, url in enumerate(urls):
        host, _, port = url.removeprefix("http://").partition(":")
        made.append(EndpointSpec(f"replica-{index}", host, int(port), model, revision))
    return made


@contextlib.asynccontextmanager
async def running_gateway(
    urls: Sequence[str],
    *,
    ready: int | None = None,
    drain_timeout_s: float = 5.0,
    keys: KeysSettings = WITHOUT_KEYS,
    tracing: TracingSettings = TRACING_OFF,
    balance: BalanceSettings = AS_SHIPPED,
    cache: CacheSettings = CACHE_OFF,
    **settings: object,
) -> AsyncIterator[RunningGateway]:
    """Run a gateway; ``settings`` are fields of ``GatewaySettings``; waits for ``ready`` endpoints (default: all)."""
    log = bytearray()
    whole = Settings(
        gateway=GatewaySettings(**{"port": 0, "health_interval_s": 0.2} | settings),
        keys=keys,
        tracing=tracing,
        balance=balance,
        cache=cache,
        log=LogSettings(level="debug"),
        drain_timeout_s=drain_timeout_s,
    )
    loop = asyncio.get_running_loop()
    server = build_gateway(whole, loop=loop, log=EventLog(log.extend, level="debug"))
    await server.start()
    gateway = RunningGateway(server, log)
    server.replace_endpoints(specs(urls))
    try:
        await gateway.until_ready(len(urls) if ready is None else ready)
        yield gateway
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def gateway_process(folder: Path, urls: Sequence[str], *flags: str, config: str) -> AsyncIterator[str]:
    """Run ``inferdock gateway``; it must end by itself and with status 0 when told to."""
    announce = folder / "gateway.json"
    file = folder / "inferdock.yaml"
    file.write_text(config)
    replicas = [part for url in urls for part in ("--replica", f"sim={url}")]
    command = [sys.executable, "-m", "inferdock.cli.main", "gateway", "-f", str(file), "--port", "0"]
    process = await asyncio.create_subprocess_exec(*command, "--announce", str(announce), *replicas, *flags)
    try:
        async with asyncio.timeout(30):
            while not announce.exists():
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{json.loads(announce.read_text())['port']}"
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
