"""From objects to what a release observes: every trouble in a sentence, every strange object refused."""

from __future__ import annotations

from typing import Any

import pytest

from inferdock.domain.errors import UnreachableError
from inferdock.kube.naming import traffic_key
from inferdock.kube.objects import EndpointSlice
from inferdock.release.driver import Observed
from inferdock.release.drivers.kubernetes.seen import PAUSED, assembled, read_weights
from inferdock.release.drivers.kubernetes.views import Autoscaler, Deployment, Pod, views
from inferdock.release.records.cluster_names import MODEL, REFERENCE, RETIRED, REVISION

REV = "1.0.0-abcdef012345"
LABELS = {MODEL: "m", REVISION: REV}


def deployment(replicas: int | None = 2, *conditions: dict, **notes: str) -> dict[str, Any]:
    meta = {"name": "m-1", "generation": 3, "labels": LABELS, "annotations": {REFERENCE: "m@1.0.0", **notes}}
    status = {"observedGeneration": 3, "conditions": list(conditions)}
    return {"metadata": meta, "spec": {"replicas": replicas}, "status": status}


def pod(name: str = "p1", *, leaves: bool = False, **status: Any) -> dict[str, Any]:
    meta = {"name": name, "labels": LABELS, **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if leaves else {})}
    return {"metadata": meta, "status": status}


READY = {"conditions": [{"type": "Ready", "status": "True"}]}


def endpoint(name: str, **conditions: bool | None) -> dict[str, Any]:
    return {"addresses": [f"10.0.0.{name[1:]}"], "conditions": conditions, "targetRef": {"kind": "Pod", "name": name}}


def seen(
    *,
    deployments: list[dict] | None = None,
    pods: list[dict] | None = None,
    endpoints: list[dict] | None = None,
    scaled: list[dict] | None = None,
    hpas: list[dict] | None = None,
    weights: dict[str, float] | None = None,
) -> Observed:
    slices = [{"metadata": {"name": "s", "labels": LABELS}, "endpoints": endpoints}] if endpoints is not None else []
    return assembled(
        deployments=views(deployments if deployments is not None else [deployment()], Deployment),
        pods=views(pods or [], Pod),
        slices=views(slices, EndpointSlice),
        scaled_objects=views(scaled or [], Autoscaler),
        hpas=views(hpas or [], Autoscaler),
        weights=weights or {},
    ).observed()


def problem(*statuses: dict, conditions: tuple[dict, ...] = ()) -> str:
    pods = [pod(f"p{number}", **status) for number, status in enumerate(statuses, 1)]
    running = seen(deployments=[deployment(2, *conditions)], pods=pods).of(REV)
    assert running is not None
    return running.problem


def waiting(reason: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {"name": "engine", "state": {"waiting": {"reason": reason, "message": message}}, **more}


def test_ready_is_what_gateways_may_send_to() -> None:
    endpoints = [
        endpoint("p1", ready=True),
        endpoint("p2", ready=None),
        endpoint("p3", ready=False, serving=True),
        endpoint("p4", ready=True, terminating=True),
        endpoint("p5", ready=True),
        endpoint("p1", ready=True),
        {"addresses": [], "conditions": {"ready": True}},
        {"addresses": None},
    ]
    pods = [pod(f"p{number}", **READY) for number in range(1, 5)] + [pod("p5", leaves=True, **READY)]
    found = seen(pods=pods, endpoints=endpoints)
    assert found.ready(REV) == 2
    assert getattr(found.of(REV), "stopping", None) == 1


def test_without_a_service_pods_are_all_there_is_to_go_by() -> None:
    assert seen(pods=[pod("p1", **READY), pod("p2"), pod("p3", leaves=True, **READY)]).ready(REV) == 1


@pytest.mark.parametrize(
    ("retired", "replicas", "pods", "there"),
    [("", 0, [], True), ("2026", 0, [], False), ("2026", 0, [pod(leaves=True)], True), ("2026", 1, [], True)],
    ids=["asleep", "retired", "drains", "still wanted"],
)
def test_a_retired_revision_is_gone_with_its_last_pod(retired: str, replicas: int, pods: list, there: bool) -> None:
    found = seen(deployments=[deployment(replicas, **{RETIRED: retired})], pods=pods)
    assert (found.of(REV) is not None) is there


@pytest.mark.parametrize(
    ("scaled", "hpas", "wanted"),
    [
        ([], [], 2),
        ([{"minReplicaCount": 4}], [], 4),
        ([{"minReplicaCount": 1}], [], 2),
        ([{PAUSED: "0"}], [], 0),
        ([{PAUSED: "many"}], [], 2),
        ([{"minReplicaCount": None}], [], 2),
        ([], [{"minReplicas": 3, "maxReplicas": 5}], 3),
        ([], [{"minReplicas": None, "maxReplicas": None}], 2),
    ],
)
def test_what_is_wanted_is_what_the_autoscaler_was_told(scaled: list, hpas: list, wanted: int) -> None:
    def scaler(spec: dict) -> dict[str, Any]:
        notes = {PAUSED: spec[PAUSED]} if PAUSED in spec else {}
        bounds = {key: value for key, value in spec.items() if key != PAUSED}
        return {"metadata": {"name": "a", "annotations": notes}, "spec": {**bounds, "scaleTargetRef": {"name": "m-1"}}}

    found = seen(scaled=[scaler(one) for one in scaled], hpas=[scaler(one) for one in hpas]).of(REV)
    assert found is not None
    assert found.wanted == wanted


SCHEDULED = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
NO_PLACE = {
    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": SCHEDULED}]
}
ENDED = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({}, ""),
        ({"containerStatuses": [waiting("ContainerCreating")]}, ""),
        ({"containerStatuses": [{"name": "engine", "state": {"running": {}}}]}, ""),
        (NO_PLACE, "pod p1 has no place: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu"),
        (
            {"containerStatuses": [waiting("CrashLoopBackOff", restartCount=3, lastState=ENDED)]},
            "container `engine` of p1 ended with exit code 137 (OOMKilled), 3 times",
        ),
        ({"containerStatuses": [waiting("CrashLoopBackOff")]}, "container `engine` of p1 crashes again and again"),
        (
            {"containerStatuses": [waiting("ImagePullBackOff", "Back-off pulling image x:1")]},
            "the image of container `engine` of p1 cannot be had (ImagePullBackOff): Back-off pulling image x:1",
        ),
        (
            {"containerStatuses": [waiting("CreateContainerConfigError", 'secret "x" not found')]},
            'container `engine` of p1 cannot be started (CreateContainerConfigError): secret "x" not found',
        ),
        (
            {
                "initContainerStatuses": [
                    {"name": "model", "state": {"terminated": {"exitCode": 11, "reason": "Error"}}}
                ]
            },
            "the init container `model` of pod p1 ended with exit code 11",
        ),
    ],
    ids=["new", "creating", "loading", "no place", "crash", "crash without end", "image", "config", "model pull"],
)
def test_a_trouble_is_said_in_a_sentence(status: dict, says: str) -> None:
    assert problem(status) == says


def test_the_worst_trouble_is_said_and_how_many_have_it() -> None:
    bad = {"containerStatuses": [waiting("ErrImagePull", "no such image")]}
    assert problem(NO_PLACE, bad).startswith("the image of")
    quota = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota\x1b[0m:\n gpus"}
    assert problem(NO_PLACE, conditions=(quota,)) == "pods cannot be made: exceeded quota?[0m: gpus"


def test_what_is_said_is_short() -> None:
    assert len(problem({"containerStatuses": [waiting("ErrImagePull", "x" * 9999)]})) < 500


LATE = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
CRASHED = pod(containerStatuses=[waiting("CrashLoopBackOff", restartCount=5, lastState=ENDED)])


@pytest.mark.parametrize(
    ("one", "pods", "given_up"),
    [
        (deployment(2, LATE), [], True),
        (deployment(0, LATE, **{RETIRED: "x"}), [pod(leaves=True)], False),
        ({**deployment(2, LATE), "status": {"observedGeneration": 2, "conditions": [LATE]}}, [], False),
        (deployment(2), [CRASHED], True),
        (deployment(2), [CRASHED, pod("p2")], False),
        (deployment(2), [], False),
    ],
    ids=["late", "retired", "an older generation", "crashes", "one of two crashes", "new"],
)
def test_when_waiting_is_of_no_use(one: dict, pods: list, given_up: bool) -> None:
    found = seen(deployments=[one], pods=pods).of(REV)
    assert found is not None
    assert found.given_up is given_up


@pytest.mark.parametrize(
    ("data", "weights"),
    [
        ('{"model": "m", "weights": {"a": 90, "b": 10}}', {"a": 90.0, "b": 10.0}),
        ('{"model": "other", "weights": {"a": 90}}', {}),
        ('{"model": "m", "weights": {"a": -1}}', {}),
        ('{"model": "m", "weights": {"a": 0}}', {}),
        ('{"model": "m", "weights": []}', {}),
        ("{" * 100_000, {}),
        ("", {}),
        (3, {}),
        (None, {}),
    ],
    ids=["good", "another model", "negative", "nothing", "a list", "deep", "empty", "a number", "null"],
)
def test_weights_that_no_gateway_takes_are_none(data: Any, weights: dict) -> None:
    assert read_weights({"data": {traffic_key("m"): data}}, "m") == weights
    assert read_weights({"data": data}, "m") == {}
    assert read_weights(None, "m") == {}


@pytest.mark.parametrize("body", [{"metadata": 3}, {"metadata": {"labels": {"a": 1}}}, {"spec": {"replicas": "two"}}])
def test_strange_objects_are_refused(body: dict) -> None:
    with pytest.raises(UnreachableError, match="strange Deployment"):
        views([body], Deployment)
