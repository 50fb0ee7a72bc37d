"""Checks of what the chart left in a cluster, through the cluster's API. They read only, or ask for a dry run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from inferdock.app.verify.chart import component, of_kind, root
from inferdock.app.verify.cluster import api, condition, of_release
from inferdock.app.verify.ground import check, faultless, verdict
from inferdock.app.verify.target import Target
from inferdock.kube.errors import ApiRefused
from inferdock.kube.resources import DEPLOYMENTS, PODS, KubeObject, Resource
from inferdock.verify.check import Check, Evidence, Need

MANAGER: Final = "inferdock-verify"
HTTP: Final = "http"
MOST: Final = 1024 * 1024
_CLUSTER_WIDE: Final = frozenset({"ClusterRole", "ClusterRoleBinding", "PriorityClass", "Namespace"})


def resource_of(one: Mapping[str, Any]) -> Resource:
    """Where the API serves an object of this kind."""
    kind = one["kind"]
    lower = kind.lower()
    plural = f"{lower[:-1]}ies" if lower.endswith("y") else f"{lower}es" if lower.endswith("s") else f"{lower}s"
    return Resource(one["apiVersion"], plural, kind, namespaced=kind not in _CLUSTER_WIDE)


async def applied(target: Target) -> Evidence:
    """The API server would take every object of `k8s/base` (a dry run on the server)."""
    folder = root(target) / "k8s" / "base"
    found = await asyncio.to_thread(manifests, folder)
    faults = [] if found else [f"{folder} holds no objects."]
    for one in found:
        body = {key: value for key, value in one.items() if key not in ("apiVersion", "kind")}
        body["metadata"] = {**one["metadata"], "namespace": target.namespace}
        name = one["metadata"]["name"]
        try:
            await api(target).apply(
                resource_of(one), target.namespace, name, body, manager=MANAGER, force=True, dry_run=True
            )
        except ApiRefused as error:
            faults.append(f"{one['kind']} {name}: {error}")
    command = "kubectl apply --server-side --dry-run=server -k k8s/base"
    return faultless(faults, f"The API server would take all {len(found)} objects.", command, objects=len(found))


def manifests(folder: Path) -> list[dict[str, Any]]:
    """The objects of a folder of manifests."""
    texts = [path.read_text() for path in sorted(folder.glob("*.yaml")) if path.name != "kustomization.yaml"]
    return [document for text in texts for document in yaml.safe_load_all(text) if document]


async def pods(target: Target) -> Evidence:
    """Every pod of the release runs and is ready."""
    found = await of_release(target, PODS)
    bad = [one["metadata"]["name"] for one in found if not _ready(one)]
    faults = [] if found else [f"No pod of release {target.release} in namespace {target.namespace}."]
    faults += [f"Not running and ready: {', '.join(bad[:5])}."] if bad else []
    command = f"kubectl get pods -n {target.namespace} -l app.kubernetes.io/instance={target.release}"
    return faultless(faults, f"{len(found)} pods run and are ready.", command, pods=len(found))


def _ready(pod: KubeObject) -> bool:
    return (pod.get("status") or {}).get("phase") == "Running" and condition(pod, "Ready")


async def reached(target: Target) -> Evidence:
    """A gateway's pod answers through the API server with the list of models, as by a port-forward."""
    gateways = [one for one in await of_release(target, PODS) if component(one) == "gateway" and _ready(one)]
    if not gateways:
        return verdict(False, f"No gateway of release {target.release} is ready.")
    name = gateways[0]["metadata"]["name"]
    text = await api(target).read_pod(target.namespace, name, _port(gateways[0]), "v1/models", most=MOST)
    names = [entry["id"] for entry in json.loads(text)["data"]]
    command = f"kubectl port-forward -n {target.namespace} svc/{target.release} 8080:80"
    return verdict(bool(names), f"Pod {name} lists {', '.join(names) or 'no model'}.", command, models=len(names))


def _port(pod: KubeObject) -> int:
    ports = [port for one in pod["spec"]["containers"] for port in one.get("ports") or ()]
    return next((int(port["containerPort"]) for port in ports if port.get("name") == HTTP), 8080)


async def deployed(target: Target) -> Evidence:
    """Every Deployment of the release has as many pods available as it wants, of its newest template."""
    found = of_kind(await of_release(target, DEPLOYMENTS), "Deployment")
    faults = [] if found else [f"No Deployment of release {target.release} in namespace {target.namespace}."]
    for one in found:
        wanted, status = one["spec"].get("replicas", 1), one.get("status") or {}
        there = min(status.get("availableReplicas", 0), status.get("updatedReplicas", 0))
        if there < wanted:
            faults.append(f"{one['metadata']['name']} has {there} of {wanted} replicas.")
    command = f"kubectl get deployments -n {target.namespace} -l app.kubernetes.io/instance={target.release}"
    return faultless(faults, f"{len(found)} Deployments have all their replicas.", command, deployments=len(found))


BASE: Final[tuple[Check[Target], ...]] = (
    check("1.2.apply", "the API server takes the base objects", applied, Need.CHECKOUT, Need.CLUSTER, limit_s=60),
    check("1.2.pods", "every pod of the release runs and is ready", pods, Need.CLUSTER),
    check("1.2.forward", "a gateway's pod can be reached through the cluster", reached, Need.CLUSTER),
)
CHART: Final[tuple[Check[Target], ...]] = (
    check("1.3.install", "what the chart installed is available", deployed, Need.CLUSTER),
)
