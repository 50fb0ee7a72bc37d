"""The console of a gateway in a (fake) cluster: this pod's traffic, all replicas, releases as far as it may."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from inferdock.kube.access import ClusterAccess
from inferdock.kube.objects_api import KubeObjects
from inferdock.kube.resources import Resource
from inferdock.release.records.journal import By
from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from tests.integration.console.test_console import Opened, until
from tests.support.browser import chromium, shoot, violations
from tests.support.cluster_releases import in_cluster
from tests.support.fake_kube import FakeKube, endpoint, endpoint_slice, running_fake_kube
from tests.support.gateway import gateway_process
from tests.support.releases import plan

pytestmark = pytest.mark.timeout(180)
MODEL = "org/demo"
OURS = {"x-inferdock-console": "1"}


def of_the_chart(verb: str, resource: Resource, name: str) -> bool:
    """The gateway's role names one ConfigMap: it may not list them all."""
    return resource.plural == "configmaps" and verb == "list"


@contextlib.asynccontextmanager
async def pod(folder: Path, fake: FakeKube, workers: int = 1) -> AsyncIterator[str]:
    """A gateway's process as in a pod, with one replica that is ready and one that is not."""
    config = f"""
gateway:
  health_interval_s: 0.2
  workers: {workers}
  kubernetes: {{enabled: true, api_url: "{fake.url}", namespace: ns, port_name: http, model_names: {{demo: {MODEL}}}}}
keys: {{check: never}}
"""
    async with running_sim(SimOptions(model=MODEL)) as sim:
        port = int(sim.url.rpartition(":")[2])
        for name, on in (("a", port), ("b", 9)):
            ports = [{"name": "http", "port": on}]
            await fake.put(endpoint_slice(name, endpoint("127.0.0.1", f"pod-{name}", f"u-{name}"), ports=ports))
        async with gateway_process(folder, [], config=config) as url:
            yield url


async def ask(http: aiohttp.ClientSession, method: str, url: str) -> tuple[int, dict[str, Any]]:
    async with http.request(method, url, headers=OURS, data=b"{}" if method == "POST" else None) as response:
        return response.status, await response.json()


async def live(http: aiohttp.ClientSession, url: str, wanted: str) -> dict[str, Any]:
    """The first document of the feed in which something is there."""
    async with asyncio.timeout(60), http.get(f"{url}/console/api/live", headers=OURS) as response:
        assert response.status == 200
        async for line in response.content:
            if line.startswith(b"data: ") and wanted in line.decode():
                found: dict[str, Any] = json.loads(line[6:])
                return found
    raise AssertionError("the feed ended")


async def begin(fake: FakeKube) -> str:
    """Write a release's first line, as somebody with the right to does."""
    made = plan(model=MODEL)
    async with KubeObjects(ClusterAccess(fake.url), answer_timeout_s=3) as api:
        by = By(actor="alice", origin="laptop")
        await in_cluster(fake, api, MODEL).journals.create(made, by, datetime.now(UTC), reason="better")
    return made.id


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_pod_shows_its_own_traffic_all_replicas_and_the_release_of_its_cluster(
    tmp_path: Path, workers: int
) -> None:
    async with running_fake_kube() as fake:
        release = await begin(fake)
        async with pod(tmp_path, fake, workers) as url, aiohttp.ClientSession() as http:
            await live(http, url, '"state":"ready"')
            body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8}
            async with http.post(f"{url}/v1/chat/completions", json=body) as response:
                assert response.status == 200
            seen = await live(http, url, f'"id":"{release}"')
            assert {one["name"]: one["state"] == "ready" for one in seen["replicas"]} == {"pod-a": True, "pod-b": False}
            assert seen["figures"]["requests_total"] == 1
            assert "this gateway's pod alone" in seen["scope"]
            assert seen["release"]["to"] == "m@1.1.0"
            assert f"inferdock release promote --target kubernetes --model {MODEL}" in seen["instead"]
            status, listed = await ask(http, "GET", f"{url}/console/api/releases")
            assert (status, [one["id"] for one in listed["releases"]]) == (200, [release])
            before = len(fake.requests)
            status, said = await ask(http, "POST", f"{url}/console/api/release")
            assert (status, said["error"]["code"]) == (403, "not_here")
            assert "--target kubernetes" in said["error"]["message"]
            assert {asked.method for asked in fake.requests[before:]} <= {"GET"}


async def test_where_the_role_may_not_read_releases_the_page_says_so_and_shows_the_rest(tmp_path: Path) -> None:
    async with running_fake_kube() as fake:
        fake.forbidden = of_the_chart
        async with pod(tmp_path, fake) as url, aiohttp.ClientSession() as http:
            seen = await live(http, url, "may not read releases")
            assert "inferdock release status --target kubernetes" in seen["release"]["problem"]
            assert seen["release"]["kind"] == "warn"
            status, said = await ask(http, "GET", f"{url}/console/api/releases")
            assert (status, "may not read releases" in said["error"]["message"]) == (503, True)
            status, said = await ask(http, "GET", f"{url}/console/api/registry")
            assert (status, "inferdock model list" in said["error"]["message"]) == (503, True)
            assert (await ask(http, "GET", f"{url}/console/api/keys"))[0] == 200


async def test_the_page_of_a_pod_has_no_buttons_to_press_but_commands_to_run(tmp_path: Path) -> None:
    def look(url: str) -> None:
        with chromium() as browser, Opened(browser, url) as page:
            until(page, "#scope", "this gateway's pod alone")
            until(page, "#replicas td", "pod-a")
            assert violations(page) == []
            page.click("nav a[href='#release']")
            until(page, "#release", "may not read releases")
            until(page, "#commands pre", "inferdock release abort --target kubernetes --model org/demo")
            assert page.locator("#view-release button").count() == 5
            assert page.locator("#view-release button:visible, #reason:visible").count() == 0
            assert violations(page) == []
            shoot(page, "cluster")
            page.set_viewport_size({"width": 390, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            shoot(page, "cluster-phone")

    async with running_fake_kube() as fake:
        fake.forbidden = of_the_chart
        async with pod(tmp_path, fake) as url:
            await asyncio.to_thread(look, url)
