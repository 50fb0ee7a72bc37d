"""The chart's KEDA queries on a real Prometheus that scrapes a gateway and engines under load as its monitors say.

Targets get the labels that discovery in a cluster would give them, from the chart's own Services, and the relabelling
that the operator makes of the chart's ServiceMonitors. What KEDA would read is compared with what the engines say.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from inferdock.telemetry import names as n
from tests.deploy.test_chart_queries import NAMESPACE
from tests.support.chart import chart_objects
from tests.support.gateway import running_gateway
from tests.support.kubernetes_checks import labels, of_kind
from tests.support.kubernetes_scaling_checks import triggers
from tests.support.prometheus import MISSING, REASON, job, running_prometheus

pytestmark = [pytest.mark.skipif(MISSING, reason=REASON), pytest.mark.timeout(200)]

SOON_S = 40.0
SENT = 14
"""More than both engines run at once, so that some wait."""
SLOW = SimOptions(ttft_s=0.05, itl_s=0.05, max_num_seqs=4, kv_cache_tokens=2_000)
Query = Callable[[str], Any]


def sanitised(label: str) -> str:
    """A label of Kubernetes as Prometheus spells it."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", label)


class Chart:
    """The chart's objects for one model that may sleep, and what a cluster's Prometheus would make of them."""

    def __init__(self, model: str) -> None:
        engine = {"autoscaling": {"enabled": True, "minReplicas": 0, "targetLoadPerReplica": 6}}
        models = {"mistral-7b-instruct": None, "m": {"version": "1.0.0", "source": "org/m", "name": model}}
        values = {"models": models, "engine": engine, "metrics": {"serviceMonitor": {"enabled": True}}}
        self.objects = chart_objects(values, namespace=NAMESPACE)
        self.queries: dict[str, str] = {
            one["name"]: one["metadata"]["query"] for _, one in triggers(self.objects) if one["type"] == "prometheus"
        }

    def target(self, component: str, pod: str, url: str) -> dict[str, Any]:
        """A job for one pod, labelled by discovery and relabelled by the operator's rules for targetLabels."""
        (monitor,) = [
            one
            for one in of_kind(self.objects, "ServiceMonitor")
            if one["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] == component
        ]
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        service = next(one for one in of_kind(self.objects, "Service") if wanted <= labels(one).items())
        found = {f"__meta_kubernetes_service_label_{sanitised(key)}": text for key, text in labels(service).items()}
        kept = {"namespace": NAMESPACE, "service": service["metadata"]["name"], "pod": pod}
        made = job(pod, url, **found, **kept)
        made["relabel_configs"] = [
            {
                "source_labels": [f"__meta_kubernetes_service_label_{sanitised(label)}"],
                "target_label": sanitised(label),
                "regex": "(.+)",
            }
            for label in monitor["spec"].get("targetLabels", ())
        ]
        made["metrics_path"] = monitor["spec"]["endpoints"][0]["path"]
        return made


class Keda:
    """Asks Prometheus as KEDA's scaler does: one instant query, one value or none."""

    def __init__(self, http: aiohttp.ClientSession, url: str, chart: Chart) -> None:
        self._http, self._url, self._chart = http, url, chart

    async def ready(self) -> None:
        """Wait until Prometheus answers."""
        async with asyncio.timeout(SOON_S):
            while True:
                with contextlib.suppress(aiohttp.ClientConnectorError):
                    async with self._http.get(f"{self._url}/-/ready") as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(0.1)

    async def reads(self, trigger: str) -> float | None:
        """The value of a trigger's query; None is an error to KEDA, by ``ignoreNullValues: "false"``."""
        parameters = {"query": self._chart.queries[trigger], "time": f"{time.time():.3f}"}
        async with self._http.get(f"{self._url}/api/v1/query", params=parameters) as response:
            body = await response.json()
            assert response.status == 200, body
        found = body["data"]["result"]
        assert len(found) < 2, "KEDA refuses more than one value"
        return float(found[0]["value"][1]) if found else None

    async def until(self, trigger: str, right: Callable[[float | None], bool]) -> float | None:
        """Wait for a value."""
        try:
            async with asyncio.timeout(SOON_S):
                while not right(value := await self.reads(trigger)):
                    await asyncio.sleep(0.3)
        except TimeoutError:
            raise AssertionError(f"{trigger} is {await self.reads(trigger)}: {self._chart.queries[trigger]}") from None
        return value


async def said(http: aiohttp.ClientSession, urls: list[str], *metrics: str) -> float:
    """The sum of gauges as the processes themselves show them."""
    total = 0.0
    for url in urls:
        async with http.get(f"{url}/metrics") as response:
            lines = (await response.text()).splitlines()
        total += sum(float(line.split()[-1]) for line in lines if line.partition("{")[0] in metrics)
    return total


async def ask(http: aiohttp.ClientSession, url: str, model: str, tokens: int) -> None:
    body = {"model": model, "prompt": "Once upon a time", "max_tokens": tokens, "ignore_eos": True, "stream": True}
    async with http.post(f"{url}/v1/completions", json=body) as response:
        async for _ in response.content:
            pass


@contextlib.asynccontextmanager
async def asked(http: aiohttp.ClientSession, url: str, model: str, count: int, tokens: int) -> AsyncIterator[None]:
    """So many requests under way; they are broken off at the end."""
    tasks = [asyncio.create_task(ask(http, url, model, tokens)) for _ in range(count)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_keda_reads_what_the_engines_hold_what_the_gateway_holds_and_nothing_from_silence(tmp_path: Path):
    chart = Chart("sim")
    async with contextlib.AsyncExitStack() as stack, contextlib.AsyncExitStack() as engines:
        enter = stack.enter_async_context
        http = await enter(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        urls = [(await engines.enter_async_context(running_sim(SLOW))).url for _ in range(2)]
        serving = await enter(contextlib.AsyncExitStack())
        gateway = await serving.enter_async_context(running_gateway(urls, hold_timeout_s=60.0))
        jobs = [chart.target("engine", f"engine-{place}", url) for place, url in enumerate(urls)]
        jobs.append(chart.target("gateway", "gateway-0", gateway.url))
        keda = Keda(http, stack.enter_context(running_prometheus(tmp_path, jobs, rules=False)), chart)
        await keda.ready()
        await keda.until("load", lambda value: value == 0)
        async with asked(http, gateway.url, "sim", SENT, 1_500):
            await keda.until("load", lambda value: value == SENT)
            assert await said(http, urls, n.ENGINE_RUNNING) == 2 * SLOW.max_num_seqs
            assert await said(http, urls, n.ENGINE_WAITING) == SENT - 2 * SLOW.max_num_seqs
            before = await said(http, urls, n.ENGINE_KV_USAGE) / 2
            used = await keda.until("kv-cache", lambda value: value is not None and value > before)
            assert used is not None
            assert before < used <= await said(http, urls, n.ENGINE_KV_USAGE) / 2 < 1
            assert await keda.reads("held") == 0
        await keda.until("load", lambda value: value == 0)
        gateway.server.replace_endpoints([], ["sim"])
        await engines.aclose()
        async with asked(http, gateway.url, "sim", 3, 10):
            await keda.until("held", lambda value: value == 3)
            assert (await keda.until("load", lambda value: value == 0), await keda.reads("kv-cache")) == (0, 0)
        await serving.aclose()
        for trigger in chart.queries:
            await keda.until(trigger, lambda value: value is None)


@pytest.mark.engine
async def test_keda_reads_the_load_of_a_real_engine(live_platform, tmp_path: Path):
    if live_platform.engine_url is None:
        pytest.skip("only the gateway's address was given")
    gateway = live_platform.base_url.removesuffix("/v1")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        async with http.get(f"{live_platform.base_url}/models") as response:
            model = (await response.json())["data"][0]["id"]
        chart = Chart(model)
        jobs = [
            chart.target("engine", "engine-0", live_platform.engine_url),
            chart.target("gateway", "gateway-0", gateway),
        ]
        with running_prometheus(tmp_path, jobs, rules=False) as url:
            keda = Keda(http, url, chart)
            await keda.ready()
            await keda.until("load", lambda value: value == 0)
            stop = asyncio.Event()

            async def user() -> None:
                while not stop.is_set():
                    await ask(http, gateway, model, 100)

            users = [asyncio.create_task(user()) for _ in range(SENT)]
            highest = await keda.until("load", lambda value: value is not None and value > SENT / 2)
            assert highest is not None
            assert highest <= SENT
            used = await keda.until("kv-cache", lambda value: value is not None and value > 0)
            assert used is not None
            assert used <= 1
            stop.set()
            await asyncio.gather(*users)
            await keda.until("load", lambda value: value == 0)
