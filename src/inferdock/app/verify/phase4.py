"""Checks of phase 4, cost: quantised weights, spot nodes, the response cache, the dashboard and what it says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from inferdock.app.verify import cached, chart, cluster, quantised, spending
from inferdock.app.verify.ground import LackingError, check, faultless, verdict
from inferdock.app.verify.infrastructure import validated
from inferdock.app.verify.target import Target
from inferdock.cost.prices import shipped
from inferdock.kube.resources import CONFIG_MAPS, DEPLOYMENTS, NODES, PODS
from inferdock.verify.check import Check, Evidence, Need

CAPACITY: Final = ("eks.amazonaws.com/capacityType", "karpenter.sh/capacity-type")
SPOT_S: Final = 100
"""Of the two minutes between the notice and the end, the notice itself takes some."""
SAVED: Final = 0.5
"""Prices of spot change by the hour; the plan expects about 0.6."""
RENDER: Final = "inferdock render -f helm/llm-inference/values-prod.yaml"
KERNEL: Final = "awq_marlin"
_TAINT: Final = re.compile(r'_taint\s*=\s*\{\s*key\s*=\s*"([^"]+)",\s*value\s*=\s*"([^"]*)",\s*effect\s*=\s*"([^"]+)"')
_LABEL: Final = re.compile(r'^\s*"([\w./-]+)"\s*=', re.MULTILINE)
_TYPES: Final = re.compile(r"instance_types\s*=\s*\[([^\]]*)\]")
_EFFECTS: Final = {"NO_SCHEDULE": "NoSchedule", "NO_EXECUTE": "NoExecute", "PREFER_NO_SCHEDULE": "PreferNoSchedule"}
_TYPE: Final = "node.kubernetes.io/instance-type"
_OF_THE_CLOUD: Final = ("eks.amazonaws.com/", "karpenter.sh/", _TYPE, "topology.kubernetes.io/")


# -- 4.1: quantised weights ------------------------------------------------------------------------------------------


async def values(target: Target) -> Evidence:
    """The chart's production values serve AWQ weights by the fast kernel."""
    found = await chart.rendered(target, chart.PRODUCTION, values={})
    engines = [one for one in chart.of_kind(found, "Deployment") if chart.component(one) == "engine"]
    arguments = [
        chart.configuration(chart.pod_of(one), found).get("engine", {}).get("extra_args", []) for one in engines
    ]
    chosen = [_after(words, "--quantization") for words in arguments]
    good = bool(chosen) and all(kernel == KERNEL for kernel in chosen)
    return verdict(good, f"Engines are started with {', '.join(map(str, chosen)) or 'nothing'}.", RENDER)


def _after(words: Sequence[str], option: str) -> str | None:
    return next((words[at + 1] for at, word in enumerate(words[:-1]) if word == option), None)


# -- 4.2: spot nodes -------------------------------------------------------------------------------------------------


async def groups_valid(target: Target) -> Evidence:
    """Terraform accepts the node groups."""
    return await validated(chart.root(target) / "terraform")


async def agreed(target: Target) -> Evidence:
    """Pods of the chart bear the taints of the groups' nodes, and prefer labels that these have."""
    module = chart.root(target) / "terraform" / "eks-nodegroup"
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(module.glob("*.tf")))
    found = await chart.rendered(target, chart.PRODUCTION, values={})
    engines = [chart.pod_of(one) for one in chart.of_kind(found, "Deployment") if chart.component(one) == "engine"]
    engines = [pod for pod in engines if _prefers_spot(pod)]  # others are kept on nodes that stay
    faults = [] if engines else ["The chart gives no engine that prefers spot nodes."]
    for pod in engines:
        faults += [fault for fault in node_faults(pod, text) if fault not in faults]
    taints = ", ".join(key for key, _, _ in _TAINT.findall(text))
    return faultless(faults, f"Pods bear the taints {taints}, and nodes have the labels that they look for.", RENDER)


def node_faults(pod: Mapping[str, Any], terraform: str) -> list[str]:
    """Why a pod finds no node of the groups that a Terraform module makes."""
    taints = [(key, value, _EFFECTS[effect]) for key, value, effect in _TAINT.findall(terraform)]
    faults = [] if taints else ["The node groups have no taints that can be read."]
    faults += [f"Pods do not bear the taint {taint[0]}." for taint in taints if not _borne(taint, pod)]
    ours, types = set(_LABEL.findall(terraform)), " ".join(_TYPES.findall(terraform))
    for key, wanted in _selected(pod):
        if key not in ours and not key.startswith(_OF_THE_CLOUD):
            faults.append(f"No node has the label {key}.")
        if key == _TYPE:
            faults += [f"No group has {one}." for one in wanted if f'"{one}"' not in types]
    return faults


def _prefers_spot(pod: Mapping[str, Any]) -> bool:
    return any("spot" in [one.lower() for one in wanted] for _, wanted in _selected(pod))


def _borne(taint: tuple[str, str, str], pod: Mapping[str, Any]) -> bool:
    key, value, effect = taint
    return any(
        one.get("key") in (key, None)
        and one.get("effect") in (effect, None)
        and (one.get("operator") == "Exists" or one.get("value") == value)
        for one in pod.get("tolerations", ())
    )


def _selected(pod: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    affinity = (pod.get("affinity") or {}).get("nodeAffinity") or {}
    terms = [one["preference"] for one in affinity.get("preferredDuringSchedulingIgnoredDuringExecution", ())]
    terms += affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [])
    return [(one["key"], one.get("values", [])) for term in terms for one in term.get("matchExpressions", ())]


async def gone_in_time(target: Target) -> Evidence:
    """A pod on a spot node has drained before the node goes."""
    found = await chart.rendered(target, chart.PRODUCTION, values={})
    faults = chart.grace_faults(found, most_s=SPOT_S)
    return faultless(faults, f"Every pod has drained within {SPOT_S} s of the notice's 120.", RENDER)


async def cheaper(target: Target) -> Evidence:
    """Spot prices of the catalogue, for the chart's kinds of machine."""
    found = await chart.rendered(target, chart.PRODUCTION, values={})
    wanted = {
        kind
        for one in chart.of_kind(found, "Deployment")
        for key, kinds in _selected(chart.pod_of(one))
        if key == _TYPE
        for kind in kinds
    }
    rows = [one for one in shipped().prices.values() if one.instance_type in wanted and one.spot and one.on_demand]
    saved = sorted(1 - row.spot / row.on_demand for row in rows if row.spot and row.on_demand)
    if not saved:
        return verdict(False, f"The catalogue has no spot price of {', '.join(sorted(wanted)) or 'any machine'}.")
    middle = saved[len(saved) // 2]
    sentence = f"Spot of {', '.join(sorted(wanted))} costs {middle:.0%} less in the middle of {len(saved)} prices."
    return verdict(middle >= SAVED, sentence, "inferdock cost prices", saved_ratio=middle, prices=len(saved))


async def group_there(target: Target) -> Evidence:
    """The cluster has spot nodes."""
    nodes, _ = await cluster.api(target).list(NODES, "")
    spot = [node for node in nodes if _capacity(cluster.labels(node)) == "spot"]
    return verdict(bool(spot), f"{len(spot)} of {len(nodes)} nodes are spot.", "kubectl get nodes", spot=len(spot))


async def on_spot(target: Target) -> Evidence:
    """Engines run on spot nodes."""
    nodes, _ = await cluster.api(target).list(NODES, "")
    spot = {cluster.name_of(node) for node in nodes if _capacity(cluster.labels(node)) == "spot"}
    pods = await cluster.of_release(target, PODS, "engine")
    there = [pod for pod in pods if pod["spec"].get("nodeName") in spot]
    sentence = f"{len(there)} of {len(pods)} engines run on spot nodes."
    return verdict(bool(there), sentence, f"kubectl get pods -o wide -n {target.namespace}", on_spot=len(there))


def _capacity(labels: Mapping[str, Any]) -> str:
    return next((str(labels[key]).lower().replace("_", "-") for key in CAPACITY if key in labels), "")


async def billed(target: Target) -> Evidence:
    """What AWS has billed: only its Cost Explorer knows, a day later."""
    _ = target
    raise LackingError("Needs a day of billing: look at EC2 by purchase option in AWS Cost Explorer (docs/spot.md).")


# -- 4.3 and 4.4 in a cluster ----------------------------------------------------------------------------------------


async def redis_there(target: Target) -> Evidence:
    """The cluster runs the Redis of the release."""
    found = await cluster.of_release(target, DEPLOYMENTS, "redis")
    if not found:
        raise LackingError("Needs the chart's Redis: install it with redis.enabled: true.")
    good = all(cluster.condition(one, "Available") for one in found)
    return verdict(good, f"{cluster.names(found)} is {'available' if good else 'not available'}.", "kubectl get deploy")


async def board_there(target: Target) -> Evidence:
    """The cluster holds the dashboards, where Grafana's sidecar finds them."""
    found = await cluster.of_release(target, CONFIG_MAPS, "monitoring")
    boards = [one for one in found if any(name.endswith("cost.json") for name in one.get("data") or {})]
    if not found:
        raise LackingError("Needs the dashboards: install the chart with metrics.dashboards.enabled: true.")
    labelled = [one for one in boards if cluster.labels(one).get("grafana_dashboard")]
    sentence = f"The dashboard of cost is in {cluster.names(boards)}; with Grafana's label: {cluster.names(labelled)}."
    return verdict(bool(labelled), sentence, f"kubectl get configmap -n {target.namespace} -l grafana_dashboard")


_ENGINES: Final = (Need.TARGET, Need.ADMIN, Need.ENGINE, Need.CHECKOUT)
_CACHE: Final = (Need.TARGET,)
CHECKS: Final[tuple[Check[Target], ...]] = (
    check("4.1.values", "production serves AWQ by the fast kernel", values, Need.CHECKOUT),
    check("4.1.weights", "quantised weights are 40 % smaller", quantised.smaller, limit_s=120),
    check("4.1.loads", "a quantised version answers", quantised.answers, Need.TARGET, Need.ADMIN, limit_s=120),
    check("4.1.memory", "it takes less than 12 GB", quantised.memory, Need.GPU, Need.TARGET, Need.ADMIN, limit_s=120),
    check("4.1.quality", "it is as good, says the gate", quantised.as_good, Need.TARGET, limit_s=120),
    check("4.2.groups", "Terraform accepts the spot nodes", groups_valid, Need.CHECKOUT, limit_s=180),
    check("4.2.agreed", "pods find the spot nodes", agreed, Need.CHECKOUT),
    check("4.2.notice", "a pod is gone before its spot node", gone_in_time, Need.CHECKOUT),
    check("4.2.price", "spot costs less", cheaper, Need.CHECKOUT),
    check("4.2.there", "the cluster has spot nodes", group_there, Need.CLUSTER),
    check("4.2.scheduled", "engines run on them", on_spot, Need.CLUSTER),
    check("4.2.billed", "the bill is smaller", billed),
    check("4.3.redis", "Redis is connected", cached.shared, Need.TARGET, Need.ADMIN),
    check("4.3.redis-there", "the cluster runs Redis", redis_there, Need.CLUSTER),
    check("4.3.equal", "an equal request hits", cached.equal_hits, *_CACHE),
    check("4.3.similar", "a similar request hits", cached.similar_hits, Need.TARGET, Need.ADMIN, limit_s=60),
    check("4.3.rate", "more than 10 % of repeated and similar requests hit", cached.hit_rate, *_CACHE, limit_s=60),
    check("4.3.lookup", "a look-up takes less than 5 ms", cached.quick, *_CACHE, limit_s=60),
    check("4.3.ttl", "no answer outlives its time", cached.ends, *_CACHE),
    check("4.4.panels", "the plan's panels ask for what exists", spending.board, Need.CHECKOUT),
    check("4.4.data", "the target feeds the panels", spending.board_fed, Need.TARGET, Need.CHECKOUT),
    check("4.4.engine-data", "so do its engines", spending.engines_feed, *_ENGINES),
    check("4.4.grafana", "Grafana finds the dashboard", board_there, Need.CLUSTER),
    check("4.4.cost", "the cost of a million tokens is right", spending.by_hand, Need.TARGET, limit_s=60),
    check("4.4.rules", "Prometheus takes the rules", spending.rules_valid, Need.CHECKOUT),
    check("4.4.alert", "an alert fires above $1", spending.alerted, Need.CHECKOUT),
)
