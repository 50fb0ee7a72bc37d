"""From a cluster's objects to what a release observes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from inferdock.kube.naming import label_value, traffic_key
from inferdock.kube.objects import EndpointSlice
from inferdock.kube.resources import KubeObject
from inferdock.kube.traffic import UNDIVIDED, Division, TrafficState, read_traffic
from inferdock.release.driver import Observed, Running
from inferdock.release.drivers.kubernetes.troubles import gave_up, problem_of
from inferdock.release.drivers.kubernetes.views import MAX_REPLICAS, Autoscaler, Deployment, Pod
from inferdock.release.records.cluster_names import HELM, REFERENCE, REPLICAS, RETIRED, REVISION

PAUSED: Final = "autoscaling.keda.sh/paused-replicas"
"""Annotation of a ScaledObject: KEDA holds that many replicas."""


@dataclass(frozen=True, slots=True)
class Scaler:
    """What chooses the replicas of one Deployment.

    Attributes:
        of: name of the Deployment.
        keda: a ScaledObject; else a HorizontalPodAutoscaler.
        body: the object.
        least, most: between which it chooses.
        held: replicas that it holds whatever the load, None where it chooses.
    """

    of: str
    keda: bool
    body: Autoscaler
    least: int
    most: int
    held: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """One revision in the cluster.

    Attributes:
        revision: as endpoints carry it.
        deployments: the main one first.
        pods: all, those that leave among them.
        ready: endpoints that take requests.
        scalers: by name of the Deployment.
    """

    revision: str
    deployments: tuple[Deployment, ...]
    pods: tuple[Pod, ...] = ()
    ready: int = 0
    scalers: Mapping[str, Scaler] = field(default_factory=dict)

    @property
    def retired(self) -> bool:
        """Whether a release took it out of service."""
        return all(one.metadata.note(RETIRED) for one in self.deployments)

    @property
    def helms(self) -> bool:
        """Whether Helm made it: it is Helm's to delete."""
        return any(one.metadata.note(HELM) for one in self.deployments)

    @property
    def wanted(self) -> int:
        """Replicas that the cluster was told to run."""
        return sum(self.wanted_of(one) for one in self.deployments)

    def wanted_of(self, deployment: Deployment) -> int:
        """Replicas of one of its Deployments that the cluster was told to run."""
        scaler = self.scalers.get(deployment.metadata.name)
        if scaler is None:
            return deployment.replicas
        if scaler.held is not None:
            return scaler.held
        return max(deployment.replicas, scaler.least) if scaler.keda or deployment.replicas else 0

    def divided(self, replicas: int) -> dict[str, int]:
        """So many replicas by Deployment: those beside the main one have theirs, and it has the rest."""
        left, made = replicas, {}
        for one in self.deployments[1:]:
            made[one.metadata.name] = min(left, own_replicas(one))
            left -= made[one.metadata.name]
        return {self.deployments[0].metadata.name: left, **made} if self.deployments else {}

    def running(self) -> Running:
        """As a release sees it."""
        reference = next((text for one in self.deployments if (text := one.metadata.note(REFERENCE))), "")
        alive = [one for one in self.deployments if self.wanted_of(one)]
        return Running(
            revision=self.revision,
            reference=reference or self.revision,
            wanted=self.wanted,
            ready=self.ready,
            problem=problem_of(alive, self.pods) if alive else "",
            given_up=gave_up(alive, self.pods) if alive else False,
            stopping=sum(pod.leaves for pod in self.pods),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One model in the cluster.

    Attributes:
        fleets: its revisions, by name.
        weights: as the traffic ConfigMap has them; empty where none are set.
    """

    fleets: Mapping[str, Fleet]
    weights: Mapping[str, float]

    def observed(self) -> Observed:
        """As a release sees it: without revisions that are retired and gone."""
        here = [fleet for fleet in self.fleets.values() if not fleet.retired or fleet.wanted or fleet.pods]
        return Observed(revisions=tuple(fleet.running() for fleet in here), weights=dict(self.weights))


def assembled(
    *,
    deployments: Sequence[Deployment],
    pods: Sequence[Pod],
    slices: Sequence[EndpointSlice],
    scaled_objects: Sequence[Autoscaler],
    hpas: Sequence[Autoscaler],
    weights: Mapping[str, float],
) -> Seen:
    """Put together what was listed of one model."""
    scalers = {one.of: one for one in [_scaler(hpa, keda=False) for hpa in hpas if not _is_kedas(hpa)]}
    scalers |= {one.of: one for one in [_scaler(scaled, keda=True) for scaled in scaled_objects]}
    names = {label_value(name): name for name in weights}
    labels: dict[str, str] = {}
    for one in deployments:
        label = one.metadata.label(REVISION)
        labels[label] = one.metadata.note(REVISION) or labels.get(label) or names.get(label, label)
    fleets = {}
    for label, revision in labels.items():
        if not label:
            continue
        own = [one for one in deployments if one.metadata.label(REVISION) == label]
        own.sort(key=lambda one: (one.metadata.name not in scalers, len(one.metadata.name), one.metadata.name))
        fleet_pods = tuple(pod for pod in pods if pod.metadata.label(REVISION) == label)
        fleets[revision] = Fleet(
            revision=revision,
            deployments=tuple(own),
            pods=tuple(pod for pod in fleet_pods if not pod.over or pod.leaves),
            ready=_ready(label, slices, fleet_pods),
            scalers={one.metadata.name: scalers[one.metadata.name] for one in own if one.metadata.name in scalers},
        )
    return Seen(fleets=fleets, weights=weights)


def own_replicas(deployment: Deployment) -> int:
    """How many a Deployment beside the main one has when its revision runs."""
    text = deployment.metadata.note(REPLICAS)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0


def read_division(body: KubeObject | None, model: str) -> Division:
    """How the traffic ConfigMap divides a model's requests; not at all where it says nothing that gateways take."""
    data: Any = body.get("data") if body is not None else None
    key = traffic_key(model)
    text = data.get(key) if isinstance(data, dict) else None
    found = read_traffic({key: text}, TrafficState()) if isinstance(text, str) else TrafficState()
    return found.divisions.get(model, UNDIVIDED)


def read_weights(body: KubeObject | None, model: str) -> dict[str, float]:
    """A model's weights in the traffic ConfigMap."""
    return dict(read_division(body, model).weights)


def _ready(label: str, slices: Sequence[EndpointSlice], pods: Sequence[Pod]) -> int:
    """What the gateways may send requests to: endpoints that are ready and not on their way out.

    Without a Service there are no endpoints, and pods are all there is to go by.
    """
    own = [one for one in slices if (one.metadata.labels or {}).get(REVISION) == label]
    if not own:
        return sum(pod.ready for pod in pods)
    leaving = {pod.metadata.name for pod in pods if pod.leaves}
    found = set()
    for endpoint in [endpoint for one in own for endpoint in one.endpoints or ()]:
        conditions, target = endpoint.conditions, endpoint.target_ref
        out = conditions is not None and (conditions.ready is False or bool(conditions.terminating))
        if not out and endpoint.addresses and not (target is not None and target.name in leaving):
            found.add(endpoint.addresses[0] if target is None else target.name)
    return len(found)


def _scaler(found: Autoscaler, *, keda: bool) -> Scaler:
    spec = found.spec
    least = (spec.min_replica_count or 0) if keda else (1 if spec.min_replicas is None else spec.min_replicas)
    most = (100 if spec.max_replica_count is None else spec.max_replica_count) if keda else (spec.max_replicas or 1)
    held = found.metadata.note(PAUSED) if keda else ""
    return Scaler(
        of=spec.scale_target_ref.name if spec.scale_target_ref is not None else "",
        keda=keda,
        body=found,
        least=max(0, min(least, MAX_REPLICAS)),
        most=max(0, min(most, MAX_REPLICAS)),
        held=int(held) if held.isascii() and held.isdigit() and len(held) < 6 else None,
    )


def _is_kedas(hpa: Autoscaler) -> bool:
    """KEDA makes an HPA of each ScaledObject; that one is not ours to look after."""
    return bool(hpa.metadata.label("scaledobject.keda.sh/name"))
