"""What makes a fake cluster live: Deployments get pods, pods start and drain, Services get EndpointSlices, autoscalers
scale. Simpler than the real ones (no ReplicaSets), and alike in what can be seen from outside.

    async with running_fake_cluster() as cluster, controllers(cluster, backend=...) as at_work:
        at_work.plan = lambda pod: PodPlan(startup_s=2)
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from inferdock.kube.resources import (
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    HPAS,
    NODES,
    PODS,
    SCALED_OBJECTS,
    SERVICES,
    KubeObject,
)
from tests.support.fake_cluster import FakeCluster
from tests.support.fake_cluster_pods import PodPlan, pod_status
from tests.support.fake_cluster_slices import BY, BY_US, Insides, is_ready, slices_of
from tests.support.fake_cluster_store import Refused, now

TICK_S = 0.01
PAUSED = "autoscaling.keda.sh/paused-replicas"
Backend = Callable[[KubeObject], AbstractAsyncContextManager[tuple[str, int]]]
"""The server behind a pod, given the pod: entered when its container starts, left when it has drained."""


@dataclass
class Life:
    """One pod's inside: what the kubelet knows of it."""

    order: int
    scheduled: bool = False
    ready: bool = False
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    crashed: asyncio.Event = field(default_factory=asyncio.Event)
    address: tuple[str, int] | None = None
    restarts: int = 0
    task: asyncio.Task[None] | None = None


@dataclass
class Controllers:
    """Everything that works on the objects of one namespace; the fields may be changed while it does.

    Attributes:
        plan: how a pod comes up, or why not.
        backend: the real server behind each pod; None: pods have addresses where nobody is.
        room: how many pods fit on the cluster's one node; None: all.
        drain_s: from a pod's end of service until it is gone.
        deadline_s: without progress for so long a Deployment gives up; None: what it says itself.
        demand: replicas that an autoscaler would like, by the name of its Deployment.
        slices_late_s: endpoints are told so much later than pods change.
    """

    cluster: FakeCluster
    namespace: str = "ns"
    plan: Callable[[KubeObject], PodPlan] = lambda pod: PodPlan()
    backend: Backend | None = None
    room: int | None = None
    drain_s: float = 0.0
    deadline_s: float | None = None
    demand: dict[str, int] = field(default_factory=dict)
    slices_late_s: float = 0.0

    def __post_init__(self) -> None:
        self.store = self.cluster.store
        self.lives: dict[str, Life] = {}
        self._owner: dict[str, str] = {}
        self._progress: dict[str, tuple[object, float]] = {}
        self._made = 0
        self._slices_at: dict[str, tuple[object, float]] = {}

    @property
    def ready(self) -> list[str]:
        """Names of the pods that serve."""
        return [name for name, life in self.lives.items() if life.ready and not life.leaving.is_set()]

    def crash(self, pod: str) -> None:
        """The container of a pod dies at once and is started again."""
        self.lives[pod].crashed.set()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                self.reconcile()
                await asyncio.sleep(TICK_S)
        finally:
            tasks = [life.task for life in self.lives.values() if life.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def reconcile(self) -> None:
        """One round."""
        if self.room is not None:
            self._node(self.room)
        self._autoscale()
        deployments = self.store.all(DEPLOYMENTS, self.namespace)
        for deployment in deployments:
            self._replicas(deployment)
        self._orphans({one["metadata"]["uid"] for one in deployments})
        self._endpoints()
        for deployment in deployments:
            self._status(deployment)

    # -- Autoscalers -----------------------------------------------------------------------------------------

    def _autoscale(self) -> None:
        for one in self.store.all(SCALED_OBJECTS, self.namespace):
            spec = one["spec"]
            paused = (one["metadata"].get("annotations") or {}).get(PAUSED)
            least, most = spec.get("minReplicaCount", 0), spec.get("maxReplicaCount", 100)
            if paused is not None and paused.isdigit():
                least = most = int(paused)
            self._scale(spec["scaleTargetRef"]["name"], least, most, "keda-operator")
        for one in self.store.all(HPAS, self.namespace):
            spec, name = one["spec"], one["spec"]["scaleTargetRef"]["name"]
            target = self.store.get(DEPLOYMENTS, self.namespace, name)
            if target is not None and target["spec"]["replicas"] > 0:  # at zero an HPA is switched off
                self._scale(name, spec["minReplicas"], spec["maxReplicas"], "kube-controller-manager")

    def _scale(self, name: str, least: int, most: int, manager: str) -> None:
        target = self.store.get(DEPLOYMENTS, self.namespace, name)
        if target is None:
            return
        have = target["spec"]["replicas"]
        wanted = max(least, min(most, self.demand.get(name, have)))
        if wanted != have:
            self.store.patch(DEPLOYMENTS, self.namespace, name, {"spec": {"replicas": wanted}}, manager, "scale")

    # -- Deployments and pods --------------------------------------------------------------------------------

    def _pods_of(self, deployment: KubeObject) -> list[KubeObject]:
        uid = deployment["metadata"]["uid"]
        return [
            pod
            for pod in self.store.all(PODS, self.namespace)
            if self._owner.get(pod["metadata"]["name"]) == uid and "deletionTimestamp" not in pod["metadata"]
        ]

    def _replicas(self, deployment: KubeObject) -> None:
        wanted, stamp = deployment["spec"]["replicas"], _hash(deployment)
        pods = self._pods_of(deployment)
        new = [pod for pod in pods if pod["metadata"]["labels"]["pod-template-hash"] == stamp]
        old = [pod for pod in pods if pod not in new]
        recreate = deployment["spec"]["strategy"].get("type") == "Recreate"
        if not (recreate and old):
            for _ in range(min(wanted - len(new), wanted + (1 if old else 0) - len(pods))):
                self._make_pod(deployment, stamp)
        for pod in self._least_useful(new)[: max(0, len(new) - wanted)]:
            self.take_away(pod)
        ready = sum(self.lives[pod["metadata"]["name"]].ready for pod in pods)
        for pod in self._least_useful(old):
            serves = self.lives[pod["metadata"]["name"]].ready
            if recreate or not serves or ready > wanted:
                self.take_away(pod)
                ready -= serves

    def _least_useful(self, pods: list[KubeObject]) -> list[KubeObject]:
        lives = self.lives
        return sorted(pods, key=lambda p: (lives[p["metadata"]["name"]].ready, -lives[p["metadata"]["name"]].order))

    def _make_pod(self, deployment: KubeObject, stamp: str) -> None:
        self._made += 1
        template, name = deployment["spec"]["template"], f"{deployment['metadata']['name']}-{stamp}-{self._made:05x}"
        meta = template.get("metadata") or {}
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name[:-6], "uid": f"rs-{stamp}"}
        pod = {
            "metadata": {
                "name": name,
                "labels": {**(meta.get("labels") or {}), "pod-template-hash": stamp},
                "annotations": dict(meta.get("annotations") or {}),
                "ownerReferences": [{**owner, "controller": True}],
            },
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }
        self._owner[name] = deployment["metadata"]["uid"]
        made = self.store.create(PODS, self.namespace, pod, "kube-controller-manager")
        life = self.lives[name] = Life(order=self._made)
        life.task = asyncio.create_task(self._live(made, life))

    def take_away(self, pod: KubeObject) -> None:
        """Delete a pod as the API does: it is told to end, and is gone when it has."""
        name = pod["metadata"]["name"]
        with contextlib.suppress(Refused):
            self.store.patch(PODS, self.namespace, name, {"metadata": {"deletionTimestamp": now()}}, "kube-apiserver")
        self.lives[name].leaving.set()

    def _orphans(self, alive: set[str]) -> None:
        """Pods go with their Deployment, and what a pod had goes with the pod."""
        for name, life in list(self.lives.items()):
            pod = self.store.get(PODS, self.namespace, name)
            if pod is None:
                life.leaving.set()
                if life.task is not None and life.task.done():
                    del self.lives[name]
            elif self._owner[name] not in alive and not life.leaving.is_set():
                self.take_away(pod)

    async def _live(self, pod: KubeObject, life: Life) -> None:
        """A pod from Pending to gone."""
        name, plan = pod["metadata"]["name"], self.plan(pod)
        try:
            await self._find_room(pod, life, plan)
            while not life.leaving.is_set():
                life.crashed.clear()
                await self._run_container(pod, life, plan)
                life.restarts += 1
        finally:
            life.ready = life.scheduled = False
            for key in [key for key in self.cluster.backends if key[:2] == (self.namespace, name)]:
                del self.cluster.backends[key]
            with contextlib.suppress(Refused):
                self.store.delete(PODS, self.namespace, name)

    async def _find_room(self, pod: KubeObject, life: Life, plan: PodPlan) -> None:
        while not life.leaving.is_set():
            full = self.room is not None and sum(other.scheduled for other in self.lives.values()) >= self.room
            if not full and plan.trouble != "Unschedulable":
                life.scheduled = True
                return
            self._tell(pod, life, plan, "Unschedulable")
            await _first(life.leaving, TICK_S)

    async def _run_container(self, pod: KubeObject, life: Life, plan: PodPlan) -> None:
        """Until it is told to end or crashes."""
        if plan.trouble:
            self._tell(pod, life, plan, plan.trouble)
            await life.leaving.wait()
            return
        self._tell(pod, life, plan, "Starting")
        async with contextlib.AsyncExitStack() as stack:
            if self.backend is not None:
                life.address = await stack.enter_async_context(self.backend(pod))
                for port in _ports(pod):
                    self.cluster.backends[self.namespace, pod["metadata"]["name"], port] = life.address
            if not await _first(life.leaving, plan.startup_s):
                life.ready = True
                self._tell(pod, life, plan, "Ready")
                await _either(life.leaving, life.crashed)
            if life.crashed.is_set() and not life.leaving.is_set():
                life.ready = False
                self._tell(pod, life, plan, "Starting")
                return
            await asyncio.sleep(self.drain_s)

    def _tell(self, pod: KubeObject, life: Life, plan: PodPlan, state: str) -> None:
        meta = pod["metadata"]
        address = life.address[0] if life.address is not None else f"10.{life.order >> 8 & 255}.{life.order & 255}.1"
        status = pod_status(pod, plan, state, address=address if life.scheduled else "", restarts=life.restarts)
        change: dict[str, Any] = {"status": status}
        if life.scheduled:
            change["spec"] = {"nodeName": "node-1"}

        def changed(body: KubeObject) -> KubeObject:
            return {**body, "status": status, "spec": {**body["spec"], **change.get("spec", {})}}

        with contextlib.suppress(Refused):
            self.store.update(PODS, self.namespace, meta["name"], changed, "kubelet", "status")

    # -- Endpoints -------------------------------------------------------------------------------------------

    def _endpoints(self) -> None:
        pods = [pod for pod in self.store.all(PODS, self.namespace) if pod.get("status", {}).get("podIP")]
        wanted: dict[str, KubeObject] = {}
        for service in self.store.all(SERVICES, self.namespace):
            selector = service["spec"].get("selector") or {}
            if selector:
                members = [pod for pod in pods if selector.items() <= (pod["metadata"].get("labels") or {}).items()]
                wanted |= slices_of(service, [(pod, self._insides(pod)) for pod in members])
        if self._is_late(wanted):
            return
        have = {one["metadata"]["name"]: one for one in self.store.all(ENDPOINT_SLICES, self.namespace)}
        for name, one in wanted.items():
            if name not in have:
                self.store.create(ENDPOINT_SLICES, self.namespace, one, "kube-controller-manager")
            else:
                self._update_slice(name, one)
        for name, one in have.items():
            if name not in wanted and (one["metadata"].get("labels") or {}).get(BY) == BY_US:
                self.store.delete(ENDPOINT_SLICES, self.namespace, name)

    def _update_slice(self, name: str, one: KubeObject) -> None:
        def changed(body: KubeObject) -> KubeObject:
            return {**body, **one, "metadata": {**body["metadata"], **one["metadata"]}}

        self.store.update(ENDPOINT_SLICES, self.namespace, name, changed, "kube-controller-manager")

    def _is_late(self, wanted: dict[str, KubeObject]) -> bool:
        said = json.dumps(wanted, sort_keys=True)
        at = asyncio.get_running_loop().time()
        if self._slices_at.get("", (None, 0.0))[0] != said:
            self._slices_at[""] = (said, at)
        return at - self._slices_at[""][1] < self.slices_late_s

    def _insides(self, pod: KubeObject) -> Insides:
        life = self.lives.get(pod["metadata"]["name"])
        return Insides(life.ready, life.address) if life is not None else Insides(is_ready(pod), None)

    # -- Status ----------------------------------------------------------------------------------------------

    def _status(self, deployment: KubeObject) -> None:
        name, wanted = deployment["metadata"]["name"], deployment["spec"]["replicas"]
        live = self.store.get(DEPLOYMENTS, self.namespace, name)
        if live is None:
            return
        pods = self._pods_of(deployment)
        stamp = _hash(deployment)
        ready = sum(self.lives[pod["metadata"]["name"]].ready for pod in pods)
        updated = sum(pod["metadata"]["labels"]["pod-template-hash"] == stamp for pod in pods)
        counts = {"replicas": len(pods), "updatedReplicas": updated, "readyReplicas": ready, "availableReplicas": ready}
        status: KubeObject = {key: value for key, value in counts.items() if value}
        status["observedGeneration"] = deployment["metadata"]["generation"]
        if wanted > ready:
            status["unavailableReplicas"] = wanted - ready
        complete = updated == len(pods) == wanted == ready
        status["conditions"] = [
            _condition("Available", ready >= wanted, "MinimumReplicasAvailable", "MinimumReplicasUnavailable"),
            self._progressing(deployment, (updated, ready, stamp, wanted), complete),
        ]
        if live.get("status") != status:
            self.store.update(
                DEPLOYMENTS, self.namespace, name, lambda body: {**body, "status": status},
                "kube-controller-manager", "status",
            )  # fmt: skip

    def _progressing(self, deployment: KubeObject, seen: object, complete: bool) -> KubeObject:
        uid, at = deployment["metadata"]["uid"], asyncio.get_running_loop().time()
        if self._progress.get(uid, (None, 0.0))[0] != seen:
            self._progress[uid] = (seen, at)
        deadline = self.deadline_s if self.deadline_s is not None else deployment["spec"]["progressDeadlineSeconds"]
        late = not complete and at - self._progress[uid][1] > deadline
        made = _condition(
            "Progressing", not late, "NewReplicaSetAvailable" if complete else "ReplicaSetUpdated",
            "ProgressDeadlineExceeded",
        )  # fmt: skip
        if late:
            made["message"] = f'ReplicaSet "{deployment["metadata"]["name"]}" has timed out progressing.'
        return made

    def _node(self, room: int) -> None:
        said = {"allocatable": {"nvidia.com/gpu": str(room), "pods": "110"}}
        node = self.store.get(NODES, "", "node-1")
        if node is None:
            self.store.create(NODES, "", {"metadata": {"name": "node-1"}, "status": said})
        elif node["status"] != said:
            self.store.patch(NODES, "", "node-1", {"status": said})


def _hash(deployment: KubeObject) -> str:
    template = json.dumps(deployment["spec"]["template"], sort_keys=True)
    return hashlib.sha256(template.encode()).hexdigest()[:9]


def _ports(pod: KubeObject) -> list[int]:
    return [port["containerPort"] for container in pod["spec"]["containers"] for port in container.get("ports") or []]


def _condition(kind: str, holds: bool, reason: str, otherwise: str) -> KubeObject:
    return {"type": kind, "status": "True" if holds else "False", "reason": reason if holds else otherwise}


async def _first(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event came before the time was up."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


async def _either(one: asyncio.Event, other: asyncio.Event) -> None:
    tasks = [asyncio.create_task(event.wait()) for event in (one, other)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


@contextlib.asynccontextmanager
async def controllers(cluster: FakeCluster, **options: Any) -> AsyncIterator[Controllers]:
    """Run :class:`Controllers`; ``options`` are its fields."""
    at_work = Controllers(cluster, **options)
    task = asyncio.create_task(at_work.run())
    try:
        yield at_work
    finally:
        failed = task.done()
        task.cancel()
        if failed:
            await task
        with contextlib.suppress(asyncio.CancelledError):
            await task
