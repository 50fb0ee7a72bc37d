"""What a release reads of Kubernetes objects, typed. Anything may be missing, or null as Go writes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar

import msgspec

from inferdock.domain.errors import UnreachableError
from inferdock.kube.resources import KubeObject

MAX_REPLICAS: Final = 10_000
View = TypeVar("View", bound=msgspec.Struct)


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    """`metadata`."""

    name: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None

    def label(self, key: str) -> str:
        """A label; "" when it is not there."""
        return (self.labels or {}).get(key, "")

    def note(self, key: str) -> str:
        """An annotation; "" when it is not there."""
        return (self.annotations or {}).get(key, "")


class Condition(msgspec.Struct, frozen=True):
    """One of an object's conditions."""

    type: str = ""
    status: str = ""
    reason: str | None = None
    message: str | None = None


class DeploymentSpec(msgspec.Struct, frozen=True):
    """What is wanted."""

    replicas: int | None = None


class DeploymentStatus(msgspec.Struct, frozen=True, rename="camel"):
    """What is there."""

    observed_generation: int = 0
    conditions: list[Condition] | None = None


class Deployment(msgspec.Struct, frozen=True):
    """A Deployment."""

    metadata: Meta = Meta()
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus | None = None

    @property
    def replicas(self) -> int:
        """How many are wanted; where nobody said so, the API's default."""
        return 1 if self.spec.replicas is None else self.spec.replicas

    def condition(self, kind: str) -> Condition | None:
        """One of its conditions."""
        found = (self.status.conditions or ()) if self.status is not None else ()
        return next((one for one in found if one.type == kind), None)


class Waiting(msgspec.Struct, frozen=True):
    """Why a container waits."""

    reason: str | None = None
    message: str | None = None


class Terminated(msgspec.Struct, frozen=True, rename="camel"):
    """How a container ended."""

    exit_code: int = 0
    reason: str | None = None
    message: str | None = None


class ContainerState(msgspec.Struct, frozen=True):
    """One of them is there."""

    waiting: Waiting | None = None
    terminated: Terminated | None = None


class ContainerStatus(msgspec.Struct, frozen=True, rename="camel"):
    """One container of a pod."""

    name: str = ""
    ready: bool = False
    restart_count: int = 0
    state: ContainerState | None = None
    last_state: ContainerState | None = None


class PodStatus(msgspec.Struct, frozen=True, rename="camel"):
    """How a pod is."""

    phase: str | None = None
    reason: str | None = None
    message: str | None = None
    pod_ip: str | None = msgspec.field(default=None, name="podIP")
    conditions: list[Condition] | None = None
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None


class ContainerPort(msgspec.Struct, frozen=True, rename="camel"):
    """A port of a container."""

    name: str | None = None
    container_port: int = 0


class Container(msgspec.Struct, frozen=True):
    """A container that a pod has."""

    name: str = ""
    ports: list[ContainerPort] | None = None


class PodSpec(msgspec.Struct, frozen=True):
    """What a pod is made of."""

    containers: list[Container] | None = None


class Pod(msgspec.Struct, frozen=True):
    """A pod."""

    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def leaves(self) -> bool:
        """Whether it was told to go."""
        return self.metadata.deletion_timestamp is not None

    @property
    def over(self) -> bool:
        """Whether it has ended and only its object is left, as of pods that were evicted."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def ready(self) -> bool:
        """Whether it says that it serves."""
        conditions = self.status.conditions or ()
        return not self.leaves and any(one.type == "Ready" and one.status == "True" for one in conditions)

    def port(self, *names: str) -> int | None:
        """The number of its port of the first of these names."""
        ports = [port for container in self.spec.containers or () for port in container.ports or ()]
        found = (port.container_port for name in names for port in ports if port.name == name)
        return next(found, None)


class Bounds(msgspec.Struct, frozen=True, rename="camel"):
    """Between how many replicas an autoscaler chooses; a ScaledObject and an HPA name these differently."""

    min_replica_count: int | None = None
    max_replica_count: int | None = None
    min_replicas: int | None = None
    max_replicas: int | None = None
    scale_target_ref: TargetRef | None = None


class TargetRef(msgspec.Struct, frozen=True):
    """What an autoscaler scales."""

    kind: str | None = None
    name: str = ""


class Autoscaler(msgspec.Struct, frozen=True):
    """A ScaledObject or a HorizontalPodAutoscaler."""

    metadata: Meta = Meta()
    spec: Bounds = Bounds()


def view(body: KubeObject, kind: type[View]) -> View:
    """An object, typed.

    Raises:
        UnreachableError: it is not what the API promises.
    """
    try:
        return msgspec.convert(body, kind)
    except (msgspec.ValidationError, RecursionError) as exc:
        raise UnreachableError(f"The Kubernetes API sent a strange {kind.__name__}: {exc}.") from exc


def views(bodies: Iterable[KubeObject], kind: type[View]) -> tuple[View, ...]:
    """Objects, typed.

    Raises:
        UnreachableError: one is not what the API promises.
    """
    return tuple(view(body, kind) for body in bodies)
