"""Live figures of a model from all gateways of a namespace, added up.

Each gateway counts for itself and from nothing when it starts. So each pod's totals are followed on their own: what a
pod that has gone, or has begun anew, had counted stays in the sum, which therefore only grows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from inferdock.domain.errors import UnreachableError
from inferdock.kube.objects_api import KubeObjects
from inferdock.kube.resources import PODS
from inferdock.release.drivers.kubernetes.views import Pod, views
from inferdock.release.judging.figures import NOTHING, Counts, Histogram, Shadows
from inferdock.release.judging.readings import counts_of
from inferdock.telemetry.scrape import read_figures

GATEWAYS: Final = "app.kubernetes.io/component=gateway"
MAX_METRICS_BYTES: Final = 64 * 1024 * 1024
PORTS: Final = ("admin", "metrics", "http")
Figures = Mapping[str, Counts]


class Reader(Protocol):
    """How a gateway's figures are read."""

    async def read(self, pod: Pod) -> str:
        """The Prometheus text of a pod.

        Raises:
            UnreachableError: it does not answer.
        """
        ...


class ProxyReader:
    """Reads them by way of the API server, which works from anywhere.

    Args:
        api: the cluster.
        namespace: where the gateways are.
    """

    def __init__(self, api: KubeObjects, *, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    async def read(self, pod: Pod) -> str:
        """See :class:`Reader`."""
        port = pod.port(*PORTS) or 8080
        data = await self._api.read_pod(self._namespace, pod.metadata.name, port, "metrics", most=MAX_METRICS_BYTES)
        return data.decode("utf-8", "replace")


@dataclass(slots=True)
class _Life:
    """What one gateway pod has counted.

    Attributes:
        gone: by its earlier containers.
        last: by the present one, when it was read last.
    """

    gone: dict[str, Counts] = field(default_factory=dict)
    last: dict[str, Counts] = field(default_factory=dict)


class KubernetesMeter:
    """Reads and adds up.

    Args:
        api: the cluster.
        namespace: where the gateways are.
        model: whose figures.
        reader: how they are read.
    """

    def __init__(self, api: KubeObjects, *, namespace: str, model: str, reader: Reader) -> None:
        self._api = api
        self._namespace = namespace
        self._model = model
        self._reader = reader
        self._lives: dict[str, _Life] = {}

    async def read(self) -> Figures:
        """See `figures.Meter`.

        A pod that was read before and does not answer now counts as it was. One that was never read must answer, or
        all that it ever counted would later look as if it had happened just then.

        Raises:
            UnreachableError: no gateway is there, or one that is new does not answer.
        """
        found, _ = await self._api.list(PODS, self._namespace, selector=GATEWAYS)
        pods = [pod for pod in views(found, Pod) if pod.ready]
        if not pods:
            raise UnreachableError(
                f"No gateway is ready in namespace {self._namespace}.", cure=f"`kubectl get pods -l {GATEWAYS}` shows."
            )
        answers = await asyncio.gather(*(self._ask(pod) for pod in pods), return_exceptions=True)
        for pod, answer in zip(pods, answers, strict=True):
            if isinstance(answer, UnreachableError) and pod.metadata.uid in self._lives:
                continue
            if isinstance(answer, BaseException):
                raise answer
            self._take(pod, answer)
        return added([one for life in self._lives.values() for one in (life.gone, life.last)])

    async def _ask(self, pod: Pod) -> Figures:
        text = await self._reader.read(pod)
        found = await asyncio.to_thread(read_figures, text, self._model)
        return {revision: counts_of(figures) for revision, figures in found.items()}

    def _take(self, pod: Pod, now: Figures) -> None:
        life = self._lives.setdefault(pod.metadata.uid, _Life())
        if any(began_anew(before, now.get(revision, NOTHING)) for revision, before in life.last.items()):
            life.gone = dict(added([life.gone, life.last]))
        life.last = dict(now)


def began_anew(before: Counts, now: Counts) -> bool:
    """Whether a total fell, so that the counting began anew."""
    pairs = [(one.requests, one.errors, one.attempts, one.ttft.total, one.tpot.total) for one in (before, now)]
    return any(late < early for early, late in zip(*pairs, strict=True))


def added(readings: Sequence[Figures]) -> dict[str, Counts]:
    """Figures of several gateways together, by revision.

    Raises:
        UnreachableError: two of them count in different buckets, as while a new version of them is rolled out.
    """
    total: dict[str, Counts] = {}
    for reading in readings:
        for revision, counts in reading.items():
            total[revision] = plus(total[revision], counts) if revision in total else counts
    return total


def plus(one: Counts, other: Counts) -> Counts:
    """Two totals together.

    Raises:
        UnreachableError: they count in different buckets.
    """
    return Counts(
        requests=one.requests + other.requests,
        errors=one.errors + other.errors,
        ttft=_both(one.ttft, other.ttft),
        tpot=_both(one.tpot, other.tpot),
        attempts=one.attempts + other.attempts,
        failures=one.failures + other.failures,
        shadow=_shadows(one.shadow, other.shadow),
    )


def _shadows(one: Shadows, other: Shadows) -> Shadows:
    kinds = sorted({*one.different, *other.different})
    return Shadows(
        answered=one.answered + other.answered,
        failed=one.failed + other.failed,
        dropped=one.dropped + other.dropped,
        equal=one.equal + other.equal,
        different={kind: one.different.get(kind, 0) + other.different.get(kind, 0) for kind in kinds},
        ttft=_both(one.ttft, other.ttft),
        tpot=_both(one.tpot, other.tpot),
    )


def _both(one: Histogram, other: Histogram) -> Histogram:
    if not one.total or not other.total:
        return other if not one.total else one
    if one.bounds != other.bounds:
        raise UnreachableError("The gateways count in different buckets.", cure="Wait until all are of one version.")
    return Histogram(one.bounds, tuple(a + b for a, b in zip(one.counts, other.counts, strict=True)))
