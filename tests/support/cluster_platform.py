"""A model in a fake cluster as the chart installs it: template, first revision, gateways; and releases of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from inferdock.kube.access import ClusterAccess
from inferdock.kube.naming import label_value
from inferdock.kube.objects_api import KubeObjects
from inferdock.kube.resources import CONFIG_MAPS, DEPLOYMENTS, PODS, SCALED_OBJECTS, KubeObject, of_kind
from inferdock.release.drivers.kubernetes.driver import TRAFFIC, KubernetesDriver
from inferdock.release.records.cluster_names import MODEL, REFERENCE, REVISION, TEMPLATE, revision_name
from inferdock.release.steps import Target
from tests.support.fake_cluster import FakeCluster, running_fake_cluster
from tests.support.fake_cluster_controllers import Controllers, controllers

NS = "ns"
NAME = "org/Demo"
OLD = Target(reference="demo@1.0.0", revision="1.0.0-aaaaaaaaaaaa", replicas=2)
NEW = Target(reference="demo@1.1.0", revision="1.1.0-bbbbbbbbbbbb", replicas=2)
HELM = {"meta.helm.sh/release-name": "llm", "meta.helm.sh/release-namespace": NS}


def objects(
    model: str = NAME, *, scaler: str = "", least: int = 1, most: int = 10, floor: int = 0, deadline_s: int = 600
) -> list[KubeObject]:
    """What one revision needs, with placeholders, like the chart's.

    Args:
        model: name that clients use.
        scaler: ``keda``, ``hpa`` or "".
        least, most: bounds of the scaler.
        floor: replicas of a second Deployment; 0: there is none.
        deadline_s: without progress.
    """
    labels = {MODEL: label_value(model), REVISION: "@@REVISION@@", "app.kubernetes.io/component": "engine"}
    meta = {"name": "llm-demo-@@NAME@@", "labels": labels, "annotations": {REFERENCE: "@@REFERENCE@@"}}
    container = {
        "name": "engine",
        "image": "engine:1",
        "args": ["--model", "@@REFERENCE@@"],
        "ports": [{"name": "http", "containerPort": 8000}],
    }

    def deployment(capacity: str, name: str, **notes: str) -> KubeObject:
        own = {**labels, "inferdock.io/capacity": capacity}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {**meta, "name": name, "annotations": {**meta["annotations"], **notes}},  # type: ignore[dict-item]
            "spec": {
                "progressDeadlineSeconds": deadline_s,
                "selector": {"matchLabels": own},
                "template": {"metadata": {"labels": own}, "spec": {"containers": [container]}},
            },
        }

    name = meta["name"]
    made = [
        deployment("any", str(name)),
        {"apiVersion": "v1", "kind": "Service", "metadata": meta,
         "spec": {"clusterIP": "None", "selector": labels, "ports": [{"name": "http", "port": 8000}]}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"inferdock.yaml": "model: {}\n"}},
        {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta,
         "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}}},
    ]  # fmt: skip
    if floor:
        made.append(deployment("on-demand", f"{name}-floor", **{"inferdock.io/replicas": str(floor)}))
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    if scaler == "keda":
        spec = {"scaleTargetRef": target, "minReplicaCount": least, "maxReplicaCount": most, "triggers": []}
        made.append({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": meta, "spec": spec})
    if scaler == "hpa":
        spec = {"scaleTargetRef": target, "minReplicas": least, "maxReplicas": most}
        made.append({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": meta, "spec": spec})
    return made


def filled(value: Any, target: Target) -> Any:
    """As Helm renders the first revision from the same template."""
    if isinstance(value, dict):
        return {key: filled(one, target) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, target) for one in value]
    if isinstance(value, str):
        names = {"@@REVISION@@": label_value(target.revision), "@@REFERENCE@@": target.reference}
        for placeholder, text in {**names, "@@NAME@@": revision_name(target.revision)}.items():
            value = value.replace(placeholder, text)
    return value


@dataclass
class ClusterPlatform:
    """One model in the fake cluster.

    Attributes:
        cluster: the API server.
        api: a client of it.
        work: its controllers.
        model: name that clients use.
        made_of: the template.
    """

    cluster: FakeCluster
    api: KubeObjects
    work: Controllers
    model: str = NAME
    made_of: list[KubeObject] = field(default_factory=list)

    def driver(self, **options: Any) -> KubernetesDriver:
        """As a process makes one."""
        return KubernetesDriver(self.api, namespace=NS, model=self.model, **options)

    async def install(self, target: Target, *, replicas: int | None = None, weights: bool = True) -> None:
        """What `helm install` makes: the first revision; and the weights that an earlier release left."""
        for one in filled(self.made_of, target):
            resource = of_kind(one["apiVersion"], one["kind"])
            assert resource is not None
            one["metadata"]["annotations"] = {**(one["metadata"].get("annotations") or {}), **HELM}
            if resource == DEPLOYMENTS:
                one["spec"]["replicas"] = target.replicas if replicas is None else replicas
            self.cluster.store.create(resource, NS, one, "helm")
        if weights:
            await self.driver().shift({target.revision: 1.0})

    @property
    def deployments(self) -> dict[str, KubeObject]:
        """By name."""
        return {one["metadata"]["name"]: one for one in self.cluster.store.all(DEPLOYMENTS, NS)}

    def deployment(self, target: Target) -> KubeObject:
        """The main one of a revision."""
        return self.deployments[f"llm-demo-{revision_name(target.revision)}"]

    def scaled_object(self, target: Target) -> KubeObject:
        """Of a revision."""
        found = self.cluster.store.get(SCALED_OBJECTS, NS, f"llm-demo-{revision_name(target.revision)}")
        assert found is not None
        return found

    def pods(self, target: Target) -> list[KubeObject]:
        """Of a revision, those that leave among them."""
        return self.cluster.store.all(PODS, NS, f"{REVISION}={label_value(target.revision)}")

    async def until(self, holds: Callable[[], Any], within_s: float = 30.0) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(within_s):
            while not holds():
                await asyncio.sleep(0.02)

    async def until_ready(self, target: Target, count: int, within_s: float = 30.0) -> None:
        """Wait until a revision has so many ready replicas."""
        async with asyncio.timeout(within_s):
            while (await self.driver().observe()).ready(target.revision) != count:
                await asyncio.sleep(0.02)

    async def until_gone(self, target: Target, within_s: float = 30.0) -> None:
        """Wait until nothing of a revision runs."""
        async with asyncio.timeout(within_s):
            while (await self.driver().observe()).of(target.revision) is not None:
                await asyncio.sleep(0.02)


def add_template(cluster: FakeCluster, model: str, made_of: list[KubeObject], name: str = "llm-demo-template") -> None:
    """The ConfigMap that the chart writes."""
    labels = {TEMPLATE: "true", MODEL: label_value(model)}
    body = {
        "metadata": {"name": name, "labels": labels},
        "data": {"objects.yaml": yaml.safe_dump(json.loads(json.dumps(made_of)))},
    }
    cluster.store.create(CONFIG_MAPS, NS, body, "helm")


@contextlib.asynccontextmanager
async def cluster_platform(
    *, model: str = NAME, work: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[ClusterPlatform]:
    """A cluster with the template of one model; ``options`` are of :func:`objects`, ``work`` of the controllers."""
    made_of = objects(model, **options)
    async with (
        running_fake_cluster() as cluster,
        controllers(cluster, namespace=NS, **(work or {})) as at_work,
        KubeObjects(ClusterAccess(cluster.url), answer_timeout_s=5) as api,
    ):
        add_template(cluster, model, made_of)
        yield ClusterPlatform(cluster, api, at_work, model, made_of)


__all__ = ["NAME", "NEW", "NS", "OLD", "TRAFFIC", "ClusterPlatform", "add_template", "cluster_platform", "objects"]
