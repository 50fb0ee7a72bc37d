"""``inferdock cost`` as a command: on a gateway with tenants and a response cache, and on a real Prometheus."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner, Result

from inferdock.app.cost import Engine, Where, from_prometheus, over_window, report, since_start
from inferdock.cli.main import cli
from inferdock.config.settings import CacheSettings, CostSettings, KeysSettings
from inferdock.domain.errors import ConfigError, UnreachableError
from inferdock.keys.store import KeyFile
from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from tests.support.gateway import RunningGateway, gateway_process, running_gateway
from tests.support.platform import Platform
from tests.support.prometheus import PROGRAM, job, running_prometheus

FAST = SimOptions(ttft_s=0.01, itl_s=0.001)
TWO_DOLLARS = CostSettings(cost_per_hour=2.0)
SOON_S = 30.0


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


def where(gateway: RunningGateway, **more: Any) -> Where:
    return Where(gateway.url, f"{gateway.admin_url}/admin/status", **more)


async def ask(http: aiohttp.ClientSession, url: str, text: str, key: str = "", tokens: int = 20) -> dict[str, int]:
    """Ask, and return the usage that the answer tells."""
    body = {
        "model": "sim",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
    }
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with http.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        usage = (await response.json())["usage"]
    return {"prompt": usage["prompt_tokens"], "output": usage["completion_tokens"]}


def added(usages: list[dict[str, int]]) -> dict[str, int]:
    return {kind: sum(one[kind] for one in usages) for kind in ("prompt", "output")}


def tokens_of(row: dict[str, Any]) -> dict[str, int]:
    return {kind: row["tokens"][kind] for kind in ("prompt", "output")}


async def test_tokens_are_exact_by_tenant_and_what_was_paid_is_time_at_its_price(http, tmp_path):
    file = KeyFile(tmp_path / "keys.jsonl")
    keys = {name: file.create(name=name, now=time.time(), tenant=name)[1] for name in ("red", "blue")}
    async with (
        running_sim(FAST) as replica,
        running_gateway([replica.url], keys=KeysSettings(file=file.path, tenants_in_metrics=True)) as gateway,
    ):
        await gateway.until_ready(1)
        told = {
            name: added([await ask(http, gateway.url, f"question {i} of {name}", key) for i in range(count)])
            for (name, key), count in zip(keys.items(), (3, 5), strict=True)
        }
        found = report(TWO_DOLLARS, await since_start(http, where(gateway)))
    assert {row["tenant"]: tokens_of(row) for row in found["tenants"]} == told
    total = found["total"]
    assert total["dollars"] == pytest.approx(found["elapsed_s"] * 2 / 3600, rel=1e-6)
    assert total["dollars"] == pytest.approx(sum(row["dollars"] for row in found["tenants"]), rel=1e-6)
    assert sum(total["time_dollars"][name] for name in ("starting", "idle", "busy")) == pytest.approx(total["dollars"])


async def test_tenants_are_not_named_where_nobody_has_asked_for_it(http, tmp_path):
    file = KeyFile(tmp_path / "keys.jsonl")
    key = file.create(name="crimson", now=time.time(), tenant="crimson")[1]
    async with (
        running_sim(FAST) as replica,
        running_gateway([replica.url], keys=KeysSettings(file=file.path)) as gateway,
    ):
        told = await ask(http, gateway.url, "question", key)
        async with http.get(f"{gateway.url}/metrics") as response:
            assert "crimson" not in await response.text()
        found = report(TWO_DOLLARS, await since_start(http, where(gateway)))
    assert [(row["tenant"], tokens_of(row)) for row in found["tenants"]] == [("", told)]
    assert any("tenants_in_metrics" in sentence for sentence in found["notes"])


async def test_nobody_asked_is_no_data_and_not_zero_dollars(http):
    async with running_sim(FAST) as replica, running_gateway([replica.url]) as gateway:
        await gateway.until_ready(1)
        found = report(TWO_DOLLARS, await over_window(http, where(gateway), 0.3))
    assert found["total"]["dollars"] > 0
    assert found["total"]["dollars_per_million"]["blended"] is None


async def test_a_window_counts_only_what_falls_into_it(http):
    async with running_sim(FAST) as replica, running_gateway([replica.url]) as gateway:
        await gateway.until_ready(1)
        await ask(http, gateway.url, "before")
        told: list[dict[str, int]] = []

        async def meanwhile(_: float) -> None:
            told.append(await ask(http, gateway.url, "within", tokens=40))

        engines = (Engine("sim", "r1", replica.url),)
        found = report(TWO_DOLLARS, await over_window(http, where(gateway, engines=engines), 1.0, sleep=meanwhile))
    assert tokens_of(found["total"]) == added(told)


async def test_what_the_response_cache_spared_is_counted_apart_and_has_a_worth(http):
    cache = CacheSettings(enabled=True, semantic=False)
    async with running_sim(FAST) as replica, running_gateway([replica.url], cache=cache) as gateway:
        await gateway.until_ready(1)
        first = await ask(http, gateway.url, "the same", tokens=400)  # long enough for one look at the replica
        async with asyncio.timeout(SOON_S):
            while True:
                await ask(http, gateway.url, "the same", tokens=400)
                figures = await since_start(http, where(gateway))
                total = report(TWO_DOLLARS, figures)["total"]
                if total["time_dollars"]["busy"]:
                    break
                await ask(http, gateway.url, f"another {time.monotonic()}", tokens=400)
    assert total["spared_tokens"]["output"] % first["output"] == 0
    assert total["spared_tokens"]["output"] > 0
    assert total["saved_dollars"]["response_cache"] > 0
    per_million = total["dollars_per_million"]
    assert per_million["with_cache"] < per_million["blended"]


async def test_workers_of_one_gateway_count_together(http, tmp_path):
    async with (
        running_sim(FAST) as replica,
        gateway_process(tmp_path, [replica.url], "--workers", "2", config="keys: {check: never}\n") as url,
    ):
        told: list[dict[str, int]] = []

        async def meanwhile(_: float) -> None:
            asked = (ask(http, url, f"question {i}", tokens=2000) for i in range(8))  # longer than from look to look
            told.extend(await asyncio.gather(*asked))

        async with asyncio.timeout(SOON_S):
            while (await http.get(f"{url}/ready")).status != 200:
                await asyncio.sleep(0.1)
        found = report(TWO_DOLLARS, await over_window(http, Where(url), 1.0, sleep=meanwhile))
    assert tokens_of(found["total"]) == added(told)
    assert found["total"]["machine_seconds"] == pytest.approx(found["elapsed_s"], rel=1e-6)
    assert found["total"]["time_dollars"]["busy"] > 0


async def test_what_does_not_answer_is_said(http):
    with pytest.raises(UnreachableError, match="Nothing answers"):
        await over_window(http, Where("http://127.0.0.1:9"), 0.1)
    with pytest.raises(ConfigError, match="since when"):
        await since_start(http, Where("http://127.0.0.1:9"))


# -- As a command --------------------------------------------------------------------------------------------------


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["cost", *arguments], standalone_mode=False)


def test_the_platform_that_runs_here_is_found(tmp_path):
    platform = Platform(tmp_path, "--engine", "sim", "--replicas", "2")
    try:
        platform.wait_until_ready(2, 60)
        result = run("--state-dir", str(tmp_path), "--cost-per-hour", "2", "-o", "json")
        assert result.exception is None, result.output
        found = json.loads(result.stdout)
        assert found["total"]["dollars_per_hour"] == pytest.approx(2, rel=1e-6)
        shown = run("--state-dir", str(tmp_path), "--instance-type", "g5.xlarge", "--spot-share", "1")
        assert shown.exception is None, shown.output
        assert "no data" in shown.stdout
        assert "approximate" in shown.stdout
        assert platform.stop() == 0
    finally:
        platform.kill()


def test_wrong_words_end_in_a_sentence(tmp_path):
    assert isinstance(run().exception, ConfigError)
    assert "no time like" in str(run("--cost-per-hour", "1", "--window", "soon").exception)
    assert isinstance(run("--cost-per-hour", "-1").exception, ConfigError)
    assert isinstance(run("--cost-per-hour", "nan").exception, ConfigError)
    assert isinstance(run("--instance-type", "abacus").exception, ConfigError)
    assert isinstance(run("--cost-per-hour", "1", "--url", "http://127.0.0.1:9").exception, ConfigError)
    assert isinstance(run("--cost-per-hour", "1", "--prometheus", "http://127.0.0.1:9").exception, UnreachableError)


def test_the_catalogue_is_listed():
    found = json.loads(run("prices", "-o", "json").stdout)
    assert {"instance_type", "gpus", "region", "on_demand", "spot"} <= found[0].keys()
    assert "2026-08-26" in run("prices").stdout


# -- A real Prometheus ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which(PROGRAM) is None, reason="needs prometheus (Debian: apt-get install prometheus)")
async def test_a_prometheus_tells_the_same_as_the_clients_saw(http, tmp_path):
    async with (
        running_sim(FAST) as replica,
        running_gateway([replica.url]) as gateway,
    ):
        jobs = [job("gateway", gateway.url)]
        with running_prometheus(tmp_path, jobs, every="200ms", rules=False) as base:
            async with asyncio.timeout(SOON_S):
                while not await _seen(http, base):
                    await asyncio.sleep(0.1)
            told = added([await ask(http, gateway.url, f"question {i}", tokens=20 + i) for i in range(20)])
            async with asyncio.timeout(SOON_S):
                while True:
                    figures = await from_prometheus(http, base, 600)
                    found = report(TWO_DOLLARS, figures)
                    if tokens_of(found["total"]) == told:
                        break
                    await asyncio.sleep(0.2)
            shown = await asyncio.to_thread(run, "--prometheus", base, "--instance-type", "g5.xlarge", "-o", "json")
            with pytest.raises(UnreachableError, match="parse error"):
                await from_prometheus(http, base, 600, 'job="')
            nothing = report(TWO_DOLLARS, await from_prometheus(http, base, 600, 'job="other"'))
    assert found["total"]["dollars"] == pytest.approx(found["elapsed_s"] * 2 / 3600, rel=1e-6)
    assert tokens_of(json.loads(shown.stdout)["total"]) == told
    assert nothing["total"]["dollars_per_million"]["blended"] is None


async def _seen(http: aiohttp.ClientSession, base: str) -> bool:
    """Whether it has looked at the gateway twice."""
    try:
        return (await from_prometheus(http, base, 600)).elapsed > 0
    except UnreachableError:
        return False
