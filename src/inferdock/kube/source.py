"""Follows the EndpointSlices of a namespace, and the weights of its traffic ConfigMap. Started by ``app``.

While the API cannot be reached, the endpoints and weights last heard of stay in use: replicas do not go away because
their registry did, and those that do are found out by the gateway's own health checks.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from inferdock.domain.endpoint import EndpointSpec
from inferdock.kube.access import ClusterAccess
from inferdock.kube.api import KubeClient
from inferdock.kube.endpoint_slices import SliceRules, SliceSet, read_slices
from inferdock.kube.errors import EndpointsRefused
from inferdock.kube.follow import STEADY_AFTER_S, Follower, Log
from inferdock.kube.objects import EndpointSlice, WatchEvent
from inferdock.kube.traffic_source import SetTraffic, TrafficSource

if TYPE_CHECKING:  # gateway processes do without the settings' library
    from inferdock.config.settings import KubernetesSettings

TRAFFIC_FIRST_S = 10.0
"""How long endpoints wait for the first weights: a gateway that starts in the middle of a release divides as told."""


class SliceApi(Protocol):
    """What is used of the Kubernetes API (``kube.api.KubeClient``)."""

    async def list_slices(self, namespace: str, selector: str) -> tuple[list[EndpointSlice], str]:
        """All slices, and the resource version to watch from."""

    def watch_slices(self, namespace: str, selector: str, version: str) -> AsyncGenerator[list[WatchEvent], None]:
        """Changes after a version; first an empty list once the server has taken the watch."""


class Changed(Protocol):
    """Who is told of changes (``replace_endpoints`` of a gateway)."""

    def __call__(self, specs: list[EndpointSpec], models: list[str], /) -> None:
        """All endpoints now, and all models that are served, be it by no endpoint at present.

        Raises:
            ValueError: these endpoints cannot be used; it will be asked again.
        """


class EndpointSliceSource:
    """Says which endpoints there are, each time that changes.

    Args:
        api: the cluster.
        namespace: where the slices are.
        selector: label selector that they match.
        rules: how they are read.
        log: told once when the API fails and once when it is back, and which slices cannot be used.
        steady_after_s, sleep, uniform: see :class:`~inferdock.kube.follow.Follower`.
    """

    def __init__(
        self,
        api: SliceApi,
        *,
        namespace: str,
        selector: str,
        rules: SliceRules,
        log: Log,
        steady_after_s: float = STEADY_AFTER_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._selector = selector
        self._rules = rules
        self._log = log
        self._changed: Changed | None = None
        self._slices = SliceSet()
        self._known: tuple[list[EndpointSpec], list[str]] | None = None
        self._problems: tuple[str, ...] = ()
        self._follower = Follower(
            self, what="endpoint slices", log=log, steady_after_s=steady_after_s, sleep=sleep, uniform=uniform
        )

    async def run(self, changed: Changed) -> None:
        """Follow the slices until cancelled.

        Args:
            changed: called after the first list, and again whenever endpoints or models differ from before.
        """
        self._changed = changed
        await self._follower.run()

    def name_revisions(self, names: Mapping[str, str]) -> None:
        """From now on these values of the label mean revisions whose names no label can hold."""
        if names != self._rules.revision_names:
            self._rules = replace(self._rules, revision_names=dict(names))
            if self._known is not None:
                with contextlib.suppress(EndpointsRefused):  # the next change of a slice tries again, and says so
                    self._publish()

    # -- What the follower asks for --------------------------------------------------------------------------

    async def read_all(self) -> str:
        """Take the slices that there are."""
        slices, version = await self._api.list_slices(self._namespace, self._selector)
        self._slices.replace(slices)
        self._publish()
        return version

    def watch(self, version: str) -> AsyncGenerator[list[WatchEvent], None]:
        """Changes of slices."""
        return self._api.watch_slices(self._namespace, self._selector, version)

    def take(self, events: list[WatchEvent]) -> str:
        """Take changes of slices."""
        for event in events:
            self._slices.apply(event)
        if any(event.type != "BOOKMARK" for event in events):
            self._publish()
        return events[-1].object.metadata.resource_version

    def kept(self) -> int:
        """Endpoints in use."""
        return len(self._known[0]) if self._known is not None else 0

    def _publish(self) -> None:
        reading = read_slices(self._slices, self._rules)
        if reading.problems != self._problems:
            self._problems = reading.problems
            level = "warning" if reading.problems else "info"
            self._log.event(level, "endpoint slices left out", why="; ".join(reading.problems) or "none any more")
        if self._known == (reading.specs, reading.models) or self._changed is None:
            return
        try:
            self._changed(list(reading.specs), list(reading.models))
        except ValueError as exc:
            raise EndpointsRefused(f"The endpoints cannot be used: {exc}.") from exc
        self._known = reading.specs, reading.models
        self._log.event("info", "endpoint slices changed", endpoints=len(reading.specs))


async def follow(
    settings: KubernetesSettings,
    access: ClusterAccess,
    *,
    log: Log,
    changed: Changed,
    set_traffic: SetTraffic | None = None,
) -> None:
    """Follow what the settings name, until cancelled.

    Args:
        settings: where to look and how to read it.
        access: the cluster.
        log: of this process.
        changed: as in :meth:`EndpointSliceSource.run`.
        set_traffic: as in :meth:`~inferdock.kube.traffic_source.TrafficSource.run`; None follows endpoints alone.
    """
    namespace = settings.namespace or access.namespace
    async with KubeClient(access) as client, asyncio.TaskGroup() as tasks:
        endpoints = EndpointSliceSource(
            client,
            namespace=namespace,
            selector=settings.label_selector,
            rules=SliceRules(port_name=settings.port_name, model_names=settings.model_names),
            log=log,
        )
        if settings.traffic_config_map is not None and set_traffic is not None:
            traffic = TrafficSource(client, namespace=namespace, name=settings.traffic_config_map, log=log)
            tasks.create_task(traffic.run(set_traffic, endpoints.name_revisions))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TRAFFIC_FIRST_S):
                    await traffic.tried.wait()
        tasks.create_task(endpoints.run(changed))
