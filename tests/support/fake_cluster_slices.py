"""EndpointSlices of a Service, as the controller of a real cluster makes them."""

from __future__ import annotations

from dataclasses import dataclass

from inferdock.kube.resources import KubeObject

BY, BY_US = "endpointslice.kubernetes.io/managed-by", "endpointslice-controller.k8s.io"


@dataclass(frozen=True)
class Insides:
    """Whether a pod serves, and where its server really is."""

    serves: bool
    address: tuple[str, int] | None


def slices_of(service: KubeObject, pods: list[tuple[KubeObject, Insides]]) -> dict[str, KubeObject]:
    """By name; one slice for each set of ports, as there are when pods mean different ports by one name."""
    by_port: dict[int | None, list[tuple[KubeObject, Insides]]] = {}
    for pod, insides in pods:
        by_port.setdefault(insides.address[1] if insides.address else None, []).append((pod, insides))
    return dict(_slice(service, real, members) for real, members in (by_port or {None: []}).items())


def _slice(service: KubeObject, real: int | None, members: list[tuple[KubeObject, Insides]]) -> tuple[str, KubeObject]:
    """A Service's labels are copied, its annotations are not; without pods there is an empty slice without ports."""
    name = f"{service['metadata']['name']}-{real or 'x'}"
    labels = {**(service["metadata"].get("labels") or {}), BY: BY_US}
    labels["kubernetes.io/service-name"] = service["metadata"]["name"]
    ports = service["spec"].get("ports") or [{"port": 80}]
    return name, {
        "metadata": {"name": name, "labels": labels},
        "addressType": "IPv4",
        "endpoints": [_endpoint(pod, insides) for pod, insides in members],
        "ports": [_port(one, real if not index else None) for index, one in enumerate(ports)] if members else [],
    }


def _endpoint(pod: KubeObject, insides: Insides) -> KubeObject:
    meta, leaving = pod["metadata"], "deletionTimestamp" in pod["metadata"]
    serves = insides.serves
    return {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": serves and not leaving, "serving": serves, "terminating": leaving},
        "targetRef": {"kind": "Pod", "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
    }


def _port(port: KubeObject, real: int | None) -> KubeObject:
    target = port.get("targetPort", port.get("port"))
    number = real or (target if isinstance(target, int) else port.get("port"))
    return {"name": port.get("name", ""), "protocol": port.get("protocol", "TCP"), "port": number}


def is_ready(pod: KubeObject) -> bool:
    """Of a pod that a test made itself."""
    conditions = pod.get("status", {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
