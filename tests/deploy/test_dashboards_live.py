"""Every query of every panel on a real Prometheus that scrapes a real gateway and simulated engines under load.

What only a cluster has (kube-state-metrics, DCGM) comes from a small exporter of the test.
``INFERDOCK_PICTURES=FOLDER`` keeps a picture of each dashboard.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from scripts.monitoring.panels import NEW_REVISION
from scripts.render_metrics_docs import rules

from inferdock.config.settings import CacheSettings
from inferdock.domain.endpoint import EndpointSpec
from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from inferdock.telemetry import names as n
from inferdock.telemetry.table import ENGINE, GATEWAY
from tests.support.gateway import running_gateway
from tests.support.platform import Platform
from tests.support.prometheus import MISSING, REASON, job, running_prometheus

looks = pytest.importorskip("scripts.look_at_dashboards", reason="needs matplotlib (extra plot)")
pytestmark = [pytest.mark.skipif(MISSING, reason=REASON), pytest.mark.timeout(400)]

SOON_S = 60.0
LOADED_S = 20.0
CHECKED = "only a semantic hit that was checked has it; that needs an embedder and idle time"
WITHOUT = {
    ("cost", "Cache hit rate", "prefix cache {{model}}"): "the simulated engine has no prefix cache",
    ("serving", "Turned away", "{{model}} retry refused"): "only many failures at once use the budget up",
    ("cache", "Surely wrong", "{{model}}"): CHECKED,
    ("cache", "Wrong hits", "{{model}} {{bound}}"): CHECKED,
    ("cache", "Checks", "{{model}} {{verdict}}"): CHECKED,
    ("cache", "Checks", "{{model}} let pass by the judge"): "needs a judge model",
    ("cache", "Redis", "processes that reach it"): "needs a Redis",
}
"""Queries that give nothing here, and why."""
ABSENT = {
    n.CANCELLED, n.RETRIES_REFUSED, n.CACHE_AUDITS, n.CACHE_PROMOTIONS, n.CACHE_REDIS_UP,
    n.CACHE_WRONG_RATIO, n.TENANT_CACHED,
}  # fmt: skip
"""Metrics of the gateway that may have no series in this load."""
NOT_RECORDED = {"inferdock:engine_prefix_queries:rate5m", "inferdock:engine_prefix_hits:rate5m"}
"""Recorded series of which there is none: the simulated engine has no prefix cache."""
CLUSTER = f"""\
{n.POD_INFO}{{namespace="prod",pod="engine-r1",node="one"}} 1
{n.POD_INFO}{{namespace="prod",pod="engine-r2",node="two"}} 1
{n.NODE_LABELS}{{node="one",label_eks_amazonaws_com_capacity_type="SPOT"}} 1
{n.NODE_LABELS}{{node="two",label_karpenter_sh_capacity_type="on-demand"}} 1
{n.GPU_BUSY}{{namespace="prod",pod="engine-r1",gpu="0"}} 71
"""


@contextlib.asynccontextmanager
async def exporter(text: str) -> AsyncIterator[str]:
    """Something that shows this text under /metrics."""

    async def show(_: web.Request) -> web.Response:
        return web.Response(text=text)

    app = web.Application()
    app.router.add_get("/metrics", show)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def priced_platform(folder: Path) -> Iterator[str]:
    """The gateway of an ``inferdock up`` that knows what its machine costs, and is asked nothing."""
    folder.mkdir()
    (folder / "inferdock.yaml").write_text("{cost: {cost_per_hour: 3600}, engine: {sim: {startup_s: 3}}}")
    platform = Platform(folder / "state", "--engine", "sim", "-f", str(folder / "inferdock.yaml"))
    try:
        platform.wait_until_ready(1, within_s=60)
        yield platform.url
    finally:
        platform.kill()


def endpoint(name: str, url: str, revision: str) -> EndpointSpec:
    host, _, port = url.removeprefix("http://").partition(":")
    return EndpointSpec(name, host, int(port), "sim", revision)


ANSWERS: ContextVar[Counter[tuple[str, int]]] = ContextVar("ANSWERS")
"""What clients saw: answers by model and status."""


async def ask(http: aiohttp.ClientSession, url: str, text: str, timeout_ms: int = 30_000, **more: object) -> bool:
    """One stream; whether it ended as it should."""
    body = {"model": "sim", "prompt": text, "max_tokens": 20, "temperature": 0, "stream": True, "ignore_eos": True}
    body |= more
    headers = {"x-inferdock-timeout-ms": str(timeout_ms)}
    async with http.post(f"{url}/v1/completions", json=body, headers=headers) as response:
        ANSWERS.get()[str(body["model"]), response.status] += 1
        return b"[DONE]" in await response.read()


async def load(http: aiohttp.ClientSession, url: str, on: Callable[[], bool]) -> int:
    """Streams one after the other, every third one known to the cache; how many ended as they should."""
    good = number = 0
    while on():
        number += 1
        text = "known" if number % 3 == 0 else f"question {time.monotonic_ns()}"
        good += await ask(http, url, text)
        await asyncio.sleep(0.02)
    return good


async def everything(http: aiohttp.ClientSession, gateway: str, admin: str) -> None:
    """A shadow, then a canary that sometimes breaks off, and a model that sleeps."""

    async def traffic(**body: object) -> None:
        async with http.put(f"{admin}/admin/traffic", json={"model": "sim", **body}) as response:
            assert response.status == 200, await response.text()

    for seconds, body in (
        (LOADED_S / 2, {"weights": {"r1": 1, "r2": 0}, "shadow": {"revision": "r2", "share": 1.0}}),
        (LOADED_S, {"weights": {"r1": 70, "r2": 30}}),
    ):
        await traffic(**body)
        until = time.monotonic() + seconds
        clients = [load(http, gateway, lambda until=until: time.monotonic() < until) for _ in range(3)]
        sleepers = [ask(http, gateway, "wake up", 300, model="sleeping") for _ in range(2)]
        assert sum((await asyncio.gather(*clients, *sleepers))[:3]) > 0


async def text_of(http: aiohttp.ClientSession, url: str) -> str:
    async with http.get(f"{url}/metrics") as response:
        return await response.text()


async def until_one_is_broken(http: aiohttp.ClientSession, url: str) -> str:
    """Ask for what cannot go on at another replica until one breaks off; gives the metrics then."""
    async with asyncio.timeout(SOON_S):
        while n.BROKEN + "{" not in (text := await text_of(http, url)):
            await ask(http, url, f"question {time.monotonic_ns()}", logprobs=1)
    return text


def empty(url: str, span: looks.Span) -> set[tuple[str, str, str]]:
    """Queries of panels that give nothing."""
    return {
        (name, panel["title"], target["legendFormat"])
        for name, board in looks.boards()
        for panel in board["panels"]
        for target in panel["targets"]
        if not looks.lines(url, target, span)
    }


def values(url: str, query: str, span: looks.Span) -> list[float]:
    """The last value of each series."""
    found = looks.lines(url, {"expr": query, "legendFormat": ""}, span)
    return [line.points[-1][1] for line in found]


async def test_every_panel_gives_data(tmp_path):
    fast = SimOptions(ttft_s=0.02, itl_s=0.002)
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        http = await enter(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)))
        old, new = await enter(running_sim(fast)), await enter(running_sim(fast, "cut:3@60%15"))
        cluster = await enter(exporter(CLUSTER))
        up = await asyncio.to_thread(stack.enter_context, priced_platform(tmp_path / "up"))
        cache = CacheSettings(enabled=True, semantic=False)
        gateway = await enter(running_gateway([], cache=cache, hold_timeout_s=5.0))
        specs = [endpoint("r1-0", old.url, "r1"), endpoint("r2-0", new.url, "r2")]
        gateway.server.replace_endpoints(specs, ["sleeping"])
        await gateway.until_ready(2)
        jobs = [
            job("gateway", gateway.url, namespace="prod", pod="gateway-0"),
            job("r1", old.url, namespace="prod", pod="engine-r1", inferdock_io_revision="r1"),
            job("r2", new.url, namespace="prod", pod="engine-r2", inferdock_io_revision="r2"),
            job("cluster", cluster),
            job("up", up, namespace="prod"),
        ]
        url = stack.enter_context(running_prometheus(tmp_path, jobs))
        began = time.time()
        ANSWERS.set(Counter())
        await everything(http, gateway.url, gateway.admin_url)
        shown, engine = await until_one_is_broken(http, gateway.url), await text_of(http, old.url)

        async def look() -> set[tuple[str, str, str]]:
            return await asyncio.to_thread(empty, url, looks.Span(began, time.time(), step=1, rate="10s"))

        async with asyncio.timeout(SOON_S):
            while (found := await look()) - WITHOUT.keys():
                await asyncio.sleep(2)
        assert found == set(WITHOUT), "a query that gives data need not be excused"
        span = looks.Span(began, time.time(), step=1, rate="10s")
        await asyncio.to_thread(keep, url, span)
        assert await asyncio.to_thread(unrecorded, url, span) == NOT_RECORDED
        assert await asyncio.to_thread(values, url, NEW_REVISION, span)
        counted = sum(float(line.split()[-1]) for line in shown.splitlines() if line.startswith(n.OUTPUT_TOKENS))
        async with asyncio.timeout(SOON_S):  # it looks once a second
            while await asyncio.to_thread(total, url, n.OUTPUT_TOKENS) != counted:
                await asyncio.sleep(0.5)
        for (model, status), count in ANSWERS.get().items():
            asked = f'{n.REQUESTS}{{model="{model}",status="{status}"}}'
            assert await asyncio.to_thread(total, url, asked) == count, asked
        (start_up,) = await asyncio.to_thread(values, url, f'{n.COST_DOLLARS}{{part="start_up"}}', span)
        cost = await asyncio.to_thread(values, url, "inferdock:cost_blended:dollars_per_million_tokens", span)
    assert set(missing(shown)) <= ABSENT
    assert cost[0] > 0
    assert 3 <= start_up < 60  # a dollar a second
    of_the_sim = {row.name for row in ENGINE} - {n.ENGINE_PREFIX_HITS, n.ENGINE_PREFIX_QUERIES}
    assert all(f"{name}" in engine for name in of_the_sim)


def unrecorded(url: str, span: looks.Span) -> set[str]:
    """Rules that record nothing."""
    return {rule["record"] for rule in rules() if "record" in rule and not values(url, rule["record"], span)}


def total(url: str, metric: str) -> float:
    """The sum over all series now."""
    now = time.time()
    return sum(values(url, f"sum({metric})", looks.Span(now, now + 1, step=1)))


def missing(text: str) -> list[str]:
    """Metrics of the table without a series."""
    there = {line.partition("{")[0].partition(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    return [row.name for row in GATEWAY if not there & set(row.samples())]


def keep(url: str, span: looks.Span) -> None:
    """Draw them where somebody wants to look."""
    folder = os.environ.get("INFERDOCK_PICTURES")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
    for name, board in looks.boards() if folder else ():
        looks.draw(url, board, span, Path(folder or ".") / f"{name}.png")


@pytest.mark.engine
async def test_every_recorded_series_of_the_engine_is_there_with_real_vllm(live_platform, tmp_path):
    if live_platform.engine_url is None:
        pytest.skip("only the gateway's address was given")
    gateway = live_platform.base_url.removesuffix("/v1")
    jobs = [job("gateway", gateway), job("engine", live_platform.engine_url, revision="r1")]
    ANSWERS.set(Counter())
    wanted = {rule["record"] for rule in rules() if rule.get("record", "").startswith("inferdock:engine_")}
    with running_prometheus(tmp_path, jobs) as url:
        began = time.time()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:
            async with http.get(f"{live_platform.base_url}/models") as response:
                model = (await response.json())["data"][0]["id"]
            async with asyncio.timeout(2 * SOON_S):
                while True:
                    await ask(http, gateway, f"Once upon a time {time.monotonic_ns() % 7}", model=model, max_tokens=8)
                    span = looks.Span(began, time.time(), step=1)
                    if not wanted & await asyncio.to_thread(unrecorded, url, span):
                        break
        found = await asyncio.to_thread(values, url, f'count({{model="{model}",revision="r1"}}) by (__name__)', span)
    assert len(found) >= len(wanted)
