"""How many more pods fit, as the scheduler counts."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from inferdock.kube.resources import CONFIG_MAPS
from inferdock.release.drivers.kubernetes.room import quantity, room_for_pod
from tests.support.cluster_platform import NEW, NS, OLD, cluster_platform

GPU = "nvidia.com/gpu"
SPEC = {
    "containers": [{"resources": {"limits": {GPU: 1}, "requests": {"memory": "16Gi", "cpu": "500m"}}}],
    "initContainers": [{"resources": {"requests": {"memory": "1Gi", "cpu": 2}}}],
    "nodeSelector": {"kind": "gpu"},
    "tolerations": [{"key": GPU, "operator": "Exists"}],
}


def node(name: str = "n1", gpus: int = 4, **changes: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"kind": "gpu", **changes.pop("labels", {})}},
        "spec": changes.pop("spec", {}),
        "status": {"allocatable": {GPU: str(gpus), "memory": "64Gi", "cpu": "32", "pods": "110", **changes}},
    }


def pod(on: str, gpus: int = 1, phase: str = "Running") -> dict[str, Any]:
    spec = {"nodeName": on, "containers": [{"resources": {"limits": {GPU: gpus}}}]}
    return {"spec": spec, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("nodes", "pods", "count"),
    [
        ([node()], [], 4),
        ([node()], [pod("n1"), pod("n1"), pod("n2", 9), pod("n1", 3, "Succeeded")], 2),
        ([node(), node("n2", 2)], [pod("n1", 4)], 2),
        ([node(memory="20Gi")], [], 1),
        ([node(cpu="1")], [], 0),
        ([node(pods="1")], [pod("n1", 0)], 0),
        ([node(gpus=0)], [], 0),
        ([node(labels={"kind": "cpu"})], [], None),
        ([node(spec={"unschedulable": True})], [], None),
        ([node(spec={"taints": [{"key": GPU, "effect": "NoSchedule"}]})], [], 4),
        ([node(spec={"taints": [{"key": "other", "effect": "NoSchedule"}]})], [], None),
        ([node(spec={"taints": [{"key": "other", "effect": "PreferNoSchedule"}]})], [], 4),
        ([node()], [pod("n1", 9)], 0),
        ([], [], None),
        ([{"metadata": 3, "status": []}, node()], [{"spec": None}, {}], 4),
    ],
)
def test_what_fits(nodes: list, pods: list, count: int | None) -> None:
    found = room_for_pod(SPEC, nodes, pods)
    assert found.replicas == count
    assert count is None or str(count) in found.reason


def test_where_nodes_come_when_they_are_needed_there_is_no_bound() -> None:
    assert room_for_pod(SPEC, [node(labels={"karpenter.sh/nodepool": "gpus"})], []).replicas is None


@pytest.mark.parametrize(
    ("text", "amount"),
    [("500m", "0.5"), (4, "4"), ("1.5Gi", str(1.5 * 2**30)), ("2k", "2000"), ("1e3", "1000"), ("x", "0"), ("-1", "0"),
     (None, "0"), ("1" * 99, "0")],
)  # fmt: skip
def test_amounts(text: object, amount: str) -> None:
    assert quantity(text) == Decimal(amount)


async def test_the_driver_asks_the_cluster() -> None:
    async with cluster_platform(work={"room": 3}) as platform:
        store = platform.cluster.store
        template = store.get(CONFIG_MAPS, NS, "llm-demo-template")
        assert template is not None
        limits = "image: engine:1\n          resources: {limits: {nvidia.com/gpu: 1}}"
        text = template["data"]["objects.yaml"].replace("image: engine:1", limits)
        store.patch(CONFIG_MAPS, NS, "llm-demo-template", {"data": {"objects.yaml": text}})
        await platform.driver().start(OLD)
        await platform.until_ready(OLD, 2)
        assert (await platform.driver().room(NEW)).replicas == 1
        platform.cluster.forbidden = lambda verb, resource, name: resource.kind == "Node"
        assert (await platform.driver().room(NEW)).replicas is None
        platform.cluster.forbidden = lambda verb, resource, name: False
        store.create(CONFIG_MAPS, "kube-system", {"metadata": {"name": "cluster-autoscaler-status"}})
        assert "adds nodes" in (await platform.driver().room(NEW)).reason
