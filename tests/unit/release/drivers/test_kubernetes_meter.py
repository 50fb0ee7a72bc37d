"""Figures of several gateways added up: restarts, new pods, pods that go or do not answer."""

from __future__ import annotations

import pytest

from inferdock.domain.errors import UnreachableError
from inferdock.kube.access import ClusterAccess
from inferdock.kube.errors import ApiUnreachable
from inferdock.kube.objects_api import KubeObjects
from inferdock.kube.resources import PODS
from inferdock.release.drivers.kubernetes.meter import KubernetesMeter, plus
from inferdock.release.drivers.kubernetes.views import Pod
from inferdock.release.judging.figures import Counts, Histogram
from inferdock.telemetry import names
from tests.support.fake_cluster import FakeCluster, running_fake_cluster

READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


class Gateways:
    """What each pod counts; None: it does not answer."""

    def __init__(self, cluster: FakeCluster) -> None:
        self._cluster = cluster
        self.counts: dict[str, int | None] = {}

    def add(self, name: str, requests: int | None, *, ready: bool = True) -> None:
        self.counts[name] = requests
        labels = {"app.kubernetes.io/component": "gateway"}
        status = READY if ready else {"phase": "Running"}
        self._cluster.store.create(PODS, "ns", {"metadata": {"name": name, "labels": labels}, "status": status})

    def remove(self, name: str) -> None:
        self._cluster.store.delete(PODS, "ns", name)

    async def read(self, pod: Pod) -> str:
        count = self.counts[pod.metadata.name]
        if count is None:
            raise ApiUnreachable("It does not answer.")
        labels = 'model="m",revision="a",route="/v1/chat/completions",status="200"'
        return f"{names.REQUESTS}{{{labels}}} {count}\n"


async def total(meter: KubernetesMeter) -> int:
    return (await meter.read()).get("a", Counts()).requests


async def test_a_sum_only_grows_whatever_becomes_of_the_pods() -> None:
    async with running_fake_cluster() as cluster, KubeObjects(ClusterAccess(cluster.url)) as api:
        gateways = Gateways(cluster)
        meter = KubernetesMeter(api, namespace="ns", model="m", reader=gateways)
        with pytest.raises(UnreachableError, match="No gateway is ready"):
            await meter.read()
        gateways.add("g1", 100)
        gateways.add("g2", 50)
        gateways.add("g3", None, ready=False)
        assert await total(meter) == 150
        gateways.counts["g1"] = 110
        assert await total(meter) == 160
        gateways.counts["g1"] = 3  # its container began anew
        assert await total(meter) == 163
        gateways.counts["g2"] = None  # it does not answer for a while
        assert await total(meter) == 163
        gateways.counts["g2"] = 60
        assert await total(meter) == 173
        gateways.add("g4", 0)
        gateways.remove("g1")
        assert await total(meter) == 173
        gateways.counts["g4"] = 7
        assert await total(meter) == 180


async def test_a_gateway_that_was_never_read_must_answer() -> None:
    async with running_fake_cluster() as cluster, KubeObjects(ClusterAccess(cluster.url)) as api:
        gateways = Gateways(cluster)
        meter = KubernetesMeter(api, namespace="ns", model="m", reader=gateways)
        gateways.add("g1", 100)
        gateways.add("g2", None)
        with pytest.raises(UnreachableError, match="does not answer"):
            await meter.read()


def test_different_buckets_do_not_add_up() -> None:
    one = Counts(ttft=Histogram((1.0,), (1, 0)))
    with pytest.raises(UnreachableError, match="different buckets"):
        plus(one, Counts(ttft=Histogram((2.0,), (1, 0))))
    assert plus(one, one).ttft == Histogram((1.0,), (2, 0))
    assert plus(one, Counts(requests=1)).ttft == one.ttft
