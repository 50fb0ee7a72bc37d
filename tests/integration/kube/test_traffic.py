"""A gateway divides requests as the traffic ConfigMap says, whatever the API server and the people who write do."""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter

import aiohttp
import pytest

from inferdock.config.settings import KubernetesSettings
from inferdock.domain.shadow import Shadow
from inferdock.kube.access import ClusterAccess, cluster_access
from inferdock.kube.api import KubeClient
from inferdock.kube.naming import label_value, traffic_key
from inferdock.kube.resources import CONFIG_MAPS, ENDPOINT_SLICES
from inferdock.kube.source import follow
from inferdock.kube.traffic import traffic_value
from inferdock.kube.traffic_source import TrafficSource
from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from inferdock.telemetry.logs import EventLog
from tests.support.fake_cluster import FakeCluster, running_fake_cluster
from tests.support.fake_kube import endpoint, endpoint_slice
from tests.support.gateway import gateway_process, running_gateway

NS, NAME = "ns", "inferdock-traffic"


def write(cluster: FakeCluster, **weights: dict[str, float] | str | None) -> None:
    """Set the weights of some models: text as it is, None takes the key away."""
    data = {
        traffic_key(model): traffic_value(model, value) if isinstance(value, dict) else value
        for model, value in weights.items()
    }
    if cluster.store.get(CONFIG_MAPS, NS, NAME) is None:
        data = {key: text for key, text in data.items() if text is not None}
        cluster.store.create(CONFIG_MAPS, NS, {"metadata": {"name": NAME}, "data": data})
    else:
        cluster.store.patch(CONFIG_MAPS, NS, NAME, {"data": data})


class Follower:
    """A traffic source at work: what it set, how long it paused, what it logged."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.weights: dict[str, dict[str, float]] = {}
        self.shadows: dict[str, Shadow | None] = {}
        self.calls = 0
        self.names: dict[str, str] = {}
        self.pauses: list[float] = []
        self.log = bytearray()
        self.refused = ""

    def set_traffic(self, model, weights, shadow) -> None:
        """Remember, or refuse the model that ``refused`` names."""
        if model == self.refused:
            raise ValueError("not this one")
        self.calls += 1
        self.weights[model] = dict(weights)
        self.shadows[model] = shadow

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0.002)

    def lines(self, event: str) -> list[dict]:
        return [line for line in map(json.loads, self.log.splitlines()) if line["event"] == event]

    async def until(self, holds) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await asyncio.sleep(0.001)

    async def until_weights(self, **weights: dict[str, float]) -> None:
        await self.until(lambda: {model: kept for model, kept in self.weights.items() if kept} == weights)


@contextlib.asynccontextmanager
async def following(cluster: FakeCluster):
    follower = Follower(cluster)
    log = EventLog(follower.log.extend, level="debug")
    async with KubeClient(ClusterAccess(cluster.url)) as client:
        source = TrafficSource(client, namespace=NS, name=NAME, log=log, sleep=follower.pause)
        task = asyncio.create_task(source.run(follower.set_traffic, lambda names: follower.names.update(names)))
        await asyncio.wait_for(source.tried.wait(), 20)
        try:
            yield follower
            log.flush()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_weights_come_change_and_go_with_their_key_and_with_the_object():
    async with running_fake_cluster() as cluster, following(cluster) as follower:
        write(cluster, m={"a": 1})
        await follower.until_weights(m={"a": 1})
        write(cluster, m={"a": 90, "b": 10}, n={"x": 1})
        await follower.until_weights(m={"a": 90, "b": 10}, n={"x": 1})
        write(cluster, n=None)
        await follower.until_weights(m={"a": 90, "b": 10})
        cluster.store.delete(CONFIG_MAPS, NS, NAME)
        await follower.until_weights()


async def test_copies_come_and_go_beside_the_weights():
    async with running_fake_cluster() as cluster, following(cluster) as follower:
        write(cluster, m=traffic_value("m", {"a": 1}, Shadow("b", 0.25)))
        await follower.until(lambda: follower.shadows.get("m") == Shadow("b", 0.25))
        assert follower.weights["m"] == {"a": 1}
        write(cluster, m={"a": 1})
        await follower.until(lambda: follower.shadows["m"] is None)
        assert follower.weights["m"] == {"a": 1}


async def test_other_config_maps_are_not_heard_of():
    async with running_fake_cluster() as cluster, following(cluster) as follower:
        data = {traffic_key("m"): traffic_value("m", {"z": 1})}
        cluster.store.create(CONFIG_MAPS, NS, {"metadata": {"name": "other"}, "data": data})
        write(cluster, m={"a": 1})
        await follower.until_weights(m={"a": 1})
        assert follower.calls == 1
        assert {asked.query["fieldSelector"] for asked in cluster.requests} == {f"metadata.name={NAME}"}


async def test_a_broken_key_changes_nothing_and_holds_up_nobody():
    async with running_fake_cluster() as cluster, following(cluster) as follower:
        write(cluster, m={"a": 1}, n={"x": 1})
        await follower.until_weights(m={"a": 1}, n={"x": 1})
        write(cluster, m="{oops", n={"y": 1})
        await follower.until_weights(m={"a": 1}, n={"y": 1})
        write(cluster, m={"b": 1})
        await follower.until_weights(m={"b": 1}, n={"y": 1})
    first, last = follower.lines("traffic left out")
    assert traffic_key("m") in first["why"]
    assert last["why"] == "none any more"


async def test_weights_that_the_gateway_refuses_leave_the_former_ones():
    async with running_fake_cluster() as cluster, following(cluster) as follower:
        write(cluster, m={"a": 1})
        await follower.until_weights(m={"a": 1})
        follower.refused = "m"
        write(cluster, m={"b": 1}, n={"x": 1})
        await follower.until_weights(m={"a": 1}, n={"x": 1})
    assert "not this one" in follower.lines("traffic left out")[0]["why"]


async def test_while_the_api_is_away_the_last_weights_hold_and_then_the_new_ones():
    async with running_fake_cluster() as cluster, following(cluster) as follower:
        write(cluster, m={"a": 1})
        await follower.until_weights(m={"a": 1})
        await cluster.go_away()
        write(cluster, m={"b": 1})
        await follower.until(lambda: len(follower.pauses) > 5)
        assert follower.weights == {"m": {"a": 1}}
        cluster.away = False
        await follower.until_weights(m={"b": 1})


async def test_what_happens_while_the_history_expires_is_not_missed():
    async with running_fake_cluster() as cluster, following(cluster) as follower:
        write(cluster, m={"a": 1})
        await follower.until_weights(m={"a": 1})
        await cluster.end_watches("gone")
        write(cluster, m={"b": 1})
        await cluster.expire()
        await follower.until_weights(m={"b": 1})


async def test_an_object_that_went_while_nobody_looked_is_gone():
    async with running_fake_cluster() as cluster, following(cluster) as follower:
        write(cluster, m={"a": 1})
        await follower.until_weights(m={"a": 1})
        cluster.store.delete(CONFIG_MAPS, NS, NAME)
        await cluster.expire()
        await follower.until_weights()


async def test_of_many_updates_the_last_counts():
    async with running_fake_cluster() as cluster, following(cluster) as follower:
        for number in range(1, 500):
            write(cluster, m={"a": number, "b": 500 - number})
            if number % 50 == 0:
                await cluster.end_watches("cut")
        await follower.until_weights(m={"a": 499, "b": 1})
        assert follower.calls < 500


async def test_without_the_right_to_look_endpoints_are_followed_all_the_same():
    async with running_fake_cluster() as cluster:
        cluster.forbidden = lambda verb, resource, name: resource == CONFIG_MAPS
        async with following(cluster) as follower:
            await follower.until(lambda: len(follower.pauses) > 3)
        (line,) = follower.lines("traffic not followed")
        assert "ConfigMap" in line["reason"]


async def test_after_any_mixture_of_faults_the_weights_are_those_of_the_cluster():
    chance = random.Random(11)
    async with running_fake_cluster() as cluster, following(cluster) as follower:
        for _ in range(80):
            model = chance.choice("mno")
            value = chance.choice([None, "{oops", {"a": 1.0}, {"a": chance.randint(1, 9), "b": 1.0}])
            write(cluster, **{model: value})
            fault = chance.choice(
                ["none", "none", "end", "cut", "gone", "expire", "refuse", "drop", "delete", "nonsense"]
            )
            if fault == "expire":
                await cluster.expire()
            elif fault == "refuse":
                cluster.fault("refuse", chance.randint(1, 3), code=chance.choice([401, 403, 410, 429, 500]))
            elif fault in ("drop", "nonsense"):
                cluster.fault(fault, watch=False)
            elif fault == "delete":
                cluster.store.delete(CONFIG_MAPS, NS, NAME)
            elif fault != "none":
                await cluster.end_watches(fault)
            await asyncio.sleep(0.001 * chance.randint(0, 5))
        cluster.faults.clear()
        write(cluster, m={"a": 2}, n=None, o={"z": 1})
        await follower.until_weights(m={"a": 2}, o={"z": 1})


@pytest.mark.parametrize(
    "line",
    [b'{"type":"ADDED","object":{"metadata":{},"data":{"k":7}}}\n', b'{"type":"MODIFIED","object":[]}\n', b"oops\n"],
    ids=["data", "object", "line"],
)
async def test_nonsense_in_the_watch_leads_to_a_new_list(line):
    async with running_fake_cluster() as cluster, following(cluster) as follower:
        write(cluster, m={"a": 1})
        await follower.until_weights(m={"a": 1})
        cluster.send_line(line)
        write(cluster, m={"b": 1})
        await follower.until_weights(m={"b": 1})


# -- With a gateway -----------------------------------------------------------------------------------------------


def of_sim(revision: str, url: str) -> dict:
    port = int(url.rpartition(":")[2])
    end = endpoint("127.0.0.1", f"pod-{label_value(revision)}", ready=True)
    name = f"s-{label_value(revision).lower()}"
    return endpoint_slice(name, end, model="m", revision=label_value(revision), ports=[{"name": "http", "port": port}])


@contextlib.asynccontextmanager
async def gateway_on(cluster: FakeCluster):
    settings = KubernetesSettings(enabled=True, namespace=NS, port_name="http")
    async with running_gateway([]) as gateway:
        log = EventLog(gateway.log.extend)
        server = gateway.server
        access = cluster_access(cluster.url, {})
        task = asyncio.create_task(
            follow(settings, access, log=log, changed=server.replace_endpoints, set_traffic=server.set_traffic)
        )
        try:
            yield gateway
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def revisions(url: str, count: int) -> Counter[str]:
    """Which revisions answered so many requests."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    seen: Counter[str] = Counter()
    async with aiohttp.ClientSession() as session:
        for _ in range(count):
            async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                assert response.status == 200
                seen[response.headers["x-inferdock-revision"]] += 1
    return seen


async def test_requests_follow_the_weights():
    async with running_sim(SimOptions(model="m")) as old, running_sim(SimOptions(model="m")) as new:
        async with running_fake_cluster() as cluster, gateway_on(cluster) as gateway:
            for revision, sim in (("r1", old), ("r2", new)):
                cluster.store.create(ENDPOINT_SLICES, NS, of_sim(revision, sim.url))
            write(cluster, m={"r1": 90, "r2": 10})
            await gateway.until_ready(2)
            assert await revisions(gateway.url, 50) == {"r1": 45, "r2": 5}


async def test_a_gateway_that_starts_in_the_middle_of_a_release_divides_from_its_first_request():
    async with running_sim(SimOptions(model="m")) as old, running_sim(SimOptions(model="m")) as new:
        async with running_fake_cluster() as cluster:
            for revision, sim in (("r1", old), ("r2", new)):
                cluster.store.create(ENDPOINT_SLICES, NS, of_sim(revision, sim.url))
            write(cluster, m={"r1": 1, "r2": 0})
            cluster.slow_s = 0.05
            async with gateway_on(cluster) as gateway:
                await gateway.until_ready(2)
                assert await revisions(gateway.url, 20) == {"r1": 20}


async def test_a_revision_that_no_label_can_hold_is_called_by_its_name():
    async with running_sim(SimOptions(model="m")) as old, running_sim(SimOptions(model="m")) as new:
        async with running_fake_cluster() as cluster, gateway_on(cluster) as gateway:
            for revision, sim in (("1.0.0+a", old), ("1.0.0+b", new)):
                cluster.store.create(ENDPOINT_SLICES, NS, of_sim(revision, sim.url))
            await gateway.until_ready(2)
            write(cluster, m={"1.0.0+a": 1, "1.0.0+b": 0})
            async with asyncio.timeout(20):
                while {row["revision"] for row in gateway.endpoints()} != {"1.0.0+a", "1.0.0+b"}:
                    await asyncio.sleep(0.01)
            await gateway.until_ready(2)
            assert await revisions(gateway.url, 10) == {"1.0.0+a": 10}


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_flip_is_seen_by_the_command_in_about_a_second(tmp_path, workers):
    quick = SimOptions(model="m", ttft_s=0.002, itl_s=0.001)
    async with running_sim(quick) as old, running_sim(quick) as new, running_fake_cluster() as cluster:
        for revision, sim in (("r1", old), ("r2", new)):
            cluster.store.create(ENDPOINT_SLICES, NS, of_sim(revision, sim.url))
        write(cluster, m={"r1": 1, "r2": 0})
        config = f"""
gateway:
  health_interval_s: 0.2
  workers: {workers}
  kubernetes: {{enabled: true, api_url: "{cluster.url}", namespace: ns, port_name: http}}
keys: {{check: never}}
"""
        async with gateway_process(tmp_path, [], config=config) as url:
            await _until_both_ready(url)
            assert await revisions(url, 20) == {"r1": 20}
            took = [await _flipped(cluster, url, *way) for way in (("r1", "r2"), ("r2", "r1"), ("r1", "r2"))]
            print(f"{workers} workers: the last request of the old revision began {max(took):.3f} s after the write")
            assert max(took) < 10


async def _flipped(cluster: FakeCluster, url: str, old: str, new: str) -> float:
    """Seconds from the write until the begin of the last request that the old revision got, over four clients."""
    answers: list[tuple[float, float, str]] = []

    async def ask() -> None:
        while True:
            began = time.perf_counter()
            (revision,) = await revisions(url, 1)
            answers.append((began, time.perf_counter(), revision))

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    try:
        await asyncio.sleep(0.1)
        written = time.perf_counter()
        write(cluster, m={new: 1, old: 0})
        async with asyncio.timeout(30):
            while len(answers) < 50 or {revision for _, _, revision in answers[-40:]} != {new}:
                await asyncio.sleep(0.01)
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    assert {revision for _, ended, revision in answers if ended < written} <= {old}
    return max((began for began, _, revision in answers if revision == old), default=written) - written


async def _until_both_ready(url: str) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(30):
        while True:
            async with session.get(f"{url}/metrics") as response:
                text = await response.text()
            if sum(line.endswith((" 1.0", " 1")) for line in text.splitlines()
                   if line.startswith("llm_gateway_endpoint_ready")) == 2:  # fmt: skip
                return
            await asyncio.sleep(0.05)
