"""What checks ask a cluster: objects of a release of the chart, and whether they are as they should be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from inferdock.app.verify.ground import LackingError
from inferdock.app.verify.target import Target
from inferdock.kube.objects_api import KubeObjects
from inferdock.kube.resources import PODS, KubeObject, Resource

CRDS: Final = Resource(
    "apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)


def api(target: Target) -> KubeObjects:
    """The cluster's API.

    Raises:
        LackingError: the target has none.
    """
    if target.cluster is None:
        raise LackingError("Needs a cluster with the chart: give --target kubernetes.")
    return target.cluster


async def of_release(target: Target, resource: Resource, component: str = "") -> list[KubeObject]:
    """Objects of a kind that the release made."""
    part = f",app.kubernetes.io/component={component}" if component else ""
    selector = f"app.kubernetes.io/instance={target.release}{part}"
    found, _ = await api(target).list(resource, target.namespace, selector=selector)
    return found


async def pods_in(target: Target, namespace: str) -> list[KubeObject]:
    """All pods of a namespace."""
    return (await api(target).list(PODS, namespace))[0]


def condition(one: KubeObject, name: str) -> bool:
    """Whether a condition of an object's status is True."""
    found = (one.get("status") or {}).get("conditions") or []
    return any(entry.get("type") == name and entry.get("status") == "True" for entry in found)


def name_of(one: KubeObject) -> str:
    """Its name."""
    return str(one["metadata"]["name"])


def names(found: Sequence[KubeObject]) -> str:
    """Their names, for a sentence."""
    return ", ".join(map(name_of, found)) or "none"


def labels(one: KubeObject) -> dict[str, Any]:
    """Its labels."""
    return one["metadata"].get("labels") or {}
