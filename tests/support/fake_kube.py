"""EndpointSlices as the API writes them, and a fake cluster that is about nothing else."""

from __future__ import annotations

import contextlib
import itertools
import ssl
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import web

from inferdock.kube.resources import ENDPOINT_SLICES
from tests.support.fake_cluster import FakeCluster, Fault, serving

NS = "ns"
TOUCHED = "endpoints.kubernetes.io/last-change-trigger-time"


def endpoint(address: str = "10.0.0.1", pod: str | None = "pod-1", uid: str = "u1", **conditions: bool | None) -> dict:
    """An endpoint as the API writes it; conditions that are not given are left out."""
    made: dict = {"addresses": [address], "conditions": conditions}
    if pod is not None:
        made["targetRef"] = {"kind": "Pod", "name": pod, "namespace": "ns", "uid": uid}
    return made


def endpoint_slice(
    name: str = "llm-a",
    *endpoints: dict,
    model: str | None = "demo",
    revision: str | None = "r1",
    ports: list[dict] | None = None,
    family: str = "IPv4",
) -> dict:
    """An EndpointSlice as the API writes it, without a resource version."""
    labels = {"kubernetes.io/service-name": "llm"}
    labels |= {"inferdock.io/model": model} if model is not None else {}
    labels |= {"inferdock.io/revision": revision} if revision is not None else {}
    return {
        "kind": "EndpointSlice",
        "apiVersion": "discovery.k8s.io/v1",
        "metadata": {"name": name, "namespace": "ns", "labels": labels, "managedFields": [{"manager": "kcm"}]},
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "protocol": "TCP", "port": 8000}] if ports is None else ports,
    }


@dataclass
class FakeKube(FakeCluster):
    """A cluster of EndpointSlices in one namespace.

    Attributes:
        refusals: status codes (with headers) for the next requests, in order.
    """

    refusals: deque[tuple[int, dict[str, str]]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._times = itertools.count()

    @property
    def slices(self) -> list[dict]:
        """All slices that there are."""
        return self.store.all(ENDPOINT_SLICES, NS)

    @property
    def queries(self) -> list[dict[str, str]]:
        """Namespace and query of every request so far."""
        return [{"namespace": asked.path.split("/")[5], **asked.query} for asked in self.requests]

    async def put(self, one: dict) -> None:
        """Create or change a slice; each time is a change."""
        meta = {**one["metadata"], "annotations": {TOUCHED: str(next(self._times))}}
        meta.pop("managedFields", None)
        if self.store.get(ENDPOINT_SLICES, NS, meta["name"]) is None:
            self.store.create(ENDPOINT_SLICES, NS, {**one, "metadata": meta})
        else:
            self.store.update(ENDPOINT_SLICES, NS, meta["name"], lambda _: {**one, "metadata": meta})

    async def delete(self, name: str) -> None:
        """Delete a slice."""
        self.store.delete(ENDPOINT_SLICES, NS, name)

    async def bookmark(self) -> None:
        """Things elsewhere in the cluster raise the version, and watches hear of it."""
        self.store.bookmark(ENDPOINT_SLICES)

    async def compact(self) -> None:
        """Forget the history."""
        self.store.compact()

    def strikes(self, request: web.Request) -> Fault | None:
        """Refusals come before other faults."""
        if not self.refusals:
            return super().strikes(request)
        code, headers = self.refusals.popleft()
        return Fault("refuse", code=code, headers=headers)


@contextlib.asynccontextmanager
async def running_fake_kube(port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeKube]:
    """Serve a :class:`FakeKube` on 127.0.0.1."""
    fake = FakeKube()
    async with serving(fake, port, tls):
        yield fake
