"""The chart at work: installed by Helm's SDK into a cluster in this process.

Behind its engine pods are simulated engines, and the real gateway runs on the configuration of its gateway pods; then a
release makes a revision of its template. Gateway and release have the rights of the chart's roles, and no others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys

import aiohttp
import pytest
import yaml

from inferdock.app.release_cluster import Cluster, cluster_place
from inferdock.config.settings import Settings
from inferdock.kube.resources import CONFIG_MAPS, DEPLOYMENTS
from inferdock.release.steps import Target
from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from tests.support.chart import CHART, chart_objects
from tests.support.fake_cluster import running_fake_cluster
from tests.support.fake_cluster_controllers import controllers
from tests.support.gateway import gateway_process
from tests.support.helm_cluster import install_by_command, running_helm_cluster
from tests.support.kubernetes_checks import of_kind

NAMESPACE = "ns"
SERVED = "org/Demo Model"
"""As no label can be."""
FIRST, SECOND = "1.0.0-aaaaaaaaaaaa", "1.1.0-bbbbbbbbbbbb"
VALUES = {
    "models": {
        "mistral-7b-instruct": None,
        "demo": {"version": "1.0.0", "revision": FIRST, "name": SERVED, "gpu": {"count": 0}, "replicas": 2},
    },
    "registry": {"url": "s3://models"},
    "releases": {"runner": {"enabled": True}},
    "gateway": {"replicaCount": 1, "config": {"balance": {"slow_start_s": 0}, "gateway": {"health_interval_s": 0.2}}},
}


def only(*accounts):
    """What the fake cluster forbids when just the chart's roles of these accounts may do anything."""
    roles = [one for one in of_kind(chart_objects(VALUES), "Role") if one["metadata"]["name"].endswith(accounts)]
    rules = [rule for role in roles for rule in role["rules"]]
    assert len(roles) == len(accounts)

    def forbidden(verb, resource, name):
        group = resource.api.rpartition("/")[0]
        fits = [rule for rule in rules if group in rule["apiGroups"] and resource.plural in rule["resources"]]
        named = [rule for rule in fits if not name or name in rule.get("resourceNames", [name])]
        return not any(verb in rule["verbs"] for rule in named)

    return forbidden


@contextlib.asynccontextmanager
async def pod_inside(pod):
    """A simulated engine for engines; nobody for gateways."""
    if pod["metadata"]["labels"]["app.kubernetes.io/component"] != "engine":
        yield "127.0.0.1", 9
        return
    async with running_sim(SimOptions(model=SERVED, ttft_s=0.01, itl_s=0.002)) as sim:
        yield "127.0.0.1", sim.port


def gateway_config(cluster):
    """The gateway pods' configuration, but for what a process outside of a pod needs."""
    config_map = cluster.store.get(CONFIG_MAPS, NAMESPACE, "llm-inference-gateway")
    config = yaml.safe_load(config_map["data"]["inferdock.yaml"])
    config["gateway"]["kubernetes"]["api_url"] = cluster.url
    config["gateway"]["host"] = "127.0.0.1"
    del config["state_dir"]
    return yaml.safe_dump(config)


async def ask(http, url):
    """The revision that answered."""
    body = {"model": SERVED, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "ignore_eos": True}
    async with http.post(f"{url}/v1/chat/completions", json=body) as answer:
        assert answer.status == 200, await answer.text()
        assert (await answer.json())["choices"][0]["message"]["content"]
        return answer.headers["x-inferdock-revision"]


async def until(holds, within_s=60.0):
    async with asyncio.timeout(within_s):
        while not await holds():
            await asyncio.sleep(0.05)


async def helm_test(url, model):
    """Exit status of what the pod of `helm test` runs."""
    environment = {"GATEWAY": url, "MODELS": json.dumps([model])}
    process = await asyncio.create_subprocess_exec(sys.executable, str(CHART / "files" / "test.py"), env=environment)
    return await process.wait()


@pytest.mark.timeout(240)
async def test_what_the_chart_installs_serves_and_takes_a_release(tmp_path):
    async with (
        running_fake_cluster() as cluster,
        running_helm_cluster(cluster) as front,
        controllers(cluster, namespace=NAMESPACE, backend=pod_inside),
        aiohttp.ClientSession() as http,
    ):
        status, _, said = await install_by_command(front, VALUES, tmp_path, "--timeout", "120")
        assert status == 0, said
        owners = cluster.store.record(DEPLOYMENTS, NAMESPACE, "llm-inference-demo-1-0-0-aaaaaaaaaaaa").owners
        assert "'helm'" in str(owners)  # as with the helm program, whatever this process is called
        cluster.forbidden = only("-gateway")
        async with gateway_process(tmp_path, [], config=gateway_config(cluster)) as url:

            async def serves():
                async with http.get(f"{url}/v1/models") as answer:
                    return [card["id"] for card in (await answer.json())["data"]] == [SERVED]

            await until(serves)
            assert await ask(http, url) == FIRST

            assert await helm_test(url, SERVED) == 0
            assert await helm_test(url, "nobody/knows") == 1

            cluster.forbidden = only("-gateway", "-release")
            place_of = Cluster(model=SERVED, namespace=NAMESPACE, context=None, api_url=cluster.url)
            async with cluster_place(Settings(state_dir=tmp_path / "state"), {}, place_of) as place:
                seen = await place.driver.observe()
                assert seen.of(FIRST) is not None
                assert seen.ready(FIRST) == 2
                await place.driver.start(Target(reference="demo@1.1.0", revision=SECOND, replicas=1))

                async def is_ready():
                    return (await place.driver.observe()).ready(SECOND) == 1

                await until(is_ready)
                await place.driver.shift({SECOND: 1.0, FIRST: 0.0})

                async def has_moved():
                    return await ask(http, url) == SECOND

                await until(has_moved)
                await place.driver.scale(FIRST, 0)
                await place.driver.retire(FIRST)
                assert await ask(http, url) == SECOND

            cluster.forbidden = lambda verb, resource, name: False
            # An upgrade after the release leaves both revisions as they are.
            status, _, said = await install_by_command(front, VALUES, tmp_path, "--timeout", "120")
            assert status == 0, said
            assert "Upgraded" in said
            deployments = cluster.store.all(DEPLOYMENTS, NAMESPACE)
            counts = {one["metadata"]["name"]: one["spec"].get("replicas", 1) for one in deployments}
            assert counts["llm-inference-demo-1-0-0-aaaaaaaaaaaa"] == 0
            assert counts["llm-inference-demo-1-1-0-bbbbbbbbbbbb"] == 1
            assert await ask(http, url) == SECOND
