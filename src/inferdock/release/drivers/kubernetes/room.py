"""How many more pods of a kind fit into a cluster now. Pure.

As the scheduler counts: what nodes can give, less what the pods on them have asked for. Affinities are left out, so the
answer is an upper bound. Where nodes are added when they are needed, there is no bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from inferdock.kube.resources import KubeObject
from inferdock.release.driver import Room

GROWING: Final = ("karpenter.sh/nodepool", "karpenter.sh/provisioner-name")
"""Labels of nodes that come and go with the pods."""
NODES_COME: Final = Room(replicas=None, reason="The cluster adds nodes when they are needed.")
_UNITS: Final = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}
_QUANTITY: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?(?:[eE][+-]?[0-9]{1,2})?)([numkMGTPE]|[KMGTPE]i)?")
_PODS: Final = "pods"
Amounts = Mapping[str, Decimal]


def room_for_pod(spec: object, nodes: Iterable[KubeObject], pods: Iterable[KubeObject]) -> Room:
    """How many pods of this spec fit beside all that run.

    Args:
        spec: of the pod.
        nodes: of the cluster.
        pods: of all namespaces.
    """
    spec, pods = _map(spec), list(pods)
    fitting = [node for node in nodes if _takes(node, spec)]
    if any(label in _map(_map(node.get("metadata")).get("labels")) for node in fitting for label in GROWING):
        return NODES_COME
    if not fitting:
        return Room(replicas=None, reason="No node takes such pods now, and nobody says whether one will come.")
    asked = {**_requests(spec), _PODS: Decimal(1)}
    count = sum(_fit(node, asked, pods) for node in fitting)
    wants = ", ".join(f"{name} {amount.normalize():f}" for name, amount in sorted(asked.items()) if name != _PODS)
    each = f"each asks for {wants}" if wants else "they ask for nothing"
    return Room(replicas=count, reason=f"{len(fitting)} nodes take such pods, and have room for {count} more; {each}.")


def _fit(node: KubeObject, asked: Amounts, pods: list[KubeObject]) -> int:
    name = _map(node.get("metadata")).get("name")
    free = {key: quantity(value) for key, value in _map(_map(node.get("status")).get("allocatable")).items()}
    for pod in pods:
        if _map(pod.get("spec")).get("nodeName") == name and not _is_over(pod):
            for key, amount in {**_requests(_map(pod.get("spec"))), _PODS: Decimal(1)}.items():
                free[key] = free.get(key, Decimal(0)) - amount
    counts = [free.get(key, Decimal(0)) // amount for key, amount in asked.items() if amount > 0]
    return max(0, int(min(counts)))


def _takes(node: KubeObject, spec: Mapping[str, Any]) -> bool:
    """Whether the scheduler would look at a node at all."""
    own, status = _map(node.get("spec")), _map(node.get("status"))
    labels = _map(_map(node.get("metadata")).get("labels"))
    conditions = [_map(one) for one in _list(status.get("conditions"))]
    ready = all(one.get("status") == "True" for one in conditions if one.get("type") == "Ready")
    selected = all(labels.get(key) == value for key, value in _map(spec.get("nodeSelector")).items())
    tolerations = [_map(one) for one in _list(spec.get("tolerations"))]
    taints = [_map(one) for one in _list(own.get("taints"))]
    tainted = any(one.get("effect") != "PreferNoSchedule" and not _tolerated(one, tolerations) for one in taints)
    return ready and selected and not tainted and not own.get("unschedulable")


def _tolerated(taint: Mapping[str, Any], tolerations: list[dict[str, Any]]) -> bool:
    for one in tolerations:
        same_key = one.get("key") == taint.get("key") or (not one.get("key") and one.get("operator") == "Exists")
        same_value = one.get("operator") == "Exists" or (one.get("value") or "") == (taint.get("value") or "")
        if same_key and same_value and one.get("effect") in (None, "", taint.get("effect")):
            return True
    return False


def _requests(spec: Mapping[str, Any]) -> dict[str, Decimal]:
    """What a pod asks for: all its containers together, or the largest of those that run before them."""
    total: dict[str, Decimal] = {}
    for container in _list(spec.get("containers")):
        for key, amount in _asked(container).items():
            total[key] = total.get(key, Decimal(0)) + amount
    for container in _list(spec.get("initContainers")):
        for key, amount in _asked(container).items():
            total[key] = max(total.get(key, Decimal(0)), amount)
    return total


def _asked(container: object) -> dict[str, Decimal]:
    resources = _map(_map(container).get("resources"))
    both = {**_map(resources.get("limits")), **_map(resources.get("requests"))}
    return {key: quantity(value) for key, value in both.items()}


def quantity(value: object) -> Decimal:
    """An amount as Kubernetes writes it; 0 for what is none."""
    found = _QUANTITY.fullmatch(str(value))
    if found is None:
        return Decimal(0)
    try:
        return Decimal(found[1]) * _UNITS[found[2] or ""]
    except InvalidOperation:
        return Decimal(0)


def _is_over(pod: KubeObject) -> bool:
    return _map(pod.get("status")).get("phase") in ("Succeeded", "Failed")


def _map(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
