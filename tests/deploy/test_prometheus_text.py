"""The gateway's and the engine's `/metrics`: promtool finds nothing, labels are bounded, 64 replicas cost little."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from inferdock.balance.endpoints import EndpointSet
from inferdock.balance.least_outstanding import LeastOutstanding
from inferdock.config.settings import CacheSettings, KeysSettings
from inferdock.domain.endpoint import EndpointSpec
from inferdock.gateway.metrics import GatewayMetrics
from inferdock.keys.store import KeyFile
from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from inferdock.telemetry import names as n
from inferdock.telemetry.exposition import Exposition
from inferdock.telemetry.table import ENGINE
from tests.support.gateway import running_gateway
from tests.support.prometheus import MISSING, REASON, check_metrics

FAST = SimOptions(ttft_s=0.0, itl_s=0.0)
HOSTILE = 10_000
REPLICAS = 64
CHAT = {"model": "sim", "messages": [{"role": "user", "content": "x"}], "max_tokens": 3, "temperature": 0}
promtool = pytest.mark.skipif(MISSING, reason=REASON)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


async def scrape(http: aiohttp.ClientSession, url: str) -> bytes:
    async with http.get(f"{url}/metrics") as response:
        assert response.headers["content-type"].startswith("text/plain")
        return await response.read()


async def ask(http: aiohttp.ClientSession, url: str, headers: dict[str, str] | None = None, **more: object) -> int:
    async with http.post(f"{url}/v1/chat/completions", json=CHAT | more, headers=headers or {}) as response:
        await response.read()
        return response.status


@promtool
async def test_promtool_finds_nothing_in_the_gateways_text(http):
    async with running_sim(FAST) as replica:
        async with running_gateway([replica.url], cache=CacheSettings(enabled=True, semantic=False)) as gateway:
            for number in range(4):
                await ask(http, gateway.url, stream=bool(number % 2))
            await ask(http, gateway.url, model="nobody's")
            assert check_metrics(await scrape(http, gateway.url)) == ""


@promtool
async def test_promtool_finds_nothing_in_the_simulated_engines_text_but_vllms_own_names(http):
    async with running_sim(FAST) as replica:
        await ask(http, replica.url)
        said = check_metrics(await scrape(http, replica.url)).splitlines()
    assert [line for line in said if not line.startswith("vllm:")] == []


@pytest.mark.engine
async def test_the_names_of_the_real_engine_are_those_of_the_table(http, live_platform):
    if live_platform.engine_url is None:
        pytest.skip("only the gateway's address was given")
    text = (await scrape(http, live_platform.engine_url)).decode()
    assert [row.name for row in ENGINE if f"# TYPE {row.name.removesuffix('_total')}" not in text] == []
    assert [alias.name for row in ENGINE for alias in row.aliases if alias.name.removesuffix("_total") in text] == []


def series(text: bytes) -> set[bytes]:
    return {line.rpartition(b" ")[0] for line in text.splitlines() if not line.startswith(b"#")}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("check", "status"), [("never", 404), ("always", 401)])
async def test_ten_thousand_made_up_names_and_keys_add_no_series(http, tmp_path, check, status):
    """Models, keys, routes, methods, sessions and request ids that nobody knows, with and without a check of keys."""
    file = KeyFile(tmp_path / "keys.jsonl")
    ours = {"authorization": f"Bearer {file.create(name='ours', now=time.time())[1]}"}
    keys = KeysSettings(check=check, file=file.path, tenants_in_metrics=True)

    async def hostile(url: str, number: int) -> None:
        made_up = f'made-up-{number}"}}\n{{x="'
        headers = {
            "authorization": f"Bearer idk_{number:08d}_x",
            "x-session-id": str(number),
            "x-request-id": str(number),
        }
        await ask(http, url, headers, model=made_up, user=str(number))
        if number % 10 == 0:
            async with http.request(f"X{number}", f"{url}/v1/{number}") as response:
                await response.read()

    async def client(url: str, first: int) -> None:
        for number in range(first, HOSTILE, 16):
            await hostile(url, number)

    async with running_sim(FAST) as replica, running_gateway([replica.url], keys=keys) as gateway:
        assert await ask(http, gateway.url, ours) == 200
        for number in (0, 10):
            await hostile(gateway.url, number)
        await scrape(http, gateway.url)
        before = series(await scrape(http, gateway.url))
        await asyncio.gather(*(client(gateway.url, first) for first in range(16)))
        text = await scrape(http, gateway.url)
    assert series(text) - before == set()
    assert b"made-up" not in text
    counted = [line for line in text.splitlines() if line.startswith(n.REQUESTS.encode()) and b'"%d"' % status in line]
    assert sum(float(line.rpartition(b" ")[2]) for line in counted) >= HOSTILE


async def test_a_scrape_with_64_replicas_is_quick(http, capsys):
    """The goal is 50 ms on an idle machine; the limit here leaves room for a busy one."""
    async with running_sim(FAST) as replica:
        async with running_gateway([]) as gateway:
            host, _, port = replica.url.removeprefix("http://").partition(":")
            specs = [EndpointSpec(f"r{i % 4}-{i}", host, int(port), "sim", f"r{i % 4}") for i in range(REPLICAS)]
            gateway.server.replace_endpoints(specs)
            await gateway.until_ready(REPLICAS)
            for number in range(2 * REPLICAS):
                await ask(http, gateway.url, stream=bool(number % 2))
            took = []
            for _ in range(21):
                began = time.perf_counter()
                text = await scrape(http, gateway.url)
                took.append(time.perf_counter() - began)
    with capsys.disabled():
        print(f"\nscrape with {REPLICAS} replicas: median {1e3 * statistics.median(took):.1f} ms, {len(text)} bytes")
    assert text.count(n.ENDPOINT_READY.encode() + b"{") == REPLICAS
    assert min(took) < 0.5


@promtool
def test_label_values_are_escaped():
    """Names of models come from whoever configures them, and may hold anything."""
    endpoints = EndpointSet(LeastOutstanding())
    metrics = GatewayMetrics(endpoints, connections=lambda: 0, draining=lambda: False)
    cells = metrics.cells('a "model"\nof\\ours', "r1")
    cells.answered("/v1/completions", 200).value += 1
    cells.ttft.observe(0.1)
    assert check_metrics(Exposition(metrics.instruments).text()) == ""
