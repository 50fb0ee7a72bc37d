"""Laws over a set of Kubernetes objects, each named: what a schema cannot see.

The plan's own samples break most of them. A check takes all objects of an installation and gives a sentence for each
thing that is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Objects = Sequence[Mapping[str, Any]]
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def of_kind(objects: Objects, *kinds: str) -> list[Any]:
    """Objects of some kinds."""
    return [one for one in objects if one["kind"] in kinds]


def name(one: Mapping[str, Any]) -> str:
    """Kind and name, for sentences."""
    return f"{one['kind']} {one['metadata']['name']}"


def labels(one: Mapping[str, Any]) -> dict[str, str]:
    """An object's labels."""
    return dict(one.get("metadata", {}).get("labels") or {})


def pods(objects: Objects) -> Iterator[tuple[Any, Any]]:
    """(owner, pod template) of everything that makes pods."""
    for one in of_kind(objects, "Deployment", "StatefulSet"):
        yield one, one["spec"]["template"]


def containers(template: Mapping[str, Any]) -> list[Any]:
    """All containers of a pod."""
    return [*template["spec"].get("initContainers", ()), *template["spec"]["containers"]]


def engines(objects: Objects) -> Iterator[tuple[Any, Any, Any]]:
    """(owner, pod template, container) of everything that runs an engine: it has a GPU or our component's label."""
    for owner, template in pods(objects):
        main = template["spec"]["containers"][0]
        limits = main.get("resources", {}).get("limits", {})
        if "nvidia.com/gpu" in limits or labels(template).get("app.kubernetes.io/component") == "engine":
            yield owner, template, main


def chosen(selector: Mapping[str, str], objects: Objects) -> list[tuple[Any, Any]]:
    """Owners and templates whose pods a selector finds."""
    return [(owner, template) for owner, template in pods(objects) if selector.items() <= labels(template).items()]


def number(quantity: object) -> float:
    """A quantity as a number."""
    match = re.fullmatch(r"([0-9.]+)(m|[A-Za-z]*)", str(quantity))
    assert match, quantity
    return float(match[1]) * (0.001 if match[2] == "m" else _UNITS[match[2]])


# -- Objects that belong together --------------------------------------------------------------------------------------


def selectors_match_pods(objects: Objects) -> Iterator[str]:
    for owner, template in pods(objects):
        if not owner["spec"]["selector"]["matchLabels"].items() <= labels(template).items():
            yield f"{name(owner)}: its selector does not find its own pods, which the API refuses"


def no_two_owners_share_pods(objects: Objects) -> Iterator[str]:
    for owner, _ in pods(objects):
        for other, _ in chosen(owner["spec"]["selector"]["matchLabels"], objects):
            if other is not owner:
                yield f"{name(owner)} also selects the pods of {name(other)}"


def services_find_pods_and_ports(objects: Objects) -> Iterator[str]:
    for service in of_kind(objects, "Service"):
        found = chosen(service["spec"]["selector"], objects)
        if not found:
            yield f"{name(service)} selects no pods"
        for _, template in found:
            ports = [port for one in containers(template) for port in one.get("ports", ())]
            known = {port.get("name") for port in ports} | {port["containerPort"] for port in ports}
            for port in service["spec"]["ports"]:
                if port.get("targetPort", port["port"]) not in known:
                    yield f"{name(service)}: no container has the port {port.get('targetPort')}"


def every_server_has_a_service(objects: Objects) -> Iterator[str]:
    for owner, template in pods(objects):
        selectors = [service["spec"]["selector"] for service in of_kind(objects, "Service")]
        if not any(selector.items() <= labels(template).items() for selector in selectors):
            yield f"{name(owner)}: no Service leads to its pods"


def monitors_find_targets(objects: Objects) -> Iterator[str]:
    for monitor in of_kind(objects, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        found = [service for service in of_kind(objects, "Service") if wanted.items() <= labels(service).items()]
        if not found:
            yield f"{name(monitor)} selects no Service, by labels of Services and not of pods"
        for service in found:
            ports = {port.get("name") for port in service["spec"]["ports"]}
            for endpoint in monitor["spec"]["endpoints"]:
                if endpoint["port"] not in ports:
                    yield f"{name(monitor)}: {name(service)} has no port called {endpoint['port']}"
    for monitor in of_kind(objects, "PodMonitor"):
        if not chosen(monitor["spec"]["selector"]["matchLabels"], objects):
            yield f"{name(monitor)} selects no pods"


def no_pod_is_scraped_twice(objects: Objects) -> Iterator[str]:
    monitored = bool(of_kind(objects, "ServiceMonitor", "PodMonitor"))
    for owner, template in pods(objects):
        annotated = (template["metadata"].get("annotations") or {}).get("prometheus.io/scrape") == "true"
        if annotated and monitored:
            yield f"{name(owner)}: scraped by annotation and by a monitor, every token counts twice"


def budgets_let_pods_go(objects: Objects) -> Iterator[str]:
    for budget in of_kind(objects, "PodDisruptionBudget"):
        found = chosen(budget["spec"]["selector"]["matchLabels"], objects)
        if not found:
            yield f"{name(budget)} selects no pods"
        replicas = sum(_least_replicas(owner, objects) for owner, _ in found)
        least, most = budget["spec"].get("minAvailable"), budget["spec"].get("maxUnavailable")
        if most in (0, "0", "0%") or (least is not None and (least == "100%" or int(least) >= max(1, replicas))):
            yield f"{name(budget)}: of {replicas} replicas none may go, so drains of nodes hang"


def _least_replicas(owner: Mapping[str, Any], objects: Objects) -> int:
    for scaler in of_kind(objects, "ScaledObject"):
        if scaler["spec"]["scaleTargetRef"]["name"] == owner["metadata"]["name"]:
            return int(scaler["spec"].get("minReplicaCount", 0))
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        if scaler["spec"]["scaleTargetRef"]["name"] == owner["metadata"]["name"]:
            return int(scaler["spec"]["minReplicas"])
    return int(owner["spec"].get("replicas", 1))


def what_pods_name_exists(objects: Objects, *, given: Sequence[str] = ()) -> Iterator[str]:
    there = {(one["kind"], one["metadata"]["name"]) for one in objects}
    for owner, template in pods(objects):
        for kind, wanted in _named(template["spec"]):
            if (kind, wanted) not in there and wanted not in given and wanted != "default":
                yield f"{name(owner)} names {kind} {wanted}, which is not there"
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        wanted = [(binding["roleRef"]["kind"], binding["roleRef"]["name"])]
        wanted += [(subject["kind"], subject["name"]) for subject in binding["subjects"]]
        yield from (f"{name(binding)} names {one}, which is not there" for one in wanted if one not in there)


def _named(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "serviceAccountName" in spec:
        yield "ServiceAccount", spec["serviceAccountName"]
    volumes = {volume["name"]: volume for volume in spec.get("volumes", ())}
    for volume in volumes.values():
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
    for one in [*spec.get("initContainers", ()), *spec["containers"]]:
        for mount in one.get("volumeMounts", ()):
            if mount["name"] not in volumes:
                yield "Volume", mount["name"]
        for variable in one.get("env", ()):
            for kind, key in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
                if reference := variable.get("valueFrom", {}).get(key):
                    yield kind, reference["name"]
        for source in one.get("envFrom", ()):
            for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if key in source:
                    yield kind, source[key]["name"]


def policies_select_pods_and_ports(objects: Objects) -> Iterator[str]:
    for policy in of_kind(objects, "NetworkPolicy"):
        found = chosen(policy["spec"]["podSelector"]["matchLabels"], objects)
        if not found:
            yield f"{name(policy)} selects no pods"
        known = {port.get("name") for _, t in found for one in containers(t) for port in one.get("ports", ())}
        for rule in policy["spec"].get("ingress", ()):
            for port in rule.get("ports", ()):
                if isinstance(port["port"], str) and port["port"] not in known:
                    yield f"{name(policy)}: no selected pod has a port {port['port']}"


def routes_lead_to_services(objects: Objects) -> Iterator[str]:
    ports = {one["metadata"]["name"]: one["spec"]["ports"] for one in of_kind(objects, "Service")}
    for ingress in of_kind(objects, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                if backend["port"]["name"] not in [port["name"] for port in ports.get(backend["name"], ())]:
                    yield f"{name(ingress)} leads to {backend}, which is not there"
    for route in of_kind(objects, "HTTPRoute"):
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                if backend["port"] not in [port["port"] for port in ports.get(backend["name"], ())]:
                    yield f"{name(route)} leads to {backend}, which is not there"


def endpoints_say_what_they_serve(objects: Objects) -> Iterator[str]:
    """EndpointSlices have the labels of their Service; the gateway reads these."""
    for owner, template, _ in engines(objects):
        for service in of_kind(objects, "Service"):
            if service["spec"]["selector"].items() <= labels(template).items():
                missing = {"inferdock.io/model", "inferdock.io/revision"} - labels(service).keys()
                if missing:
                    yield f"{name(owner)}: {name(service)} lacks {sorted(missing)}"
