"""The chart of a checkout, rendered, and what must hold between its objects. The faults are pure functions."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from inferdock.app.render import CHART_NAME, helm, objects, read_values, render
from inferdock.app.render import merged as merged_values
from inferdock.app.verify.ground import LackingError
from inferdock.app.verify.target import Target
from inferdock.domain.errors import ConfigError
from inferdock.telemetry import names
from inferdock.telemetry.table import TABLE

Object = Mapping[str, Any]
SCALED: Final = {"engine": {"autoscaling": {"enabled": True, "minReplicas": 1, "maxReplicas": 10}}}
"""Values with the autoscaler on, as in `k8s/`."""
PRODUCTION: Final = "values-prod.yaml"
RATIOS: Final = frozenset({names.ENGINE_KV_USAGE})
LOAD: Final = frozenset({names.ENGINE_RUNNING, names.ENGINE_WAITING})
HOLD_S: Final = 30
COOLDOWN_S: Final = 300
_SELECTOR: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{")
_HOST: Final = re.compile(r"https?://([^/:]+)")
KNOWN: Final = frozenset(name for metric in TABLE for name in metric.every_sample())
"""Names of samples that exist."""


def root(target: Target) -> Path:
    """The checkout.

    Raises:
        LackingError: there is none.
    """
    if target.checkout is None:
        raise LackingError("Needs a checkout of Inferdock: run it in one, or give --checkout.")
    return target.checkout


async def rendered(target: Target, *files: str, values: Mapping[str, Any] = SCALED) -> list[dict[str, Any]]:
    """Objects of the checkout's chart, with value files of the chart and further values.

    Raises:
        LackingError: Helm's SDK is not installed.
        ConfigError: the chart refuses the values, or gives no objects.
    """
    chart = root(target) / "helm" / CHART_NAME
    try:
        helm()
    except ConfigError as error:
        raise LackingError(str(error)) from error

    def make() -> list[dict[str, Any]]:
        whole = merged_values(read_values([chart / file for file in files], []), values)
        return objects(render(chart, whole, name="verify", namespace="default"))

    return await asyncio.to_thread(make)


def of_kind(found: Iterable[Object], *kinds: str) -> list[Object]:
    """Objects of these kinds."""
    return [one for one in found if one["kind"] in kinds]


def component(one: Object) -> str:
    """Which part of the platform an object belongs to."""
    return str((one["metadata"].get("labels") or {}).get("app.kubernetes.io/component", ""))


def name_of(one: Object) -> str:
    """Kind and name, for sentences."""
    return f"{one['kind']} {one['metadata']['name']}"


def pod_of(deployment: Object) -> Mapping[str, Any]:
    """The pod's spec of a Deployment."""
    spec: Mapping[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


# -- Scaling ---------------------------------------------------------------------------------------------------------


def scaler_faults(found: Sequence[Object]) -> list[str]:
    """What is wrong with the ScaledObjects of a rendering."""
    scalers = of_kind(found, "ScaledObject")
    targets = {one["metadata"]["name"] for one in of_kind(found, "Deployment")}
    faults = [] if scalers else ["The chart gives no ScaledObject."]
    for scaler in scalers:
        spec, name = scaler["spec"], name_of(scaler)
        if spec["scaleTargetRef"]["name"] not in targets:
            faults.append(f"{name} scales {spec['scaleTargetRef']['name']}, which is not there.")
        if not spec["minReplicaCount"] <= spec["maxReplicaCount"]:
            faults.append(f"{name} has bounds that contradict each other.")
        if not spec["triggers"]:
            faults.append(f"{name} has no trigger.")
        faults += [f"{name}: {fault}" for trigger in spec["triggers"] for fault in _trigger_faults(trigger)]
        if not any(set(queried(trigger)) >= LOAD for trigger in spec["triggers"]):
            faults.append(f"{name}: no trigger counts what runs and what waits.")
    return faults


def queried(trigger: Mapping[str, Any]) -> list[str]:
    """Metrics that a trigger asks for."""
    return _SELECTOR.findall(trigger["metadata"].get("query", ""))


def _trigger_faults(trigger: Mapping[str, Any]) -> Iterator[str]:
    asked, meta = queried(trigger), trigger["metadata"]
    threshold = float(meta["threshold"])
    if not asked:
        yield f"trigger {trigger.get('name')} asks for no metric."
    for name in asked:
        if name not in KNOWN:
            yield f"there is no metric {name}."
    if threshold <= 0:
        yield f"a threshold of {threshold:g} is never right."
    if RATIOS & set(asked):
        if threshold > 1:
            yield f"the threshold {threshold:g} is never reached by a figure from 0 to 1."
        if trigger.get("metricType") != "Value":
            yield "a mean is divided by the number of replicas once more: it needs metricType Value."
    if meta.get("ignoreNullValues") != "false":
        yield "no data counts as zero."
    host = _HOST.match(str(meta.get("serverAddress", "")))
    if host is None or "." not in host[1]:
        yield "KEDA asks from its own namespace, so the address of Prometheus needs its namespace."


def pace_faults(found: Sequence[Object]) -> list[str]:
    """Whether replicas come after half a minute and go after five, one in a minute."""
    faults = [] if of_kind(found, "ScaledObject") else ["The chart gives no ScaledObject."]
    for scaler in of_kind(found, "ScaledObject"):
        behavior = scaler["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        up, down = (
            behavior["scaleUp"]["stabilizationWindowSeconds"],
            behavior["scaleDown"]["stabilizationWindowSeconds"],
        )
        if up < HOLD_S:
            faults.append(f"{name_of(scaler)} scales up after {up} s.")
        if down < COOLDOWN_S:
            faults.append(f"{name_of(scaler)} scales down after {down} s.")
    return faults


# -- Leaving ---------------------------------------------------------------------------------------------------------


def budget_faults(found: Sequence[Object]) -> list[str]:
    """Deployments of engine and gateway without a budget, and budgets that let no pod go."""
    budgets = of_kind(found, "PodDisruptionBudget")
    least = {
        one["spec"]["scaleTargetRef"]["name"]: one["spec"]["minReplicaCount"] for one in of_kind(found, "ScaledObject")
    }
    faults = []
    for deployment in served(found):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        own = [one for one in budgets if one["spec"]["selector"]["matchLabels"].items() <= labels.items()]
        replicas = deployment["spec"].get("replicas", least.get(deployment["metadata"]["name"], 1))
        if not own:
            faults.append(f"{name_of(deployment)} has no budget.")
        faults += [f"{name_of(one)} never lets a pod go." for one in own if not _lets_go(one["spec"], replicas)]
    return faults


def served(found: Sequence[Object]) -> list[Object]:
    """The Deployments that requests go through."""
    return [one for one in of_kind(found, "Deployment") if component(one) in ("engine", "gateway")]


def _lets_go(spec: Mapping[str, Any], replicas: int) -> bool:
    if "maxUnavailable" in spec:
        return str(spec["maxUnavailable"]) not in ("0", "0%")
    least = spec.get("minAvailable", 0)
    return least < replicas if isinstance(least, int) else least != "100%"


def grace_faults(found: Sequence[Object], *, most_s: int | None = None) -> list[str]:
    """Pods that are killed before they have drained, or get requests after SIGTERM.

    Args:
        most_s: that a pod may take, in seconds; None: as long as it likes.
    """
    deployments = served(found)
    faults = [] if deployments else ["The chart gives neither engine nor gateway."]
    for deployment in deployments:
        pod, name = pod_of(deployment), name_of(deployment)
        waits = [_before_the_signal(container) for container in pod["containers"]]
        drain = configuration(pod, found).get("drain_timeout_s")
        grace = pod.get("terminationGracePeriodSeconds", 30)
        if drain is None:
            faults.append(f"{name}: nothing says how long it may drain.")
        elif grace < max(waits) + drain:
            faults.append(f"{name} is killed after {grace} s, and may need {max(waits)} + {drain} s.")
        if min(waits) <= 0:
            faults.append(f"{name} gets SIGTERM while requests are still sent to it.")
        if most_s is not None and grace > most_s:
            faults.append(f"{name} may take {grace} s, of which there are {most_s}.")
    return faults


def _before_the_signal(container: Mapping[str, Any]) -> int:
    hook = (container.get("lifecycle") or {}).get("preStop") or {}
    return int(hook.get("sleep", {}).get("seconds", 0))


def configuration(pod: Mapping[str, Any], found: Sequence[Object]) -> dict[str, Any]:
    """The `inferdock.yaml` that a pod reads; empty where it reads none."""
    wanted = {volume["configMap"]["name"] for volume in pod.get("volumes", ()) if "configMap" in volume}
    for one in of_kind(found, "ConfigMap"):
        if one["metadata"]["name"] in wanted and "inferdock.yaml" in (one.get("data") or {}):
            document: dict[str, Any] = yaml.safe_load(one["data"]["inferdock.yaml"]) or {}
            return document
    return {}
