"""The fake cluster lives as a real one does, as far as releases look at it."""

import asyncio
import contextlib

import pytest

from inferdock.kube.resources import DEPLOYMENTS, ENDPOINT_SLICES, HPAS, PODS, SCALED_OBJECTS, SERVICES
from inferdock.sim.testing import running_sim
from tests.support.fake_cluster import FakeCluster, running_fake_cluster
from tests.support.fake_cluster_controllers import Controllers, controllers
from tests.support.fake_cluster_pods import PodPlan

NS = "ns"


@contextlib.asynccontextmanager
async def living(replicas: int = 1, **options):
    async with running_fake_cluster() as cluster, controllers(cluster, **options) as at_work:
        labels = {"app": "llm", "inferdock.io/model": "demo"}
        container = {"name": "engine", "image": "engine:1", "ports": [{"containerPort": 8000}]}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "llm"}}, "template": template}
        cluster.store.create(DEPLOYMENTS, NS, {"metadata": {"name": "llm", "labels": labels}, "spec": spec})
        port = {"name": "http", "port": 8000}
        service = {"selector": {"app": "llm"}, "clusterIP": "None", "ports": [port]}
        cluster.store.create(SERVICES, NS, {"metadata": {"name": "llm", "labels": labels}, "spec": service})
        yield cluster, at_work


async def until(holds, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)


def ends(cluster: FakeCluster, condition: str = "ready") -> int:
    slices = cluster.store.all(ENDPOINT_SLICES, NS)
    return sum(end["conditions"][condition] for one in slices for end in one["endpoints"])


def status(cluster: FakeCluster) -> dict:
    return cluster.store.get(DEPLOYMENTS, NS, "llm").get("status", {})


def condition(cluster: FakeCluster, kind: str) -> dict:
    return next((one for one in status(cluster).get("conditions", ()) if one["type"] == kind), {})


async def test_a_deployment_gets_pods_and_its_service_their_endpoints():
    async with living(2) as (cluster, _):
        await until(lambda: ends(cluster) == 2 and status(cluster).get("readyReplicas") == 2)
        (one,) = cluster.store.all(ENDPOINT_SLICES, NS)
        assert one["metadata"]["labels"]["inferdock.io/model"] == "demo"
        assert one["ports"] == [{"name": "http", "protocol": "TCP", "port": 8000}]


async def test_a_pod_that_goes_drains_first():
    async with living(2, drain_s=0.3) as (cluster, at_work):
        await until(lambda: ends(cluster) == 2)
        cluster.scale(NS, "llm", 1)
        await until(lambda: ends(cluster, "terminating") == 1)
        assert (ends(cluster, "serving"), len(at_work.ready)) == (2, 1)
        await until(lambda: len(cluster.store.all(PODS, NS)) == 1)


async def test_a_new_template_replaces_pods_and_never_leaves_too_few():
    async with living(2) as (cluster, at_work):
        await until(lambda: ends(cluster) == 2)
        new = {"spec": {"template": {"metadata": {"labels": {"v": "2"}}}}}
        at_work.plan = lambda pod: PodPlan(startup_s=0.05)
        cluster.store.patch(DEPLOYMENTS, NS, "llm", new)
        fewest = 2

        def replaced() -> bool:
            nonlocal fewest
            fewest = min(fewest, len(at_work.ready))
            pods = cluster.store.all(PODS, NS)
            return [pod["metadata"]["labels"].get("v") for pod in pods] == ["2", "2"] and ends(cluster) == 2

        await until(replaced)
        assert fewest == 2


@pytest.mark.parametrize(
    ("trouble", "where"),
    [
        ("Unschedulable", lambda pod: pod["status"]["conditions"][0]["message"]),
        ("CrashLoopBackOff", lambda pod: pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["message"]),
        ("ImagePullBackOff", lambda pod: pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"]),
        ("InitFailed", lambda pod: pod["status"]["initContainerStatuses"][0]["lastState"]["terminated"]["message"]),
    ],
    ids=["unschedulable", "crash", "image", "init"],
)
async def test_a_pod_in_trouble_says_why_and_its_deployment_gives_up(trouble, where):
    options = {"plan": lambda pod: PodPlan(trouble=trouble, message="because"), "deadline_s": 0.1}
    async with living(1, **options) as (cluster, _):
        await until(lambda: condition(cluster, "Progressing").get("reason") == "ProgressDeadlineExceeded")
        (pod,) = cluster.store.all(PODS, NS)
        assert where(pod) == "because"
        assert ends(cluster) == 0


async def test_only_so_many_pods_fit():
    async with living(3, room=2) as (cluster, at_work):
        await until(lambda: ends(cluster) == 2)
        pending = [pod for pod in cluster.store.all(PODS, NS) if pod["status"]["phase"] == "Pending"]
        assert "Insufficient" in pending[0]["status"]["conditions"][0]["message"]
        at_work.room = 3
        await until(lambda: ends(cluster) == 3)


async def test_an_autoscaler_keeps_its_minimum_and_may_be_paused():
    async with living(1) as (cluster, _):
        scaled = {"metadata": {"name": "s"}, "spec": {"scaleTargetRef": {"name": "llm"}, "minReplicaCount": 2}}
        cluster.store.create(SCALED_OBJECTS, NS, scaled)
        await until(lambda: ends(cluster) == 2)
        paused = {"metadata": {"annotations": {"autoscaling.keda.sh/paused-replicas": "0"}}}
        cluster.store.patch(SCALED_OBJECTS, NS, "s", paused)
        await until(lambda: not cluster.store.all(PODS, NS))


async def test_a_pod_autoscaler_is_off_at_zero():
    async with living(1) as (cluster, at_work):
        spec = {"scaleTargetRef": {"name": "llm"}, "minReplicas": 2, "maxReplicas": 4}
        cluster.store.create(HPAS, NS, {"metadata": {"name": "h"}, "spec": spec})
        await until(lambda: ends(cluster) == 2)
        at_work.demand["llm"] = 9
        await until(lambda: ends(cluster) == 4)
        cluster.scale(NS, "llm", 0)
        await until(lambda: not cluster.store.all(PODS, NS))


async def test_pods_may_have_real_servers_behind_them_and_get_new_ones_when_they_crash():
    started = 0

    @contextlib.asynccontextmanager
    async def sim(pod):
        nonlocal started
        started += 1
        async with running_sim() as server:
            yield "127.0.0.1", int(server.url.rpartition(":")[2])

    async with living(2, backend=sim) as (cluster, at_work):
        assert isinstance(at_work, Controllers)
        await until(lambda: ends(cluster) == 2)
        slices = cluster.store.all(ENDPOINT_SLICES, NS)
        assert len({one["ports"][0]["port"] for one in slices}) == 2
        at_work.crash(at_work.ready[0])
        await until(lambda: started == 3 and ends(cluster) == 2)


async def test_pods_go_with_their_deployment():
    async with living(2) as (cluster, _):
        await until(lambda: ends(cluster) == 2)
        cluster.store.delete(DEPLOYMENTS, NS, "llm")
        await until(lambda: not cluster.store.all(PODS, NS) and ends(cluster) == 0)
