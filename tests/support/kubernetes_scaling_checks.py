"""Laws over autoscalers and their queries; and the list of all laws. See `kubernetes_checks`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from inferdock.telemetry import names
from tests.support.kubernetes_checks import (
    Objects,
    budgets_let_pods_go,
    endpoints_say_what_they_serve,
    every_server_has_a_service,
    monitors_find_targets,
    name,
    no_pod_is_scraped_twice,
    no_two_owners_share_pods,
    of_kind,
    policies_select_pods_and_ports,
    routes_lead_to_services,
    selectors_match_pods,
    services_find_pods_and_ports,
)
from tests.support.kubernetes_pod_checks import (
    changed_settings_restart_pods,
    containers_ask_for_what_they_use,
    engines_have_shared_memory,
    every_setting_is_read,
    images_are_pinned,
    loading_is_not_taken_for_death,
    no_command_that_images_lack,
    pods_are_confined,
    pods_fit_on_their_nodes,
    pods_leave_in_order,
    redis_stays_below_its_limit,
    spot_pods_are_gone_in_time,
    updates_need_no_spare_card,
)

METRICS = {value for key, value in vars(names).items() if key.isupper() and isinstance(value, str)}


def triggers(objects: Objects) -> Iterator[tuple[Any, Any]]:
    """(ScaledObject, trigger) of all Prometheus triggers."""
    for scaler in of_kind(objects, "ScaledObject"):
        yield from ((scaler, one) for one in scaler["spec"]["triggers"] if one["type"] == "prometheus")


def scalers_find_deployments(objects: Objects) -> Iterator[str]:
    there = {one["metadata"]["name"] for one in of_kind(objects, "Deployment")}
    for scaler in of_kind(objects, "ScaledObject", "HorizontalPodAutoscaler"):
        if scaler["spec"]["scaleTargetRef"]["name"] not in there:
            yield f"{name(scaler)}: there is no such Deployment"


def replicas_have_one_owner(objects: Objects) -> Iterator[str]:
    scaled = {
        one["spec"]["scaleTargetRef"]["name"] for one in of_kind(objects, "ScaledObject", "HorizontalPodAutoscaler")
    }
    for one in of_kind(objects, "Deployment"):
        if one["metadata"]["name"] in scaled and "replicas" in one["spec"]:
            yield f"{name(one)}: each apply undoes what the autoscaler did"


def metrics_exist(objects: Objects) -> Iterator[str]:
    """Of triggers; rules also know the names of other versions, and have tests of their own."""
    for one, query in ((scaler, trigger["metadata"]["query"]) for scaler, trigger in triggers(objects)):
        for metric in re.findall(r"\b(?:vllm:|llm_)[a-z0-9_]+", query):
            if metric not in METRICS and re.sub("_(bucket|sum|count)$", "", metric) not in METRICS:
                yield f"{name(one)} asks for {metric}, which nothing exports"


def queries(objects: Objects) -> Iterator[tuple[Any, str]]:
    """Every PromQL expression."""
    yield from ((scaler, one["metadata"]["query"]) for scaler, one in triggers(objects))
    for rules in of_kind(objects, "PrometheusRule"):
        for group in rules["spec"]["groups"] or ():
            yield from ((rules, str(rule["expr"])) for rule in group["rules"])


def target_labels_exist(objects: Objects) -> Iterator[str]:
    """A label of a target in a query must be one that the monitors attach."""
    attached: set[str] = {"namespace", "model", "pod", "job", "instance"}
    for monitor in of_kind(objects, "ServiceMonitor", "PodMonitor"):
        given = [*monitor["spec"].get("targetLabels", ()), *monitor["spec"].get("podTargetLabels", ())]
        attached |= {re.sub("[^A-Za-z0-9_]", "_", one) for one in given}
    for scaler, query in ((one, query) for one, query in queries(objects) if one["kind"] == "ScaledObject"):
        for label in re.findall(r"[{,]\s*([A-Za-z_]+)\s*=", query):
            if label not in attached and label != "revision":
                yield f"{name(scaler)} selects by {label}, which no target has"


def ratios_are_compared_with_ratios(objects: Objects) -> Iterator[str]:
    for scaler, trigger in triggers(objects):
        if (
            re.search(r"_usage_perc|_ratio", trigger["metadata"]["query"])
            and float(trigger["metadata"]["threshold"]) > 1
        ):
            yield f"{name(scaler)}: {trigger['metadata']['threshold']} is never reached by what is 0 to 1"


def means_are_not_divided_again(objects: Objects) -> Iterator[str]:
    for scaler, trigger in triggers(objects):
        mean = trigger["metadata"]["query"].lstrip("(").startswith("avg")
        kind = trigger.get("metricType", "AverageValue")
        if mean and kind != "Value":
            yield f"{name(scaler)}: the autoscaler divides the mean by the number of replicas"
        if not mean and kind != "AverageValue":
            yield f"{name(scaler)}: a sum is compared with what one replica carries"


def load_counts_what_runs_too(objects: Objects) -> Iterator[str]:
    """A queue alone says nothing about the replicas: 11 waiting at 5 busy ones would ask for 2."""
    for scaler in of_kind(objects, "ScaledObject"):
        asked = [one["metadata"]["query"] for owner, one in triggers(objects) if owner is scaler]
        waiting = [query for query in asked if names.ENGINE_WAITING in query]
        if not waiting or any(names.ENGINE_RUNNING not in query for query in waiting):
            yield f"{name(scaler)}: scales on the queue alone"


def silence_is_no_zero(objects: Objects) -> Iterator[str]:
    for scaler, trigger in triggers(objects):
        if trigger["metadata"].get("ignoreNullValues") != "false":
            yield f"{name(scaler)}: when Prometheus is away it scales to the least"
    for scaler in of_kind(objects, "ScaledObject"):
        if "fallback" not in scaler["spec"]:
            yield f"{name(scaler)}: no fallback"


def sleeping_models_can_be_woken(objects: Objects) -> Iterator[str]:
    """At zero replicas the engines' series are gone: a gateway's metric must wake them, and no error keep them up."""
    for scaler in of_kind(objects, "ScaledObject"):
        if scaler["spec"].get("minReplicaCount", 0) > 0:
            continue
        asked = [one["metadata"]["query"] for owner, one in triggers(objects) if owner is scaler]
        floor = any("clamp_min" in query for query in asked)
        if not floor and not any(names.WAITING in query for query in asked):
            yield f"{name(scaler)}: nothing wakes it"
        if not floor and any(names.WORKERS not in query for query in asked):
            yield f"{name(scaler)}: without replicas a query is empty, so fallback keeps it awake"


def keda_finds_prometheus(objects: Objects) -> Iterator[str]:
    for scaler, trigger in triggers(objects):
        if "." not in (urlsplit(trigger["metadata"]["serverAddress"]).hostname or ""):
            yield f"{name(scaler)}: {trigger['metadata']['serverAddress']} is looked for in KEDA's own namespace"


def triggers_have_no_dead_fields(objects: Objects) -> Iterator[str]:
    for scaler, trigger in triggers(objects):
        if "metricName" in trigger["metadata"]:
            yield f"{name(scaler)}: metricName is gone since KEDA 2.10"
        if "gpu_utilization" in str(trigger["metadata"].get("metricName", trigger.get("name", ""))):
            yield f"{name(scaler)}: a trigger on the KV cache is called GPU utilisation"


def scaling_up_waits_for_half_a_minute(objects: Objects) -> Iterator[str]:
    for scaler in of_kind(objects, "ScaledObject"):
        behavior = scaler["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        if behavior["scaleUp"]["stabilizationWindowSeconds"] < 30:
            yield f"{name(scaler)}: scales up at once, nothing holds for 30 s"
        if behavior["scaleDown"]["stabilizationWindowSeconds"] < 300:
            yield f"{name(scaler)}: scales down before five minutes"


Check = Callable[[Objects], Iterator[str]]
CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        selectors_match_pods, no_two_owners_share_pods, services_find_pods_and_ports, every_server_has_a_service,
        monitors_find_targets, no_pod_is_scraped_twice, budgets_let_pods_go, policies_select_pods_and_ports,
        routes_lead_to_services, endpoints_say_what_they_serve, images_are_pinned, pods_are_confined,
        containers_ask_for_what_they_use, engines_have_shared_memory, loading_is_not_taken_for_death,
        no_command_that_images_lack, pods_leave_in_order, spot_pods_are_gone_in_time, updates_need_no_spare_card,
        pods_fit_on_their_nodes, changed_settings_restart_pods, every_setting_is_read, redis_stays_below_its_limit,
        scalers_find_deployments, replicas_have_one_owner, metrics_exist, ratios_are_compared_with_ratios,
        means_are_not_divided_again, load_counts_what_runs_too, silence_is_no_zero, sleeping_models_can_be_woken,
        keda_finds_prometheus, triggers_have_no_dead_fields, scaling_up_waits_for_half_a_minute,
    )
}  # fmt: skip
"""Every check that needs nothing but the objects, by name."""
