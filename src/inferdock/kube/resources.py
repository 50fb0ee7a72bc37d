"""The kinds of Kubernetes objects that we read and write, and where the API serves them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from inferdock.domain.errors import ConfigError

KubeObject = dict[str, Any]
"""An object as the API writes it in JSON. Whether it has a name and text labels was checked, its inside was not."""

MAX_NAME_CHARS = 253
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?")
"""What may stand in a path; the API server says what each kind allows. Colons: names of roles and pods with a port."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object.

    Attributes:
        api: group and version, for instance ``apps/v1``; ``v1`` alone is the core group.
        plural: how it is called in paths, for instance ``deployments``.
        kind: how it is called in objects, for instance ``Deployment``.
        namespaced: whether it lives in a namespace.
    """

    api: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def full_name(self) -> str:
        """As roles and error texts name it, for instance ``deployments.apps``."""
        group = self.api.rpartition("/")[0]
        return f"{self.plural}.{group}" if group else self.plural

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """Path of the collection, of an object, or of a part of it.

        Raises:
            ConfigError: a name cannot be one.
        """
        root = f"/apis/{self.api}" if "/" in self.api else f"/api/{self.api}"
        parts = [root, *(("namespaces", segment(namespace)) if self.namespaced else ()), self.plural]
        parts += [segment(part) for part in (name, subresource) if part]
        return "/".join(parts)


def segment(name: str) -> str:
    """A name as one segment of a path.

    Raises:
        ConfigError: it cannot be the name of an object.
    """
    if len(name) > MAX_NAME_CHARS or not _NAME.fullmatch(name):
        raise ConfigError(f"`{name[:80]}` is no name of a Kubernetes object or namespace.")
    return quote(name, safe=":")


DEPLOYMENTS = Resource("apps/v1", "deployments", "Deployment")
SERVICES = Resource("v1", "services", "Service")
CONFIG_MAPS = Resource("v1", "configmaps", "ConfigMap")
PODS = Resource("v1", "pods", "Pod")
EVENTS = Resource("v1", "events", "Event")
NODES = Resource("v1", "nodes", "Node", namespaced=False)
LEASES = Resource("coordination.k8s.io/v1", "leases", "Lease")
ENDPOINT_SLICES = Resource("discovery.k8s.io/v1", "endpointslices", "EndpointSlice")
HPAS = Resource("autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
PDBS = Resource("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget")
SCALED_OBJECTS = Resource("keda.sh/v1alpha1", "scaledobjects", "ScaledObject")
POD_MONITORS = Resource("monitoring.coreos.com/v1", "podmonitors", "PodMonitor")

ALL = (
    DEPLOYMENTS,
    SERVICES,
    CONFIG_MAPS,
    PODS,
    EVENTS,
    NODES,
    LEASES,
    ENDPOINT_SLICES,
    HPAS,
    PDBS,
    SCALED_OBJECTS,
    POD_MONITORS,
)


def of_kind(api: str, kind: str) -> Resource | None:
    """The resource of an object's ``apiVersion`` and ``kind``; None for one that we do not know."""
    return next((one for one in ALL if (one.api, one.kind) == (api, kind)), None)
