"""A gateway with several workers: its parent in this process, or all of it as the command that people start."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from inferdock.app.workers import build_parent
from inferdock.config.settings import CacheSettings, GatewaySettings, LogSettings, Settings, TracingSettings
from inferdock.gateway.workers.parent import GatewayParent
from inferdock.telemetry.logs import EventLog
from tests.support.gateway import CACHE_OFF, TRACING_OFF, specs


@dataclass
class RunningWorkers:
    """A gateway whose parent runs here.

    Attributes:
        log: everything that the parent has logged.
    """

    parent: GatewayParent
    log: bytearray = field(default_factory=bytearray)

    @property
    def url(self) -> str:
        """Base URL, without /v1."""
        return f"http://127.0.0.1:{self.parent.port}"

    @property
    def admin_url(self) -> str:
        """Base URL of the admin port."""
        return f"http://127.0.0.1:{self.parent.admin_port}"

    def workers(self) -> list[dict]:
        """Rows of the workers, as the admin API shows them."""
        return self.parent.status()["workers"]

    def kill(self, row: int) -> None:
        """SIGKILL to one worker."""
        (pid,) = [worker["pid"] for worker in self.workers() if worker["worker"] == row]
        os.kill(pid, signal.SIGKILL)

    async def until(self, wanted, within_s: float = 20) -> None:
        """Wait until ``wanted(status)``."""
        async with asyncio.timeout(within_s):
            while not wanted(self.parent.status()):
                await asyncio.sleep(0.01)

    async def until_whole(self, count: int = 2) -> None:
        """Wait until so many workers serve."""
        await self.until(lambda status: [w["state"] for w in status["workers"]] == ["serving"] * count)


@contextlib.asynccontextmanager
async def running_workers(
    urls: Sequence[str],
    *,
    workers: int = 2,
    drain_timeout_s: float = 5.0,
    read=None,
    cache: CacheSettings = CACHE_OFF,
    tracing: TracingSettings = TRACING_OFF,
    **settings: object,
) -> AsyncIterator[RunningWorkers]:
    """Run a gateway in front of these replicas; ``settings`` are fields of ``GatewaySettings``."""
    log = bytearray()
    whole = Settings(
        gateway=GatewaySettings(port=0, workers=workers, health_interval_s=0.2, **settings),
        log=LogSettings(level="warning"),
        cache=cache,
        tracing=tracing,
        drain_timeout_s=drain_timeout_s,
    )
    loop = asyncio.get_running_loop()
    log_sink = EventLog(log.extend, level="debug")
    parent = build_parent(whole, loop=loop, log=log_sink, read=read or (lambda: whole))
    await parent.start()
    gateway = RunningWorkers(parent, log)
    parent.replace_endpoints(specs(urls))
    try:
        await gateway.until(lambda status: [e["state"] for e in status["endpoints"]] == ["ready"] * len(urls))
        await asyncio.sleep(0.05)  # the last Health frame is on its way to the workers
        yield gateway
    finally:
        await parent.close()


def chat(tokens: int, *, stream: bool = True) -> dict:
    """A request for exactly so many tokens."""
    return {
        "model": "sim",
        "messages": [{"role": "user", "content": "What is a canary?"}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": stream,
    }


async def ask(url: str, tokens: int = 3, *, stream: bool = False, key: str | None = None) -> tuple[int, str]:
    """One request on a connection of its own: status and body."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        async with http.post(f"{url}/v1/chat/completions", json=chat(tokens, stream=stream)) as response:
            return response.status, await response.text()


class OpenStream:
    """A stream on a connection of its own, read in the background.

    Attributes:
        begun: its first bytes have come.
    """

    def __init__(self, url: str, tokens: int) -> None:
        self.begun = asyncio.Event()
        self.text = ""
        self._task = asyncio.create_task(self._read(url, tokens))

    async def _read(self, url: str, tokens: int) -> None:
        async with aiohttp.ClientSession() as http:
            async with http.post(f"{url}/v1/chat/completions", json=chat(tokens)) as response:
                async for data in response.content.iter_any():
                    self.text += data.decode()
                    self.begun.set()

    async def whole(self) -> bool:
        """Wait for its end; whether it was complete."""
        with contextlib.suppress(aiohttp.ClientError):
            await self._task
        return self.text.endswith("data: [DONE]\n\n")


async def open_streams(url: str, count: int, tokens: int) -> list[OpenStream]:
    """Streams that have all begun."""
    streams = [OpenStream(url, tokens) for _ in range(count)]
    for stream in streams:
        await stream.begun.wait()
    return streams


async def fetch_metrics(url: str) -> dict[str, float]:
    """``/metrics``: sums of all samples by name."""
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{url}/metrics") as response:
            assert response.status == 200
            text = await response.text()
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0) + sample.value
    return sums


class GatewayProcess:
    """A running ``inferdock gateway``.

    Attributes:
        process: its parent, or its only process.
        config: its configuration file.
    """

    def __init__(self, folder: Path, urls: Sequence[str], *arguments: str, config: str = "") -> None:
        self.config = folder / "inferdock.yaml"
        self.config.write_text(config)
        self._announce = folder / "gateway.json"
        self._announce.unlink(missing_ok=True)
        self._log = folder / "gateway.log"
        command = [sys.executable, "-m", "inferdock.cli.main", "gateway", "-f", str(self.config)]
        command += ["--announce", str(self._announce), *(f"--replica=sim={url}" for url in urls), *arguments]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("INFERDOCK_")}
        with self._log.open("ab") as out:
            self.process = subprocess.Popen(command, stderr=out, env=environment, start_new_session=True)

    @property
    def log(self) -> str:
        """Everything it has written."""
        return self._log.read_text()

    @property
    def announced(self) -> dict:
        """Its announce file."""
        return json.loads(self._announce.read_text())

    @property
    def url(self) -> str:
        """Base URL, without /v1."""
        return f"http://127.0.0.1:{self.announced['port']}"

    @property
    def admin_url(self) -> str:
        """Base URL of the admin port."""
        return f"http://127.0.0.1:{self.announced['admin_port']}"

    async def until_ready(self, within_s: float = 30) -> None:
        """Wait until it serves; fails with the log if it ends before."""
        async with asyncio.timeout(within_s):
            while not self._announce.exists():
                assert self.process.poll() is None, self.log
                await asyncio.sleep(0.02)
            while (await status_of(f"{self.url}/ready")) != 200:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.05)

    async def ended(self, within_s: float = 30) -> int:
        """Wait for its end, return the exit status."""
        async with asyncio.timeout(within_s):
            while self.process.poll() is None:
                await asyncio.sleep(0.02)
        return self.process.returncode


async def status_of(url: str) -> int:
    """Status of a GET on a connection of its own; 0 without an answer."""
    try:
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            return response.status
    except aiohttp.ClientError:
        return 0


@contextlib.contextmanager
def gateway_process(folder: Path, urls: Sequence[str], *arguments: str, config: str = "") -> Iterator[GatewayProcess]:
    """Start one on a free port; nothing of it is left at the end."""
    gateway = GatewayProcess(folder, urls, "--port", "0", *arguments, config=config)
    try:
        yield gateway
    finally:
        if gateway.process.poll() is None:
            gateway.process.kill()
        gateway.process.wait()
        deadline = time.monotonic() + 10
        while _session(gateway.process.pid):
            assert time.monotonic() < deadline, "a worker is left"
            time.sleep(0.05)


def _session(leader: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = entry.read_bytes().rpartition(b")")[2].split()[:4]
            if int(session) == leader and state != b"Z":
                found.append(int(entry.parent.name))
    return found
