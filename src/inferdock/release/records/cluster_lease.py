"""The lease of a model's releases in a cluster: a Lease object, taken by compare-and-set and renewed while it is held.

No two clocks are compared: a lease counts as left behind when it was seen unchanged for its whole duration, by the
clock of whoever looks, and the holder stops earlier than that, by its own. While the API does not answer, the holder
waits: nobody can have taken what is still the same when it answers again.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from inferdock.domain.errors import ConflictError, UnreachableError
from inferdock.kube.errors import ApiConflict, ApiMissing, KubeError
from inferdock.kube.naming import label_value
from inferdock.kube.objects_api import KubeObjects
from inferdock.kube.resources import LEASES, KubeObject
from inferdock.release.clock import Clock
from inferdock.release.records.cluster_names import MANAGER, MODEL, lease_name
from inferdock.release.records.lease import HOLDER_BYTES, shown, taken_by

MAX_DURATION_S: Final = 300
"""Whatever a Lease says; nobody waits longer for one that was left behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Of a lease, in seconds.

    Attributes:
        duration_s: unchanged for so long, it may be taken.
        stop_s: after so long without a renewal its holder does nothing more; the rest is for what is on its way.
        renew_s: between renewals.
        patience_s: that the holder waits for an API that does not answer.
        look_s: between two looks at somebody else's lease.
    """

    duration_s: float = 20.0
    stop_s: float = 12.0
    renew_s: float = 4.0
    patience_s: float = 600.0
    look_s: float = 0.5


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""


class _Lease(msgspec.Struct, frozen=True):
    metadata: _Meta = _Meta()
    spec: _Spec = _Spec()


class ClusterLease:
    """The lease of one model.

    Args:
        api: the cluster.
        namespace: where the model is.
        model: name that clients use.
        clock: this machine's.
        timing: how long for what.
    """

    def __init__(
        self, api: KubeObjects, *, namespace: str, model: str, clock: Clock, timing: Timing | None = None
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = lease_name(model)
        self._labels = {MODEL: label_value(model)}
        self._clock = clock
        self._timing = timing or Timing()
        self._identity = ""
        self._version = ""
        self._renewed = 0.0
        self._lost = ""
        self._seen: tuple[_Spec, float] | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def acquire(self, holder: str, *, patient: bool = False) -> None:
        """See `lease.Lease`."""
        if self._renewing is not None:
            raise ConflictError("This process holds the lease already.")
        self._identity = f"{holder[:HOLDER_BYTES]} {secrets.token_hex(4)}"
        while not await self._try():
            if not patient:
                raise taken_by(self._other())
            before = self._seen
            await self._clock.sleep(self._timing.look_s)
            if await self._try():
                break
            if before is not None and self._seen is not None and self._seen[0] != before[0]:
                raise taken_by(self._other())  # it is renewed, so somebody is there
        self._lost = ""
        self._renewing = asyncio.create_task(self._keep_renewing())

    async def check(self) -> None:
        """See `lease.Lease`."""
        if self._renewing is None:
            raise ConflictError("The lease is not held.")
        end = self._clock.monotonic() + self._timing.patience_s
        while not self._lost and self._clock.monotonic() - self._renewed >= self._timing.stop_s:
            if self._clock.monotonic() >= end:
                self._lost = f"The lease {self._name} could not be renewed for {self._timing.patience_s:g} s."
                break
            await self._clock.sleep(self._timing.look_s)
        if self._lost:
            raise ConflictError(self._lost, cure="Look at the release's status; resume it where nobody is at it.")

    async def release(self) -> None:
        """See `lease.Lease`."""
        if self._renewing is None:
            return
        self._renewing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._renewing
        self._renewing = None
        if not self._lost:
            with contextlib.suppress(KubeError):  # then it is left behind, and runs out
                await self._write({"holderIdentity": ""})

    # -- taking ----------------------------------------------------------------------------------------------

    async def _try(self) -> bool:
        """Take it if it is free."""
        began = self._clock.monotonic()
        there = await self._api.get(LEASES, self._namespace, self._name)
        try:
            if there is None:
                await self._make()
            else:
                lease = _read(there)
                if not (lease.spec.holder_identity == self._identity or self._is_free(lease)):
                    return False
                self._version = lease.metadata.resource_version
                turns = min(max(lease.spec.lease_transitions or 0, 0), 2**30) + 1
                await self._write({"holderIdentity": self._identity, "leaseTransitions": turns})
        except ApiConflict:
            return False  # somebody was faster; the next look says who
        self._renewed = began
        return True

    def _is_free(self, lease: _Lease) -> bool:
        """Whether nobody holds it, or whoever did has gone."""
        now = self._clock.monotonic()
        if self._seen is None or self._seen[0] != lease.spec:
            self._seen = (lease.spec, now)
        duration = min(max(lease.spec.lease_duration_seconds or 0, 1), MAX_DURATION_S)
        return not lease.spec.holder_identity or now - self._seen[1] >= duration

    def _other(self) -> str:
        holder = (self._seen[0].holder_identity or "") if self._seen is not None else ""
        return shown(holder.rpartition(" ")[0] or holder)

    async def _make(self) -> None:
        spec = self._spec({"holderIdentity": self._identity, "leaseTransitions": 0})
        body = {"metadata": {"name": self._name, "labels": self._labels}, "spec": spec}
        self._version = _version(await self._api.create(LEASES, self._namespace, body, manager=MANAGER))

    # -- holding ---------------------------------------------------------------------------------------------

    async def _keep_renewing(self) -> None:
        while not self._lost:
            await self._clock.sleep(self._timing.renew_s)
            began = self._clock.monotonic()
            try:
                await self._renew()
            except ApiMissing:
                self._lost = f"The lease {self._name} was deleted while it was held."
            except UnreachableError:
                continue  # `check` sees how old the last renewal is
            self._renewed = began

    async def _renew(self) -> None:
        try:
            await self._write({"holderIdentity": self._identity})
        except ApiConflict:  # somebody changed it, or an earlier answer was lost
            there = await self._api.get(LEASES, self._namespace, self._name)
            lease = _read(there) if there is not None else _Lease()
            if lease.spec.holder_identity != self._identity:
                holder = lease.spec.holder_identity or ""
                self._lost = f"The lease {self._name} was taken by {shown(holder.rpartition(' ')[0] or holder)}."
                return
            self._version = lease.metadata.resource_version
            await self._write({"holderIdentity": self._identity})

    async def _write(self, spec: Mapping[str, object]) -> None:
        """Change it, if nobody else did meanwhile."""
        body = {"metadata": {"resourceVersion": self._version}, "spec": self._spec(spec)}
        self._version = _version(await self._api.patch(LEASES, self._namespace, self._name, body, manager=MANAGER))

    def _spec(self, more: Mapping[str, object]) -> dict[str, Any]:
        # The times are for people who look at the object: nobody here compares them with a clock.
        now = f"{self._clock.now():%Y-%m-%dT%H:%M:%S.%f}Z"
        return {"leaseDurationSeconds": max(1, round(self._timing.duration_s)), "renewTime": now, **more}


def _read(body: KubeObject) -> _Lease:
    try:
        return msgspec.convert(body, _Lease)
    except (msgspec.ValidationError, RecursionError) as exc:
        raise UnreachableError(f"The Kubernetes API sent a strange Lease: {exc}.") from exc


def _version(body: KubeObject) -> str:
    return _read(body).metadata.resource_version
