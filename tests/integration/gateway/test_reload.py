"""The configuration is read again while streams are open: what can change does, and no connection notices."""

from __future__ import annotations

import asyncio
import signal

import aiohttp
import pytest

from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from tests.support.workers import GatewayProcess, ask, fetch_metrics, gateway_process, open_streams

SLOW = SimOptions(itl_s=0.02, ttft_s=0.0)


@pytest.fixture(params=["1", "2"], ids=["one process", "two workers"])
async def gateway(request, tmp_path):
    """A gateway in front of one slow replica; its configuration file is empty."""
    async with running_sim(SLOW) as replica:
        with gateway_process(tmp_path, [replica.url], "--workers", request.param) as started:
            await started.until_ready()
            yield started


async def reload(gateway: GatewayProcess, config: str) -> tuple[int, dict]:
    """Replace the file and ask for a reload."""
    gateway.config.write_text(config)
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{gateway.admin_url}/admin/reload") as response:
            return response.status, await response.json()


async def until_logged(gateway: GatewayProcess, words: str) -> None:
    async with asyncio.timeout(20):
        while words not in gateway.log:
            await asyncio.sleep(0.02)


async def test_open_streams_do_not_notice_reloads(gateway):
    streams = await open_streams(gateway.url, 20, tokens=100)
    for size in range(5):
        answer = await reload(gateway, f"gateway: {{max_body_bytes: {4096 + size}, keepalive_timeout_s: {5 + size}}}")
        assert answer == (
            200,
            {"changed": ["gateway.max_body_bytes", "gateway.keepalive_timeout_s"], "needs_restart": []},
        )
        assert (await ask(gateway.url))[0] == 200
    assert all([await stream.whole() for stream in streams])
    assert (await fetch_metrics(gateway.url))["llm_gateway_client_connections"] == 1


async def test_a_limit_counts_for_connections_that_are_open_already(gateway):
    body = {"model": "sim", "prompt": "x" * 3000, "max_tokens": 1}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as http:
        async with http.post(f"{gateway.url}/v1/completions", json=body) as response:
            assert response.status == 200
            await response.read()
        await reload(gateway, "gateway: {max_body_bytes: 2048}")
        await asyncio.sleep(0.1)
        async with http.post(f"{gateway.url}/v1/completions", json=body) as response:
            assert response.status == 413


async def test_sighup_reloads(gateway):
    gateway.config.write_text("gateway: {max_in_flight: 77}\nlog: {level: info}\n")
    gateway.process.send_signal(signal.SIGHUP)
    await until_logged(gateway, '"configuration reloaded","changed":"gateway.max_in_flight"')
    assert (await ask(gateway.url))[0] == 200


async def test_a_bad_file_changes_nothing_and_is_named(gateway):
    status, answer = await reload(gateway, "gateway: {max_body_bytes: 2048, atempts: 3}")
    assert status == 400
    assert "`gateway.attempts`" in answer["error"]["message"]
    await until_logged(gateway, '"configuration not reloaded"')
    body = {"model": "sim", "prompt": "x" * 3000, "max_tokens": 1}
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{gateway.url}/v1/completions", json=body) as response:
            assert response.status == 200


async def test_what_needs_a_restart_is_said_each_time_and_the_rest_counts(gateway):
    config = "gateway: {port: 1, admin_port: 2, max_in_flight: 5}"
    first = await reload(gateway, config)
    # The port is a flag here, and flags win over the file.
    assert first == (200, {"changed": ["gateway.max_in_flight"], "needs_restart": ["gateway.admin_port"]})
    assert await reload(gateway, config) == (200, {"changed": [], "needs_restart": ["gateway.admin_port"]})


async def test_the_log_level_changes_in_every_process(gateway):
    await reload(gateway, "log: {level: error}")
    await asyncio.sleep(0.4)
    lines = gateway.log.count("\n")
    await asyncio.gather(*(ask(gateway.url) for _ in range(12)))
    await asyncio.sleep(0.4)
    assert gateway.log.count("\n") == lines
