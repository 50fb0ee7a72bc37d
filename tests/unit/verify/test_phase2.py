"""Checks of phase 2 pass on what is right, and fail on each thing that is not."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from inferdock.app.verify import chart, scaling
from inferdock.app.verify.phase2 import CHECKS
from inferdock.app.verify.target import Target
from inferdock.autoscale.of_settings import policy_of
from inferdock.autoscale.policy import Policy
from inferdock.config.settings import AutoscalingSettings
from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from tests.support.chart import ROOT, chart_objects
from tests.support.gateway import running_gateway, specs
from tests.support.verify_scripts import (
    ScriptedCluster,
    ScriptedPlatform,
    evidence,
    lone_target,
    outcome,
    served,
    thing,
)

Objects = list[dict[str, Any]]
Break = Callable[[Objects], None]


@functools.cache
def _whole() -> Objects:
    return chart_objects(chart.SCALED)


def _broken(*breaks: Break) -> Objects:
    found = copy.deepcopy(_whole())
    for one in breaks:
        one(found)
    return found


def _each(found: Objects, kind: str) -> Objects:
    chosen = [one for one in found if one["kind"] == kind]
    assert chosen
    return chosen


def _trigger(number: int, **changed: Any) -> Break:
    """Changes fields of a trigger, or of its metadata."""

    def change(found: Objects) -> None:
        for scaler in _each(found, "ScaledObject"):
            trigger = scaler["spec"]["triggers"][number]
            for name, value in changed.items():
                (trigger if name == "metricType" else trigger["metadata"])[name] = value

    return change


def _spec(kind: str, **changed: Any) -> Break:
    def change(found: Objects) -> None:
        for one in _each(found, kind):
            one["spec"] |= changed

    return change


def _pod(**changed: Any) -> Break:
    def change(found: Objects) -> None:
        for one in _each(found, "Deployment"):
            one["spec"]["template"]["spec"] |= changed

    return change


def _without(kind: str) -> Break:
    def change(found: Objects) -> None:
        found[:] = [one for one in found if one["kind"] != kind]

    return change


def _no_wait(found: Objects) -> None:
    for one in _each(found, "Deployment"):
        for container in one["spec"]["template"]["spec"]["containers"]:
            container.pop("lifecycle", None)


def _window(direction: str, seconds: int) -> Break:
    def change(found: Objects) -> None:
        for one in _each(found, "ScaledObject"):
            behavior = one["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
            behavior[direction]["stabilizationWindowSeconds"] = seconds

    return change


def test_the_chart_is_without_fault():
    pytest.importorskip("helm_python")
    for look in (chart.scaler_faults, chart.pace_faults, chart.budget_faults, chart.grace_faults):
        assert look(_whole()) == []


@pytest.mark.parametrize(
    ("look", "broken", "said"),
    [
        (chart.scaler_faults, _without("ScaledObject"), "gives no ScaledObject"),
        (chart.scaler_faults, _trigger(0, query='sum(vllm:old_name{a="b"})'), "no metric vllm:old_name"),
        (chart.scaler_faults, _trigger(0, query='sum(vllm:num_requests_waiting{a="b"})'), "runs and what waits"),
        (chart.scaler_faults, _trigger(1, threshold="85"), "never reached"),
        (chart.scaler_faults, _trigger(1, metricType="AverageValue"), "metricType Value"),
        (chart.scaler_faults, _trigger(0, ignoreNullValues="true"), "no data counts as zero"),
        (chart.scaler_faults, _trigger(0, serverAddress="http://prometheus:9090"), "needs its namespace"),
        (chart.scaler_faults, _trigger(0, threshold="0"), "never right"),
        (chart.scaler_faults, _spec("ScaledObject", scaleTargetRef={"name": "gone"}), "which is not there"),
        (chart.scaler_faults, _spec("ScaledObject", minReplicaCount=20), "contradict"),
        (chart.pace_faults, _window("scaleUp", 0), "scales up after 0 s"),
        (chart.pace_faults, _window("scaleDown", 60), "scales down after 60 s"),
        (chart.budget_faults, _without("PodDisruptionBudget"), "has no budget"),
        (chart.budget_faults, _spec("PodDisruptionBudget", maxUnavailable=0), "never lets a pod go"),
        (chart.grace_faults, _pod(terminationGracePeriodSeconds=30), "is killed after 30 s"),
        (chart.grace_faults, _pod(volumes=[]), "nothing says how long"),
        (chart.grace_faults, _no_wait, "SIGTERM"),
    ],
)
def test_a_broken_rendering_is_told(look: Callable[[Objects], list[str]], broken: Break, said: str):
    pytest.importorskip("helm_python")
    assert any(said in fault for fault in look(_broken(broken)))


async def test_what_looks_into_a_checkout_passes_here():
    pytest.importorskip("helm_python")
    async with lone_target(checkout=ROOT) as target:
        for name in ("2.2.triggers", "2.3.budget", "2.3.grace", "2.4.pace"):
            assert await outcome(CHECKS, name, target) == "pass", name


# -- The policy ------------------------------------------------------------------------------------------------------


def _policy(**changed: Any) -> Policy:
    return policy_of(AutoscalingSettings.model_validate(changed))


def _paced(up_s: float = 30, down_s: float = 300) -> dict[str, Any]:
    return {"scale_up": {"stabilization_window_s": up_s}, "scale_down": {"stabilization_window_s": down_s}}


@pytest.mark.parametrize(
    ("look", "policy", "expected"),
    [
        (scaling.grows_by_load, _policy(), "pass"),
        (scaling.grows_by_load, _policy(min_replicas=2), "pass"),
        (scaling.grows_by_load, _policy(min_replicas=0), "pass"),
        (scaling.grows_by_load, _policy(**_paced(up_s=0)), "fail"),
        (scaling.grows_by_load, _policy(**_paced(up_s=600)), "fail"),
        (scaling.grows_by_load, _policy(tolerance=0.99, min_replicas=3, max_replicas=3), "fail"),
        (scaling.grows_by_kv_cache, _policy(), "pass"),
        (scaling.grows_by_kv_cache, _policy(**_paced(up_s=0)), "fail"),
        (scaling.grows_by_kv_cache, _policy(tolerance=0.5), "fail"),
        (scaling.shrinks_late, _policy(), "pass"),
        (scaling.shrinks_late, _policy(**_paced(down_s=60)), "fail"),
        (scaling.shrinks_late, _policy(**_paced(down_s=3600)), "fail"),
    ],
)
def test_the_policy_is_judged_by_what_it_decides(look: Callable[[Policy], Any], policy: Policy, expected: str):
    assert look(policy).outcome.value == expected


async def test_the_policy_is_that_of_the_platform_here(tmp_path):
    (tmp_path / "gateway.yaml").write_text("autoscaling: {scale_down: {stabilization_window_s: 60}}")
    async with lone_target(state=tmp_path / "state.json") as target:
        assert await outcome(CHECKS, "2.4.cooldown", target) == "fail"
        (tmp_path / "gateway.yaml").write_text("autoscaling: {max_replicas: 2}")
        assert "max_replicas" in (await evidence(CHECKS, "2.4.load", target)).sentence
        (tmp_path / "gateway.yaml").write_text("autoscaling: {kv_cache_usage: null}")
        assert await outcome(CHECKS, "2.4.kv-cache", target) == "needs"


def _record(**changed: Any) -> dict[str, Any]:
    looks = [(at, 50, number, number) for at, number in changed.pop("looks", [(0, 1), (200, 3), (650, 3), (950, 2)])]
    summary = {"requests": 100, "answered": 100, "status_5xx": 0, **changed}
    return {"course": {"ramp_s": 300, "stay_s": 300}, "summary": summary, "looks": looks}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "pass"),
        ({"answered": 99}, "fail"),
        ({"requests": 0, "answered": 0}, "fail"),
        ({"looks": [(0, 1), (200, 1), (950, 1)]}, "fail"),
        ({"looks": [(0, 1), (200, 3), (700, 2)]}, "fail"),
        ({"looks": [(0, 1), (200, 3), (1200, 3)]}, "fail"),
        ({"looks": []}, "fail"),
    ],
)
def test_the_record_of_a_load_test_is_judged(changed: Mapping[str, Any], expected: str):
    assert scaling.judged_run(_record(**changed), "").outcome.value == expected


# -- A platform ------------------------------------------------------------------------------------------------------


def _autoscaled(decisions: int, wanted: float = 2) -> str:
    return (
        f'llm_autoscale_bound_replicas{{model="m",bound="min"}} 1\n'
        f'llm_autoscale_bound_replicas{{model="m",bound="max"}} 3\n'
        f'llm_autoscale_wanted_replicas{{model="m",revision="r"}} {wanted}\n'
        f'llm_autoscale_signal{{model="m",signal="requests"}} 0\n'
        f'llm_autoscale_decisions_total{{model="m",direction="stay",outcome="done"}} {decisions}\n'
    )


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([_autoscaled(1), _autoscaled(2)], "pass"),
        ([_autoscaled(1)], "fail"),
        ([_autoscaled(1), _autoscaled(2, wanted=9)], "fail"),
        ([""], "needs"),
    ],
    ids=["looks", "has-stopped", "out-of-bounds", "off"],
)
async def test_the_loop_must_look(monkeypatch, texts: list[str], expected: str):
    monkeypatch.setattr("inferdock.app.verify.phase2.LOOK_S", 0.3)
    async with served(ScriptedPlatform(metrics=texts)) as target:
        assert await outcome(CHECKS, "2.2.loop", target) == expected


DISRUPTIVE = ("2.3.drain", "2.3.no-errors")


async def test_a_real_gateway_loses_nothing_while_a_replica_goes():
    options = SimOptions(model="sim", itl_s=0.004)
    async with running_sim(options) as one, running_sim(options) as other:
        async with running_gateway([one.url, other.url]) as gateway, lone_target() as lone:
            named = [dataclasses.replace(one, digest="d" * 64) for one in specs([one.url, other.url])]
            gateway.server.replace_endpoints(named)
            await gateway.until_ready(2)
            target = Target(url=gateway.url, admin_url=gateway.admin_url, model="sim", http=lone.http)
            before = [(row["name"], row["digest"], row["state"]) for row in gateway.endpoints()]
            for name in DISRUPTIVE:
                found = await evidence(CHECKS, name, target)
                assert found.outcome.value == "pass", found
            assert [(row["name"], row["digest"], row["state"]) for row in gateway.endpoints()] == before


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, ("pass", "pass")),
        ({"cut": True}, ("fail", "pass")),
        ({"fault": True}, ("fail", "pass")),
        ({"refuses": 503}, ("pass", "fail")),
        ({"comes_back": False}, ("fail", "fail")),
        ({"replicas": ["only"]}, ("needs", "needs")),
    ],
)
async def test_what_is_lost_is_told(monkeypatch, changed: dict[str, Any], expected: tuple[str, str]):
    monkeypatch.setattr("inferdock.app.verify.figures.READY_S", 0.2)
    found = []
    for name in DISRUPTIVE:
        async with served(ScriptedPlatform(**copy.deepcopy(changed))) as target:
            found.append(await outcome(CHECKS, name, target))
    assert tuple(found) == expected


# -- A cluster -------------------------------------------------------------------------------------------------------


def _cluster(**changed: Any) -> ScriptedCluster:
    scaler = thing("s", spec={"scaleTargetRef": {"name": "d"}}, conditions=["Ready"])
    objects = {
        "pods": [
            thing("keda-operator-1", conditions=["Ready"]),
            thing("keda-operator-metrics-1", conditions=["Ready"]),
        ],
        "customresourcedefinitions": [thing("scaledobjects.keda.sh", conditions=["Established"])],
        "scaledobjects": [scaler],
        "horizontalpodautoscalers": [thing("h", spec={"scaleTargetRef": {"name": "d"}})],
        "poddisruptionbudgets": [thing("b", disruptionsAllowed=1)],
    }
    return ScriptedCluster(objects=objects | changed)


ON_A_CLUSTER = ("2.1.operator", "2.1.definition", "2.2.ready", "2.2.hpa", "2.3.budget-there")


@pytest.mark.parametrize(
    ("changed", "broken"),
    [
        ({}, None),
        ({"pods": [thing("keda-operator-1")]}, "2.1.operator"),
        ({"pods": [thing("keda-operator-metrics-1", conditions=["Ready"])]}, "2.1.operator"),
        ({"customresourcedefinitions": []}, "2.1.definition"),
        ({"scaledobjects": [thing("s", spec={"scaleTargetRef": {"name": "d"}})]}, "2.2.ready"),
        ({"horizontalpodautoscalers": []}, "2.2.hpa"),
        ({"poddisruptionbudgets": [thing("b", disruptionsAllowed=0)]}, "2.3.budget-there"),
        ({"poddisruptionbudgets": []}, "2.3.budget-there"),
    ],
)
async def test_a_cluster_is_asked(changed: dict[str, Any], broken: str | None):
    async with lone_target(cluster=_cluster(**changed), release="r") as target:
        found = {name: await outcome(CHECKS, name, target) for name in ON_A_CLUSTER}
    assert found == {name: "fail" if name == broken else "pass" for name in ON_A_CLUSTER}


@pytest.mark.parametrize(("cut", "expected"), [(False, "pass"), (True, "fail")])
async def test_a_pod_is_deleted_while_streams_run(cut: bool, expected: str):
    pods = [{**thing(name, "engine", conditions=["Ready"], podIP=name)} for name in ("a", "b")]
    cluster = ScriptedCluster(objects={"pods": pods})
    async with served(ScriptedPlatform(cut=cut), cluster=cluster, release="r") as target:
        assert await outcome(CHECKS, "2.3.pod", target) == expected
    assert cluster.deleted == ["a"]


@pytest.mark.parametrize(("refuses", "expected"), [(200, "pass"), (502, "fail")])
async def test_pods_are_replaced_while_requests_come(refuses: int, expected: str):
    counts = {"updatedReplicas": 2, "replicas": 2, "availableReplicas": 2}
    cluster = ScriptedCluster(objects={"deployments": [thing("d", "engine", spec={"replicas": 2}, **counts)]})
    async with served(ScriptedPlatform(refuses=refuses), cluster=cluster, release="r") as target:
        assert await outcome(CHECKS, "2.3.rolling", target) == expected
    assert cluster.patched == ["d"]
