"""Releases of a model in a Kubernetes cluster: how it is reached, and what keeps journal, lease and commands."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Final

from inferdock.app.platform import resolve_state_root
from inferdock.app.release_places import Place
from inferdock.config.settings import Settings
from inferdock.kube.objects_api import KubeObjects
from inferdock.kube.proxy import cluster_by, is_own_cluster
from inferdock.release.clock import SystemClock
from inferdock.release.drivers.kubernetes.driver import TRAFFIC, KubernetesDriver
from inferdock.release.drivers.kubernetes.meter import KubernetesMeter, ProxyReader
from inferdock.release.records.cluster_journal import ClusterJournals
from inferdock.release.records.cluster_lease import ClusterLease, Timing
from inferdock.release.records.cluster_mailbox import REQUESTS, Beside, ClusterMailbox, ClusterNotes
from inferdock.release.records.cluster_names import object_name
from inferdock.release.records.file_journal import FOLDER

ANSWER_S: Final = 7.0
"""Longest that the API may take: a change that is on its way when the lease is lost must be over before it is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Which model in which cluster.

    Attributes:
        model: name that clients use.
        namespace: where it is; None: kubectl's, or the pod's own.
        context: of kubectl's configuration; None: the current one.
        api_url: address of the API server; None: by `kubectl proxy`, or as the pod has it.
        take_over: set numbers of replicas even where somebody else has.
    """

    model: str
    namespace: str | None
    context: str | None
    api_url: str | None
    take_over: bool = False


@contextlib.asynccontextmanager
async def cluster_place(
    settings: Settings, environment: Mapping[str, str], cluster: Cluster, *, timing: Timing | None = None
) -> AsyncIterator[Place]:
    """A model in a cluster.

    Args:
        settings: the configuration.
        environment: of the process.
        cluster: which model in which cluster.
        timing: of the lease.

    Raises:
        ConfigError: the cluster cannot be reached like that.
        UnreachableError: it does not answer.
    """
    async with (
        cluster_by(cluster.api_url, cluster.context, environment) as access,
        KubeObjects(access, answer_timeout_s=ANSWER_S) as api,
    ):
        yield _place(settings, environment, cluster, api, timing)


def _place(
    settings: Settings, environment: Mapping[str, str], cluster: Cluster, api: KubeObjects, timing: Timing | None
) -> Place:
    namespace, model, clock = cluster.namespace or api.access.namespace, cluster.model, SystemClock()

    def mailbox(release: str) -> ClusterMailbox:
        return ClusterMailbox(Beside(api, namespace=namespace, model=model, release=release, what=REQUESTS))

    return Place(
        model=model,
        driver=KubernetesDriver(
            api,
            namespace=namespace,
            model=model,
            traffic_map=settings.gateway.kubernetes.traffic_config_map or TRAFFIC,
            inside=is_own_cluster(cluster.api_url, cluster.context, environment),
            take_over=cluster.take_over,
        ),
        meter=KubernetesMeter(api, namespace=namespace, model=model, reader=ProxyReader(api, namespace=namespace)),
        journals=ClusterJournals(api, namespace=namespace, model=model, clock=clock),
        lease=ClusterLease(api, namespace=namespace, model=model, clock=clock, timing=timing),
        mailbox=mailbox,
        notes=ClusterNotes(api, namespace=namespace, model=model),
        reports=resolve_state_root(settings, environment) / FOLDER / object_name(model),
    )
