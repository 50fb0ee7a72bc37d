"""Checks of phase 2, autoscaling: KEDA and what the chart gives it, replicas that go without loss, the load test.

What one machine can show is shown: the rendered chart, the policy's decisions, the loop of `inferdock up`, a replica
that is taken out of a running gateway. What only a cluster has (KEDA itself, the HPA, pods) is asked of its API.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from inferdock.app.verify import chart, cluster, scaling
from inferdock.app.verify.commands import program, run
from inferdock.app.verify.figures import exposition, status, total
from inferdock.app.verify.ground import LackingError, check, faultless, until, verdict
from inferdock.app.verify.streams import Kept, kept_while, taken_out
from inferdock.app.verify.target import Target
from inferdock.kube.resources import DEPLOYMENTS, HPAS, PDBS, PODS, SCALED_OBJECTS, KubeObject
from inferdock.telemetry import names
from inferdock.verify.check import Check, Evidence, Need

KEDA: Final = "keda"
RENDER: Final = "inferdock render --set engine.autoscaling.enabled=true"
LOOK_S: Final = 45.0
"""Three looks of the autoscaler, with the time until its figures are shown."""
PROCEDURE_S: Final = 1500.0
AUTOSCALING: Final = "Needs the autoscaler: start `inferdock up` with `autoscaling.enabled: true`."
_RESTARTED: Final = "kubectl.kubernetes.io/restartedAt"


# -- 2.1 and 2.2: KEDA and its ScaledObject --------------------------------------------------------------------------


async def operator(target: Target) -> Evidence:
    """KEDA's operator runs and is ready."""
    found = [
        pod
        for pod in await cluster.pods_in(target, KEDA)
        if cluster.name_of(pod).startswith("keda-operator") and "metrics" not in cluster.name_of(pod)
    ]
    ready = [pod for pod in found if cluster.condition(pod, "Ready")]
    sentence = f"Pods of the operator in {KEDA}: {cluster.names(found)}; {len(ready)} ready."
    return verdict(bool(ready), sentence, f"kubectl get pods -n {KEDA}")


async def definition(target: Target) -> Evidence:
    """The cluster knows what a ScaledObject is."""
    name = f"{SCALED_OBJECTS.plural}.keda.sh"
    found = await cluster.api(target).get(cluster.CRDS, "", name)
    good = found is not None and cluster.condition(found, "Established")
    return verdict(good, f"{name} is {'established' if good else 'not there'}.", f"kubectl get crd {name}")


async def triggers(target: Target) -> Evidence:
    """The chart's ScaledObject asks for metrics that exist, against thresholds that can be reached."""
    found = await chart.rendered(target)
    asked = [
        name
        for scaler in chart.of_kind(found, "ScaledObject")
        for trigger in scaler["spec"]["triggers"]
        for name in chart.queried(trigger)
    ]
    sentence = f"The chart's ScaledObject asks for {', '.join(sorted(set(asked)))}."
    return faultless(chart.scaler_faults(found), sentence, RENDER, metrics=len(set(asked)))


async def scaler_ready(target: Target) -> Evidence:
    """KEDA took the ScaledObjects of the release."""
    found = await cluster.of_release(target, SCALED_OBJECTS)
    bad = [one for one in found if not cluster.condition(one, "Ready")]
    sentence = f"ScaledObjects: {cluster.names(found)}; not ready: {cluster.names(bad)}."
    return verdict(bool(found) and not bad, sentence, f"kubectl get scaledobject -n {target.namespace}")


async def autoscaler_made(target: Target) -> Evidence:
    """KEDA made an HPA for each ScaledObject."""
    wanted = [one["spec"]["scaleTargetRef"]["name"] for one in await cluster.of_release(target, SCALED_OBJECTS)]
    made, _ = await cluster.api(target).list(HPAS, target.namespace)
    scaled = {one["spec"]["scaleTargetRef"]["name"] for one in made}
    without = [name for name in wanted if name not in scaled]
    sentence = f"Scaled: {', '.join(wanted) or 'nothing'}; without an HPA: {', '.join(without) or 'none'}."
    return verdict(bool(wanted) and not without, sentence, f"kubectl get hpa -n {target.namespace}")


async def loop_here(target: Target) -> Evidence:
    """The autoscaler of a local platform looks, and wants a number within its bounds."""
    first = await _decisions(target)

    async def looked() -> bool:
        return await _decisions(target) > first

    alive = await until(looked, LOOK_S)
    text = await exposition(target)
    mine = {"model": target.model}
    least, most = (total(text, names.AUTOSCALE_BOUND, {**mine, "bound": bound}) for bound in ("min", "max"))
    wanted, signal = total(text, names.AUTOSCALE_WANTED, mine), total(text, names.AUTOSCALE_SIGNAL, mine)
    if least is None or most is None or wanted is None or signal is None:
        return verdict(False, "The autoscaler decides, but says neither its bounds nor what it wants and measures.")
    how = "it looks" if alive else f"it has not looked for {LOOK_S:g} s"
    sentence = f"{wanted:g} replicas wanted, between {least:g} and {most:g}; {how}."
    command = f"curl {target.url}/metrics | grep llm_autoscale"
    return verdict(alive and least <= wanted <= most, sentence, command, wanted=wanted, signal=signal)


async def _decisions(target: Target) -> float:
    text, mine = await exposition(target), {"model": target.model}
    if total(text, names.AUTOSCALE_BOUND, mine) is None:
        raise LackingError(AUTOSCALING)
    return total(text, names.AUTOSCALE_DECISIONS, mine) or 0.0  # none was made yet


# -- 2.3: leaving without loss ---------------------------------------------------------------------------------------


async def budget(target: Target) -> Evidence:
    """Every Deployment that serves has a budget that lets one pod go."""
    found = await chart.rendered(target)
    count = len(chart.of_kind(found, "PodDisruptionBudget"))
    return faultless(chart.budget_faults(found), f"{count} budgets, each lets a pod go.", RENDER, budgets=count)


async def budget_there(target: Target) -> Evidence:
    """The cluster keeps the release's budgets, and they allow a disruption."""
    found = await cluster.of_release(target, PDBS)
    stuck = [one for one in found if not (one.get("status") or {}).get("disruptionsAllowed")]
    sentence = f"Budgets: {cluster.names(found)}; without an allowed disruption: {cluster.names(stuck)}."
    return verdict(bool(found) and not stuck, sentence, f"kubectl get pdb -n {target.namespace}")


async def grace(target: Target) -> Evidence:
    """A pod has the time that its drain takes."""
    found = await chart.rendered(target)
    count = len(chart.served(found))
    return faultless(chart.grace_faults(found), f"All {count} Deployments have the time to drain.", RENDER)


async def drained(target: Target) -> Evidence:
    """Streams end whole while a replica is taken out and put back."""
    return _streams_kept(await kept_while(target, taken_out))


async def nothing_refused(target: Target) -> Evidence:
    """Requests that come while a replica is taken out and put back are answered."""
    return _nothing_refused(await kept_while(target, taken_out))


async def pod_deleted(target: Target) -> Evidence:
    """Streams end whole while a pod is deleted, and the pod waits for them."""
    return _streams_kept(await kept_while(target, _deleted))


async def rolled(target: Target) -> Evidence:
    """Requests are answered while all pods of the engine are replaced."""
    return _nothing_refused(await kept_while(target, _restarted))


def _streams_kept(kept: Kept) -> Evidence:
    if not kept.held and not kept.faults:
        raise LackingError("The streams were over before the replica went: needs longer answers, or a slower model.")
    good = not kept.faults and kept.back
    lost = f" {len(kept.faults)} were lost: {kept.faults[0]}" if kept.faults else ""
    back = "" if kept.back else " The replica did not come back."
    sentence = f"{kept.streams} streams were open, {kept.held} on the replica that went.{lost}{back}"
    return verdict(good, sentence, streams=kept.streams, moved=kept.held, lost=len(kept.faults))


def _nothing_refused(kept: Kept) -> Evidence:
    why = f" {len(kept.refused)} failed: {kept.refused[0]}" if kept.refused else " All were answered."
    back = "" if kept.back else " The replica did not come back."
    sentence = f"{kept.asked} requests were sent meanwhile.{why}{back}"
    return verdict(not kept.refused and kept.back, sentence, requests=kept.asked, failed=len(kept.refused))


@contextlib.asynccontextmanager
async def _deleted(target: Target) -> AsyncIterator[int]:
    """Delete a pod of the engine, and wait until it is gone."""
    ready = [pod for pod in await cluster.of_release(target, PODS, "engine") if cluster.condition(pod, "Ready")]
    if len(ready) < 2:
        raise LackingError("Needs two ready pods of the engine: set engine.autoscaling.minReplicas to 2.")
    name, uid = cluster.name_of(ready[0]), str(ready[0]["metadata"]["uid"])
    address = (ready[0].get("status") or {}).get("podIP", "")
    rows = (await status(target))["endpoints"]
    held = sum(int(row["in_flight"]) for row in rows if urlsplit(row["url"]).hostname == address)
    await cluster.api(target).delete(PODS, target.namespace, name, uid=uid)
    yield held

    async def gone() -> bool:
        pod = await cluster.api(target).get(PODS, target.namespace, name)
        return pod is None or pod["metadata"].get("uid") != uid

    await until(gone)


@contextlib.asynccontextmanager
async def _restarted(target: Target) -> AsyncIterator[int]:
    """Replace the pods of the engine as `kubectl rollout restart` does, and wait until all are new."""
    found = await cluster.of_release(target, DEPLOYMENTS, "engine")
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    body: dict[str, Any] = {"spec": {"template": {"metadata": {"annotations": {_RESTARTED: at}}}}}
    for one in found:
        await cluster.api(target).patch(DEPLOYMENTS, target.namespace, cluster.name_of(one), body)

    async def replaced() -> bool:
        api = cluster.api(target)
        return all([_rolled_out(await api.get(DEPLOYMENTS, target.namespace, cluster.name_of(one))) for one in found])

    await until(replaced)
    yield len(found)


def _rolled_out(one: KubeObject | None) -> bool:
    if one is None:
        return False
    shown, wanted = one.get("status") or {}, one["spec"].get("replicas", 1)
    seen = shown.get("observedGeneration", 0) >= one["metadata"].get("generation", 0)
    return seen and all(shown.get(key, 0) == wanted for key in ("updatedReplicas", "replicas", "availableReplicas"))


# -- 2.4: scaling under load -----------------------------------------------------------------------------------------


async def grows_by_load(target: Target) -> Evidence:
    """The target's policy adds replicas under load that lasts, and not for a moment's."""
    return scaling.grows_by_load(scaling.policy_for(target))


async def grows_by_kv_cache(target: Target) -> Evidence:
    """It adds replicas while the KV cache is over its threshold."""
    return scaling.grows_by_kv_cache(scaling.policy_for(target))


async def shrinks_late(target: Target) -> Evidence:
    """It takes replicas away only after five minutes of less load."""
    return scaling.shrinks_late(scaling.policy_for(target))


async def paced(target: Target) -> Evidence:
    """The chart gives the HPA the same pace."""
    found = await chart.rendered(target)
    sentence = f"Up after {chart.HOLD_S} s or more, down after {chart.COOLDOWN_S} s or more."
    return faultless(chart.pace_faults(found), sentence, RENDER)


async def procedure(target: Target) -> Evidence:
    """The plan's procedure: users rise and fall, replicas follow, nothing is lost."""
    await _decisions(target)
    locust = program("locust", "pip install locust.")
    scenario = chart.root(target) / "tests" / "load" / "test_autoscaling.py"
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        record = Path(folder) / "run.json"
        environment = {"REPLICAS": f"{target.admin_url}/admin/status", "RECORD": str(record), "MODEL": target.model}
        environment |= {"OPENAI_API_KEY": target.api_key} if target.api_key else {}
        done = await run(locust, "-f", scenario, "--headless", "--host", target.url, environment=environment)
        if not record.exists():
            return verdict(False, f"The load test left no record: {done.said}")
        found: dict[str, Any] = json.loads(await asyncio.to_thread(record.read_text))
    where = f"REPLICAS={target.admin_url}/admin/status"
    command = f"{where} locust -f tests/load/test_autoscaling.py --headless --host {target.url}"
    return scaling.judged_run(found, command)


CHECKS: Final[tuple[Check[Target], ...]] = (
    check("2.1.operator", "KEDA's operator runs", operator, Need.CLUSTER),
    check("2.1.definition", "the cluster knows ScaledObjects", definition, Need.CLUSTER),
    check("2.2.triggers", "the chart's triggers ask for what exists", triggers, Need.CHECKOUT),
    check("2.2.ready", "KEDA has taken the ScaledObject", scaler_ready, Need.CLUSTER),
    check("2.2.hpa", "KEDA has made the HPA", autoscaler_made, Need.CLUSTER),
    check("2.2.loop", "the same policy works on one machine", loop_here, Need.TARGET, limit_s=60),
    check("2.3.budget", "budgets let one pod go", budget, Need.CHECKOUT),
    check("2.3.budget-there", "the cluster keeps the budgets", budget_there, Need.CLUSTER),
    check("2.3.grace", "pods have the time that a drain takes", grace, Need.CHECKOUT),
    check(
        "2.3.drain",
        "streams end whole while a replica goes",
        drained,
        Need.TARGET,
        Need.ADMIN,
        Need.DISRUPTION,
        limit_s=180,
    ),
    check(
        "2.3.no-errors",
        "no request fails while a replica goes and comes",
        nothing_refused,
        Need.TARGET,
        Need.ADMIN,
        Need.DISRUPTION,
        limit_s=180,
    ),
    check(
        "2.3.pod",
        "a deleted pod ends its requests first",
        pod_deleted,
        Need.TARGET,
        Need.ADMIN,
        Need.CLUSTER,
        Need.DISRUPTION,
        limit_s=300,
    ),
    check(
        "2.3.rolling",
        "no request fails during a rolling update",
        rolled,
        Need.TARGET,
        Need.ADMIN,
        Need.CLUSTER,
        Need.DISRUPTION,
        Need.MINUTES,
        limit_s=1800,
    ),
    check("2.4.load", "replicas come under load that lasts 30 s", grows_by_load),
    check("2.4.kv-cache", "replicas come while the KV cache is full", grows_by_kv_cache),
    check("2.4.cooldown", "replicas go only after five minutes", shrinks_late),
    check("2.4.pace", "the chart has the same pace", paced, Need.CHECKOUT),
    check(
        "2.4.procedure",
        "the load test: replicas follow, nothing is lost",
        procedure,
        Need.TARGET,
        Need.ADMIN,
        Need.CHECKOUT,
        Need.MINUTES,
        limit_s=PROCEDURE_S,
    ),
)
