"""How many replicas a revision has in a cluster: through its Deployments, or through the autoscaler that owns them."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from datetime import UTC, datetime
from typing import Final, TypeVar

from inferdock.domain.errors import ConfigError, ConflictError, ModelError
from inferdock.domain.moment import spell
from inferdock.kube.errors import ApiConflict, ApiMissing, ApiRefused, KubeError
from inferdock.kube.objects_api import KubeObjects
from inferdock.kube.resources import DEPLOYMENTS, HPAS, SCALED_OBJECTS, KubeObject, Resource
from inferdock.release.drivers.kubernetes.seen import PAUSED, Fleet, Scaler, Seen
from inferdock.release.drivers.kubernetes.template import ALLOWED
from inferdock.release.drivers.kubernetes.views import Deployment, Meta, view
from inferdock.release.records.cluster_names import AUTOSCALED, HELM, MANAGER, MODEL, OWN_BOUNDS, RETIRED, REVISION

KEPT: Final = 3
"""Retired revisions whose objects stay for a quick way back."""
COUNTS: Final = f"{MANAGER}-scale"
"""Field manager of numbers of replicas. One of its own: what a manager applies no longer is taken away."""
CHART: Final = frozenset({"helm", "Helm"})
"""The chart says how many there are at first; from then on releases do."""
AUTOSCALER: Final = "kube-controller-manager"
T = TypeVar("T")


class Scale:
    """Sets numbers of replicas of one model.

    Args:
        api: the cluster.
        namespace: where the model is.
        label: the model, as its objects are labelled.
        take_over: set them even where somebody else has.
    """

    def __init__(self, api: KubeObjects, *, namespace: str, label: str, take_over: bool) -> None:
        self._api = api
        self._namespace = namespace
        self._label = label
        self._take_over = take_over

    async def grow(self, fleet: Fleet, replicas: int) -> None:
        """Have at least so many; it is retired no longer."""
        for one in fleet.deployments:
            if one.metadata.note(RETIRED):
                await self._note(DEPLOYMENTS, one.metadata, {RETIRED: None})
        divided = fleet.divided(replicas)
        for one in fleet.deployments:
            scaler, wanted = fleet.scalers.get(one.metadata.name), divided[one.metadata.name]
            if scaler is not None:
                await self._at_least(scaler, wanted)
            if one.replicas < wanted and (scaler is None or not scaler.keda):
                await self._set(one, wanted, autoscaled=scaler is not None)

    async def shrink(self, fleet: Fleet, replicas: int) -> None:
        """Have so many, where there are more."""
        divided = fleet.divided(replicas)
        for one in fleet.deployments:
            scaler, wanted = fleet.scalers.get(one.metadata.name), divided[one.metadata.name]
            if fleet.wanted_of(one) <= wanted:
                continue
            if scaler is not None:
                await self._hold_at(scaler, wanted)
            if scaler is None or not scaler.keda:
                await self._set(one, wanted, autoscaled=scaler is not None)

    async def stop(self, fleet: Fleet) -> None:
        """Have none, and note that it is retired."""
        for one in fleet.deployments:
            scaler = fleet.scalers.get(one.metadata.name)
            if not one.metadata.note(RETIRED):
                more = {AUTOSCALED: "true"} if scaler is not None and not scaler.keda else {}
                await self._note(DEPLOYMENTS, one.metadata, {RETIRED: spell(datetime.now(UTC)), **more})
            if scaler is not None:
                await self._hold_at(scaler, 0)
            if one.replicas and (scaler is None or not scaler.keda):
                await self._set(one, 0, autoscaled=scaler is not None)

    async def relax(self, fleets: Iterable[Fleet]) -> None:
        """Give autoscalers of revisions that serve their own bounds back."""
        for scaler in (scaler for fleet in fleets if not fleet.retired for scaler in fleet.scalers.values()):
            if (own := _own_bounds(scaler)) is not None and scaler.held is None:
                await self._bound(scaler, *own, note=None)

    async def prune(self, seen: Seen) -> None:
        """Delete the objects of revisions that were retired long ago; what Helm made is Helm's to delete."""
        gone = [
            fleet
            for name, fleet in seen.fleets.items()
            if fleet.retired and not fleet.helms and not fleet.wanted and not fleet.pods and not seen.weights.get(name)
        ]
        gone.sort(key=lambda fleet: max(one.metadata.note(RETIRED) for one in fleet.deployments), reverse=True)
        for fleet in gone[KEPT:]:
            await self._delete(fleet.deployments[0].metadata.label(REVISION))

    # -- autoscalers -----------------------------------------------------------------------------------------

    async def _at_least(self, scaler: Scaler, replicas: int) -> None:
        """Have an autoscaler choose again, and not fewer than this."""
        own = _own_bounds(scaler) or (scaler.least, scaler.most)
        if replicas > own[1]:
            raise ConfigError(
                f"{replicas} replicas are wanted, and the autoscaler {scaler.body.metadata.name} allows {own[1]}.",
                cure="Ask for fewer, or raise its maximum.",
            )
        if scaler.held is not None:
            await self._note(SCALED_OBJECTS, scaler.body.metadata, {PAUSED: None})
        if scaler.least < replicas or scaler.most != own[1]:
            await self._bound(scaler, max(replicas, own[0]), own[1], note=f"{own[0]},{own[1]}")

    async def _hold_at(self, scaler: Scaler, replicas: int) -> None:
        """Have an autoscaler hold a number, whatever the load."""
        meta = scaler.body.metadata
        if scaler.keda:
            if scaler.held != replicas:
                await self._note(SCALED_OBJECTS, meta, {PAUSED: str(replicas)})
        elif replicas:
            own = _own_bounds(scaler) or (scaler.least, scaler.most)
            await self._bound(scaler, replicas, replicas, note=f"{own[0]},{own[1]}")
        elif not meta.note(HELM):  # one that Helm made stays: it does nothing for a Deployment of no replicas
            await told(self._api.delete(HPAS, self._namespace, meta.name, uid=meta.uid))

    async def _bound(self, scaler: Scaler, least: int, most: int, *, note: str | None) -> None:
        meta = scaler.body.metadata
        resource = SCALED_OBJECTS if scaler.keda else HPAS
        if meta.note(OWN_BOUNDS) != (note or ""):
            await self._note(resource, meta, {OWN_BOUNDS: note})
        # Always the same fields: one that is left out the next time would be taken away.
        bounds = {"minReplicaCount": least} if scaler.keda else {"minReplicas": least, "maxReplicas": most}
        body: dict[str, object] = {"metadata": {"uid": meta.uid}, "spec": bounds}
        await self._apply(resource, meta.name, body, f"the bounds of {resource.kind} {meta.name}")

    # -- Deployments -----------------------------------------------------------------------------------------

    async def _set(self, deployment: Deployment, replicas: int, *, autoscaled: bool) -> None:
        """Set its replicas; an autoscaler of ours that set them before is no stranger."""
        name = deployment.metadata.name
        known = {AUTOSCALER} if autoscaled or deployment.metadata.note(AUTOSCALED) else set()
        body: dict[str, object] = {"spec": {"replicas": replicas}}
        what = f"the number of replicas of Deployment {name}"
        await self._apply(DEPLOYMENTS, name, body, what, subresource="scale", known=frozenset(known))

    async def _apply(
        self,
        resource: Resource,
        name: str,
        body: dict[str, object],
        what: str,
        *,
        subresource: str = "",
        known: frozenset[str] = frozenset(),
    ) -> None:
        async def apply(*, force: bool) -> KubeObject:
            return await self._api.apply(
                resource, self._namespace, name, body, manager=COUNTS, force=force, subresource=subresource
            )

        try:
            await apply(force=self._take_over)
        except ApiConflict as exc:
            strangers = sorted({who for who, _ in exc.owners if not (_is_ours(who) or who in known)})
            if strangers or not exc.owners:
                raise stranger(exc, what, strangers) from exc
            await told(apply(force=True))
        except ApiRefused as exc:
            raise refused(exc) from exc

    async def _note(self, resource: Resource, meta: Meta, notes: dict[str, str | None]) -> None:
        """Set annotations that only releases set."""
        body: dict[str, object] = {"metadata": {"uid": meta.uid, "annotations": notes}}
        await told(self._api.patch(resource, self._namespace, meta.name, body, manager=f"{MANAGER}-notes"))

    async def _delete(self, label: str) -> None:
        selector = f"{MODEL}={self._label},{REVISION}={label}"
        for resource in reversed(ALLOWED):
            try:
                found, _ = await self._api.list(resource, self._namespace, selector=selector)
            except ApiMissing:
                continue
            for meta in [_meta(body) for body in found]:
                if not meta.note(HELM):
                    await told(self._api.delete(resource, self._namespace, meta.name, uid=meta.uid))


async def told(change: Awaitable[T]) -> T:
    """Make a change; a refusal says whether trying again is of use."""
    try:
        return await change
    except ApiConflict as exc:
        raise stranger(exc, "what a release changes", sorted({who for who, _ in exc.owners})) from exc
    except ApiRefused as exc:
        raise refused(exc) from exc


def stranger(exc: ApiConflict, what: str, owners: list[str]) -> ConflictError:
    """The error for a field that somebody else owns, or an object that somebody changed meanwhile."""
    if not owners:
        return ConflictError(exc.message)
    fields = ", ".join(sorted({field for _, field in exc.owners}))
    who = " and ".join(owners)
    autoscaler = AUTOSCALER in owners
    cure = (
        "An autoscaler sets it: put that into the model's template (the chart's `autoscaling`), or delete it."
        if autoscaler
        else "Have them leave it alone, or give --take-over."
    )
    return ConflictError(f"{what[0].upper()}{what[1:]} ({fields}) belongs to {who}.", cure=cure)


def refused(exc: ApiRefused) -> KubeError | ModelError | ConfigError:
    """The API's refusal, sorted by whether trying again may help."""
    if exc.status in (401, 403):
        return ConfigError(exc.message, cure=exc.cure)
    if exc.status in (400, 405, 415, 422):
        return ModelError(exc.message, cure="Look at the model's template.")
    return exc


def _is_ours(owner: str) -> bool:
    return owner in CHART or owner == MANAGER or owner.startswith(f"{MANAGER}-")


def _own_bounds(scaler: Scaler) -> tuple[int, int] | None:
    least, _, most = scaler.body.metadata.note(OWN_BOUNDS).partition(",")
    fine = all(text.isascii() and text.isdigit() and len(text) < 6 for text in (least, most))
    return (int(least), int(most)) if fine else None


def _meta(body: KubeObject) -> Meta:
    return view({"metadata": body["metadata"]}, Deployment).metadata
