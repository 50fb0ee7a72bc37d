"""A gateway whose replicas are what EndpointSlices say."""

import asyncio
import contextlib

import aiohttp
import pytest

from inferdock.app.gateway import followed
from inferdock.config.settings import KubernetesSettings
from inferdock.kube.access import cluster_access
from inferdock.kube.source import follow
from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from inferdock.telemetry.logs import EventLog
from tests.support.fake_kube import FakeKube, endpoint, endpoint_slice, running_fake_kube
from tests.support.gateway import RunningGateway, gateway_process, running_gateway

SETTINGS = KubernetesSettings(enabled=True, namespace="ns", port_name="http", model_names={"demo": "org/demo"})
SIM = SimOptions(model="org/demo")


@contextlib.asynccontextmanager
async def gateway_on(fake: FakeKube):
    async with running_gateway([]) as gateway:
        access = cluster_access(fake.url, {})
        log = EventLog(gateway.log.extend)
        task = asyncio.create_task(follow(SETTINGS, access, log=log, changed=gateway.server.replace_endpoints))
        try:
            yield gateway
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def of_sim(name: str, url: str, **conditions: bool) -> dict:
    port = int(url.rpartition(":")[2])
    ports = [{"name": "http", "port": port}, {"name": "metrics", "port": 9}]
    return endpoint_slice(name, endpoint("127.0.0.1", f"pod-{name}", **conditions), ports=ports)


async def ask(gateway: RunningGateway) -> int:
    body = {"model": "org/demo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{gateway.url}/v1/chat/completions", json=body) as response:
            await response.read()
            return response.status


async def test_a_replica_serves_once_its_slice_says_so():
    async with running_sim(SIM) as sim, running_fake_kube() as fake, gateway_on(fake) as gateway:
        assert gateway.endpoints() == []
        await fake.put(of_sim("a", sim.url, ready=True))
        await gateway.until_ready(1)
        assert await ask(gateway) == 200


async def test_a_pod_that_terminates_takes_no_new_requests_and_finishes_those_it_has():
    slow = SimOptions(model="org/demo", itl_s=0.05)
    sims = running_sim(slow), running_sim(SIM)
    async with sims[0] as old, sims[1] as new, running_fake_kube() as fake, gateway_on(fake) as gateway:
        await fake.put(of_sim("old", old.url, ready=True))
        await gateway.until_ready(1)
        asked = asyncio.create_task(ask(gateway))
        await asyncio.sleep(0.1)
        await fake.put(of_sim("new", new.url, ready=True))
        await fake.put(of_sim("old", old.url, ready=False, serving=True, terminating=True))
        async with asyncio.timeout(20):
            while [row["name"] for row in gateway.endpoints()] != ["pod-new"]:
                await asyncio.sleep(0.01)
        assert not asked.done()
        assert await asked == 200
        await gateway.until_ready(1)
        assert await ask(gateway) == 200


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_command_follows_the_cluster_that_its_configuration_names(tmp_path, workers):
    async with running_sim(SIM) as sim, running_fake_kube() as fake:
        await fake.put(of_sim("a", sim.url, ready=True))
        config = f"""
gateway:
  health_interval_s: 0.2
  workers: {workers}
  kubernetes: {{enabled: true, api_url: "{fake.url}", namespace: ns, port_name: http, model_names: {{demo: org/demo}}}}
keys: {{check: never}}
"""
        async with gateway_process(tmp_path, [], config=config) as url, aiohttp.ClientSession() as session:
            async with asyncio.timeout(20):
                while (await session.get(f"{url}/ready")).status != 200:
                    await asyncio.sleep(0.1)
            body = {"model": "org/demo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
            async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                assert response.status == 200


async def test_a_defect_in_what_follows_the_cluster_is_said_and_the_gateway_serves_on():
    lines = bytearray()
    log = EventLog(lines.extend)

    async def broken() -> None:
        raise RuntimeError("a defect")

    task = followed(broken(), log)
    with contextlib.suppress(RuntimeError):
        await task
    await asyncio.sleep(0)
    log.flush()
    assert b"cluster no longer followed" in lines
    assert b"a defect" in lines
