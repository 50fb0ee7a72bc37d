"""A model in a Kubernetes cluster: revisions are sets of objects, weights are a ConfigMap that the gateways follow.

A revision's objects are made once, of the model's template, and not changed after: a template that was changed since
must not restart what serves. Numbers of replicas are set where no autoscaler does; where one does, its bounds are. What
somebody else has set is not overwritten: they are named, and say what is to be done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from inferdock.domain.errors import ConfigError, ConflictError
from inferdock.domain.shadow import Shadow
from inferdock.kube.errors import ApiMissing, ApiRefused
from inferdock.kube.naming import label_value, traffic_key
from inferdock.kube.objects import EndpointSlice
from inferdock.kube.objects_api import KubeObjects
from inferdock.kube.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    HPAS,
    NODES,
    PODS,
    SCALED_OBJECTS,
    KubeObject,
    Resource,
)
from inferdock.kube.traffic import Division, traffic_value
from inferdock.release.driver import NOBODY_KNOWS, Observed, Room
from inferdock.release.drivers.kubernetes.room import NODES_COME, room_for_pod
from inferdock.release.drivers.kubernetes.scale import Scale, told
from inferdock.release.drivers.kubernetes.seen import Fleet, Seen, assembled, read_division, read_weights
from inferdock.release.drivers.kubernetes.template import OBJECTS, revision_parts
from inferdock.release.drivers.kubernetes.views import Autoscaler, Deployment, Pod, views
from inferdock.release.records.cluster_names import MANAGER, MODEL, TEMPLATE, traffic_manager
from inferdock.release.steps import Target

TRAFFIC: Final = "inferdock-traffic"
PERCENT: Final = 100.0
ALL_PODS: Final = Resource(PODS.api, PODS.plural, PODS.kind, namespaced=False)
"""Of every namespace: they share the nodes."""


class KubernetesDriver:
    """One model in one namespace.

    Args:
        api: the cluster.
        namespace: where the model is.
        model: name that clients use.
        traffic_map: name of the ConfigMap with the weights.
        inside: whether we run in the cluster, so that pods can be asked at their own addresses.
        take_over: set numbers of replicas even where somebody else has.
    """

    def __init__(
        self,
        api: KubeObjects,
        *,
        namespace: str,
        model: str,
        traffic_map: str = TRAFFIC,
        inside: bool = False,
        take_over: bool = False,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._model = model
        self._label = label_value(model)
        self._traffic_map = traffic_map
        self._inside = inside
        self._scale = Scale(api, namespace=namespace, label=self._label, take_over=take_over)

    async def observe(self) -> Observed:
        """See `driver.Driver`."""
        return (await self.look()).observed()

    async def look(self) -> Seen:
        """All that there is of the model."""
        deployments, pods, slices, scaled, hpas, traffic = await asyncio.gather(
            self._list(DEPLOYMENTS),
            self._list(PODS),
            self._list(ENDPOINT_SLICES),
            self._list(SCALED_OBJECTS),
            self._list(HPAS),
            self._api.get(CONFIG_MAPS, self._namespace, self._traffic_map),
        )
        return assembled(
            deployments=views(deployments, Deployment),
            pods=views(pods, Pod),
            slices=views(slices, EndpointSlice),
            scaled_objects=views(scaled, Autoscaler),
            hpas=views(hpas, Autoscaler),
            weights=read_weights(traffic, self._model),
        )

    async def room(self, target: Target) -> Room:
        """See `driver.Driver`; who may not see the cluster's nodes does not know."""
        text = await self._template()
        parts = revision_parts(text, target, model_label=self._label, namespace=self._namespace)
        main = next(part for part in parts if part.resource == DEPLOYMENTS)
        try:
            nodes, _ = await self._api.list(NODES, "")
            pods, _ = await self._api.list(ALL_PODS, "")
        except ApiRefused:
            return NOBODY_KNOWS
        return (
            NODES_COME if await self._grows() else room_for_pod(main.body["spec"]["template"].get("spec"), nodes, pods)
        )

    async def start(self, target: Target) -> None:
        """See `driver.Driver`."""
        seen = await self.look()
        fleet = seen.fleets.get(target.revision)
        if fleet is None or not fleet.helms:
            await self._keep_traffic(seen, target.revision)
            await self._make(target)
            fleet = await self._fleet(target.revision)
        if fleet is None:
            raise ConflictError(f"{target.reference} was made, and is not there.", cure="Who deletes it?")
        await self._scale.grow(fleet, target.replicas)

    async def scale(self, revision: str, replicas: int) -> None:
        """See `driver.Driver`."""
        if (fleet := await self._fleet(revision)) is not None:
            await self._scale.shrink(fleet, replicas)

    async def shift(self, weights: Mapping[str, float]) -> None:
        """See `driver.Driver`."""
        percent = {revision: round(share * PERCENT, 6) for revision, share in weights.items()}
        await self._divide(lambda present: Division(percent, present.shadow))

    async def mirror(self, revision: str | None, share: float) -> None:
        """See `driver.Driver`."""
        shadow = Shadow(revision, share) if revision is not None else None
        await self._divide(lambda present: Division(present.weights, shadow))

    async def _divide(self, change: Callable[[Division], Division]) -> None:
        """Tell the gateways.

        Only releases write there, so they win: the way back must not wait for whoever edited it by hand.
        """
        present = read_division(await self._api.get(CONFIG_MAPS, self._namespace, self._traffic_map), self._model)
        wanted = change(present)
        if wanted == present:
            return
        try:
            text = traffic_value(self._model, wanted.weights, wanted.shadow)
        except ValueError as exc:
            raise ConfigError(f"The gateways cannot be given this traffic: {exc}.") from exc
        await told(
            self._api.apply(
                CONFIG_MAPS,
                self._namespace,
                self._traffic_map,
                {"data": {traffic_key(self._model): text}},
                manager=traffic_manager(self._model),
                force=True,
            )
        )

    async def retire(self, revision: str) -> None:
        """See `driver.Driver`."""
        seen = await self.look()
        if (fleet := seen.fleets.get(revision)) is None:
            return
        await self._scale.stop(fleet)
        await self._scale.relax([one for name, one in seen.fleets.items() if name != revision])
        await self._scale.prune(seen)

    async def address(self, revision: str) -> tuple[str, ...]:
        """See `driver.Driver`."""
        fleet = await self._fleet(revision)
        pods = [pod for pod in fleet.pods if pod.ready] if fleet is not None else []
        return tuple(url for pod in pods if (url := self._url(pod)))

    # -- inside ----------------------------------------------------------------------------------------------

    def _url(self, pod: Pod) -> str:
        port = pod.port("http", "api") or 8000
        if not self._inside:
            return self._api.pod_proxy(self._namespace, pod.metadata.name, port)
        address = pod.status.pod_ip or ""
        host = f"[{address}]" if ":" in address else address
        return f"http://{host}:{port}" if address else ""

    async def _grows(self) -> bool:
        """Whether the cluster autoscaler is there; it leaves its status for everybody who may look."""
        try:
            return await self._api.get(CONFIG_MAPS, "kube-system", "cluster-autoscaler-status") is not None
        except ApiRefused:
            return False

    async def _list(self, resource: Resource) -> list[KubeObject]:
        try:
            found, _ = await self._api.list(resource, self._namespace, selector=f"{MODEL}={self._label}")
        except ApiMissing:  # the cluster has no such kind: KEDA is not installed
            return []
        return found

    async def _fleet(self, revision: str) -> Fleet | None:
        return (await self.look()).fleets.get(revision)

    async def _keep_traffic(self, seen: Seen, starting: str) -> None:
        """Where no weights were ever set any ready replica gets requests; those that serve keep them to themselves."""
        ready = {name: float(fleet.ready) for name, fleet in seen.fleets.items() if fleet.ready and name != starting}
        if not seen.weights and ready:
            await self.shift({name: count / sum(ready.values()) for name, count in ready.items()})

    async def _make(self, target: Target) -> None:
        """Make the objects of a revision that are not there."""
        text = await self._template()
        for part in revision_parts(text, target, model_label=self._label, namespace=self._namespace):
            if await self._api.get(part.resource, self._namespace, part.name) is None:
                await told(self._api.apply(part.resource, self._namespace, part.name, part.body, manager=MANAGER))

    async def _template(self) -> str:
        found, _ = await self._api.list(CONFIG_MAPS, self._namespace, selector=f"{TEMPLATE}=true,{MODEL}={self._label}")
        if not found:
            raise ConfigError(
                f"There is no template for {self._model} in namespace {self._namespace}.",
                cure="The chart makes it: `helm upgrade`, or `inferdock install`. Is --namespace right?",
            )
        if len(found) > 1:
            names = ", ".join(str(one["metadata"].get("name")) for one in found)
            raise ConfigError(f"{self._model} has several templates: {names}.", cure="Keep one of them.")
        data = found[0].get("data")
        text = data.get(OBJECTS) if isinstance(data, dict) else None
        if not isinstance(text, str):
            raise ConfigError(f"The template of {self._model} has no {OBJECTS}.", cure="Install the chart again.")
        return text
