"""Laws over pods: what they run, what they may, how they begin and how they end; see `kubernetes_checks`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.support.kubernetes_checks import Objects, containers, engines, labels, name, number, of_kind, pods

_INSTANCES = Path(__file__).resolve().parents[2] / "helm" / "llm-inference" / "files" / "instances.yaml"


def images_are_pinned(objects: Objects) -> Iterator[str]:
    for owner, template in pods(objects):
        for one in containers(template):
            tag = one["image"].partition("@")[0].rpartition("/")[2].partition(":")[2]
            if tag in ("", "latest"):
                yield f"{name(owner)}: image {one['image']} says nothing about what runs"


def pods_are_confined(objects: Objects) -> Iterator[str]:
    for owner, template in pods(objects):
        outer = template["spec"].get("securityContext", {})
        if not outer.get("runAsNonRoot") or outer.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{name(owner)}: may run as root, or without seccomp"
        for one in containers(template):
            inner = one.get("securityContext", {})
            if inner.get("allowPrivilegeEscalation", True) or not inner.get("readOnlyRootFilesystem"):
                yield f"{name(owner)}: container {one['name']} may gain rights or write to its root"
            if inner.get("capabilities", {}).get("drop") != ["ALL"]:
                yield f"{name(owner)}: container {one['name']} keeps capabilities"


def containers_ask_for_what_they_use(objects: Objects) -> Iterator[str]:
    for owner, template in pods(objects):
        for one in containers(template):
            resources = one.get("resources", {})
            for key, where in (("cpu", "requests"), ("memory", "requests"), ("memory", "limits")):
                if key not in resources.get(where, {}):
                    yield f"{name(owner)}: container {one['name']} says no {where} of {key}"


def engines_have_shared_memory(objects: Objects) -> Iterator[str]:
    for owner, template, main in engines(objects):
        mounts = {mount["mountPath"]: mount["name"] for mount in main.get("volumeMounts", ())}
        volumes = {volume["name"]: volume for volume in template["spec"].get("volumes", ())}
        volume = volumes.get(mounts.get("/dev/shm", ""), {})
        if volume.get("emptyDir", {}).get("medium") != "Memory":
            yield f"{name(owner)}: /dev/shm is the runtime's 64 MiB, too small for vLLM"
        elif number(volume["emptyDir"]["sizeLimit"]) < 160 * 2**20:
            yield f"{name(owner)}: /dev/shm is below 160 MiB"


def loading_is_not_taken_for_death(objects: Objects) -> Iterator[str]:
    for owner, _, main in engines(objects):
        startup, live = main.get("startupProbe"), main.get("livenessProbe", {})
        if startup is None:
            killed = live.get("initialDelaySeconds", 0) + live.get("periodSeconds", 10) * live.get(
                "failureThreshold", 3
            )
            yield f"{name(owner)}: no startupProbe, a load of more than {killed} s is killed again and again"
        elif startup["periodSeconds"] * startup["failureThreshold"] < 600:
            yield f"{name(owner)}: a load of ten minutes is killed"
        if live.get("failureThreshold", 3) < 10 or live.get("timeoutSeconds", 1) < 5:
            yield f"{name(owner)}: a busy engine is taken for dead"


def no_command_that_images_lack(objects: Objects) -> Iterator[str]:
    """curl, wget, jq and shells; probes are httpGet, hooks are `sleep` or our own command."""
    words = re.compile(r"\b(curl|wget|jq|awk|/bin/sh|bash)\b")
    for owner, template in pods(objects):
        for one in containers(template):
            hooks = [
                one.get("lifecycle", {}),
                *(one.get(f"{kind}Probe", {}) for kind in ("startup", "readiness", "liveness")),
            ]
            found = words.findall(json.dumps([hooks, one.get("command"), one.get("args")]))
            if found:
                yield f"{name(owner)}: container {one['name']} needs {sorted(set(found))}"


def pods_leave_in_order(objects: Objects) -> Iterator[str]:
    """A wait for the endpoint's removal before SIGTERM, and a grace period over the sum of what is waited for."""
    for owner, template in pods(objects):
        component = labels(template).get("app.kubernetes.io/component")
        main = template["spec"]["containers"][0]
        if component == "redis":
            continue
        wait = main.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        if wait < 1:
            yield f"{name(owner)}: SIGTERM comes before its endpoint is gone"
        drain = _drain_timeout(owner, template, objects)
        if drain is None:
            yield f"{name(owner)}: nothing tells it to finish its requests on SIGTERM"
        elif template["spec"].get("terminationGracePeriodSeconds", 30) < wait + drain + 5:
            yield f"{name(owner)}: killed while it drains"


def _drain_timeout(owner: Mapping[str, Any], template: Mapping[str, Any], objects: Objects) -> float | None:
    config = configuration(template, objects)
    return None if config is None else float(config["drain_timeout_s"])


def configuration(template: Mapping[str, Any], objects: Objects) -> Any:
    """The inferdock.yaml that a pod reads; None where there is none."""
    for volume in template["spec"].get("volumes", ()):
        wanted = volume.get("configMap", {}).get("name")
        for one in of_kind(objects, "ConfigMap"):
            if one["metadata"]["name"] == wanted and "inferdock.yaml" in one["data"]:
                return yaml.safe_load(one["data"]["inferdock.yaml"])
    return None


def spot_pods_are_gone_in_time(objects: Objects) -> Iterator[str]:
    for owner, template in pods(objects):
        affinity = json.dumps(template["spec"].get("affinity", {})).lower()
        if "spot" in affinity and template["spec"].get("terminationGracePeriodSeconds", 30) > 100:
            yield f"{name(owner)}: takes the whole spot notice of 120 s"


def updates_need_no_spare_card(objects: Objects) -> Iterator[str]:
    for owner, _, main in engines(objects):
        if "nvidia.com/gpu" in main["resources"].get("limits", {}):
            rolling = owner["spec"].get("strategy", {}).get("rollingUpdate", {})
            if rolling.get("maxSurge", "25%") != 0 and owner["spec"].get("strategy", {}).get("type") != "Recreate":
                yield f"{name(owner)}: an update waits for ever where no card is to spare"


def pods_fit_on_their_nodes(objects: Objects, types: Sequence[str] = ()) -> Iterator[str]:
    nodes = yaml.safe_load(_INSTANCES.read_text())
    for owner, template, main in engines(objects):
        for kind in types or _instance_types(template):
            node, requests = nodes[kind], main["resources"]["requests"]
            if number(requests["memory"]) > (node["memoryGiB"] * 0.925 * 1024 - 355 - 11 * node["pods"]) * 2**20:
                yield f"{name(owner)}: {requests['memory']} do not fit on {kind}"
            if number(requests.get("cpu", 0)) > node["cpu"] - 0.23 - 0.0025 * (node["cpu"] - 4):
                yield f"{name(owner)}: {requests['cpu']} processors do not fit on {kind}"


def _instance_types(template: Mapping[str, Any]) -> list[str]:
    node = template["spec"].get("affinity", {}).get("nodeAffinity", {})
    terms = node.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", ())
    expressions = [one for term in terms for one in term["matchExpressions"]]
    return [v for one in expressions if one["key"] == "node.kubernetes.io/instance-type" for v in one["values"]]


def changed_settings_restart_pods(objects: Objects) -> Iterator[str]:
    for owner, template in pods(objects):
        reads = any("configMap" in volume for volume in template["spec"].get("volumes", ()))
        reads = reads or "configMapKeyRef" in json.dumps(template)
        if reads and "checksum/config" not in (template["metadata"].get("annotations") or {}):
            yield f"{name(owner)}: an edit of its ConfigMap changes nothing until it is restarted by hand"


def every_setting_is_read(objects: Objects) -> Iterator[str]:
    """A key of a ConfigMap that no pod mounts or refers to is a setting without effect."""
    text = json.dumps([template for _, template in pods(objects)])
    for one in of_kind(objects, "ConfigMap"):
        if "inferdock.io/template" in labels(one) or "grafana_dashboard" in labels(one):
            continue
        mounted = f'"configMap": {{"name": "{one["metadata"]["name"]}"}}' in text
        for key in one["data"]:
            if not mounted and f'"key": "{key}"' not in text:
                yield f"{name(one)}: nobody reads {key}"


def redis_stays_below_its_limit(objects: Objects) -> Iterator[str]:
    for owner, template in pods(objects):
        main = template["spec"]["containers"][0]
        words = [*main.get("command", ()), *main.get("args", ())]
        if "redis-server" not in words:
            continue
        most = words[words.index("--maxmemory") + 1].lower()
        size = float(most.rstrip("gmb")) * (2**30 if "g" in most else 2**20 if "m" in most else 1)
        if size > 0.8 * number(main["resources"]["limits"]["memory"]):
            yield f"{name(owner)}: maxmemory is so near to the limit that it is killed"
        if "--requirepass" not in words:
            yield f"{name(owner)}: no password"
        if "readinessProbe" not in main or "livenessProbe" not in main:
            yield f"{name(owner)}: no probes"
