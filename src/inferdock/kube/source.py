"""Follows the EndpointSlices of a namespace: list, watch, resume, list again. Started by ``app``.

::

    list --> watch --(the server ends it, or it is cut)--> pause --> watch from the last resource version
      ^                                                      |
      '------------------- 410 Gone, or nothing known yet ---'

While the API cannot be reached, the endpoints last heard of stay in use: replicas do not go away because their
registry did, and those that do are found out by the gateway's own health checks.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from inferdock.domain.endpoint import EndpointSpec
from inferdock.kube.access import ClusterAccess
from inferdock.kube.api import KubeClient
from inferdock.kube.endpoint_slices import SliceRules, SliceSet, read_slices
from inferdock.kube.errors import ApiGone, ApiNonsense, ApiRefused, EndpointsRefused, KubeError
from inferdock.kube.objects import EndpointSlice, WatchEvent

if TYPE_CHECKING:  # gateway processes do without the settings' library
    from inferdock.config.settings import KubernetesSettings

BACKOFF_S = 0.5
BACKOFF_MAX_S = 30.0
RETRY_AFTER_MAX_S = 120.0
LIST_AFTER_FAILURES = 3
"""Failures in a row after which our resource version is suspect (a restored etcd counts from an older one)."""
STEADY_AFTER_S = 5.0
"""A watch that ends sooner, without an event, counts as a failure: a server that ends each at once is not pressed."""


class SliceApi(Protocol):
    """What is used of the Kubernetes API (``kube.api.KubeClient``)."""

    async def list_slices(self, namespace: str, selector: str) -> tuple[list[EndpointSlice], str]:
        """All slices, and the resource version to watch from."""

    def watch_slices(self, namespace: str, selector: str, version: str) -> AsyncGenerator[list[WatchEvent], None]:
        """Changes after a version; first an empty list once the server has taken the watch."""


class Log(Protocol):
    """Where events go (``telemetry.logs.EventLog``)."""

    def event(self, level: str, event: str, **fields: str | int | float | bool | None) -> None:
        """Write one event."""


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
        steady_after_s: a watch that lives so long, or brings an event, ends a run of failures.
        sleep, uniform: for tests.

    Attributes:
        synced: whether a list has been read at least once.
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
        self._steady_after_s = steady_after_s
        self._sleep = sleep
        self._uniform = uniform
        self._slices = SliceSet()
        self._version: str | None = None
        self._specs: list[EndpointSpec] = []
        self._models: list[str] = []
        self._problems: tuple[str, ...] = ()
        self._failures = 0
        self._steady = False
        self._told: set[str] = set()
        self.synced = False

    async def run(self, changed: Changed) -> None:
        """Follow the slices until cancelled.

        Args:
            changed: called after the first list, and again whenever endpoints or models differ from before.
        """
        while True:
            self._steady = False
            failure: KubeError | None
            try:
                if self._version is None:
                    await self._list(changed)
                await self._watch(changed)
                failure = None if self._steady else ApiNonsense("The Kubernetes API ends each watch at once.")
            except KubeError as exc:
                failure = exc
            if failure is not None:
                self._failed(failure)
            await self._sleep(self._pause_s(failure))

    async def _list(self, changed: Changed) -> None:
        slices, self._version = await self._api.list_slices(self._namespace, self._selector)
        self._slices.replace(slices)
        self._publish(changed)

    async def _watch(self, changed: Changed) -> None:
        assert self._version is not None
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None
        watch = self._api.watch_slices(self._namespace, self._selector, self._version)
        try:
            async with contextlib.aclosing(watch) as batches:
                async for events in batches:
                    if events:
                        self._is_steady()
                        self._take(events, changed)
                    else:  # the server took the watch
                        timer = loop.call_later(self._steady_after_s, self._is_steady)
        finally:
            if timer is not None:
                timer.cancel()

    def _take(self, events: list[WatchEvent], changed: Changed) -> None:
        for event in events:
            self._slices.apply(event)
        self._version = events[-1].object.metadata.resource_version or self._version
        if any(event.type != "BOOKMARK" for event in events):
            self._publish(changed)

    def _publish(self, changed: Changed) -> None:
        reading = read_slices(self._slices, self._rules)
        if reading.problems != self._problems:
            self._problems = reading.problems
            level = "warning" if reading.problems else "info"
            self._log.event(level, "endpoint slices left out", why="; ".join(reading.problems) or "none any more")
        if not self.synced or (reading.specs, reading.models) != (self._specs, self._models):
            try:
                changed(list(reading.specs), list(reading.models))
            except ValueError as exc:
                raise EndpointsRefused(f"The endpoints cannot be used: {exc}.") from exc
            self.synced = True
            self._specs, self._models = reading.specs, reading.models
            self._log.event("info", "endpoint slices changed", endpoints=len(reading.specs))

    # -- Failures --------------------------------------------------------------------------------------------

    def _is_steady(self) -> None:
        self._steady = True
        self._failures = 0
        if self._told:
            self._told.clear()
            self._log.event("info", "endpoint slices followed again", endpoints=len(self._specs))

    def _failed(self, failure: KubeError) -> None:
        """Say it once per kind and outage; that a watch is cut and resumed is everyday life and not worth a line."""
        self._failures += 1
        if isinstance(failure, ApiGone | ApiNonsense | EndpointsRefused) or self._failures >= LIST_AFTER_FAILURES:
            self._version = None
        if isinstance(failure, ApiGone):
            self._log.event("debug", "endpoint slices are listed anew", reason=str(failure))
            return
        kind = f"{type(failure).__name__} {failure.status if isinstance(failure, ApiRefused) else ''}"
        if kind not in self._told and (self._failures > 1 or not self.synced):
            self._told.add(kind)
            self._log.event("warning", "endpoint slices not followed", kept=len(self._specs), reason=str(failure))

    def _pause_s(self, failure: KubeError | None) -> float:
        longest = min(BACKOFF_S * 2.0 ** min(self._failures, 10), BACKOFF_MAX_S)
        pause = self._uniform(longest / 2, longest)
        if isinstance(failure, ApiRefused) and failure.retry_after_s is not None:
            return max(pause, min(failure.retry_after_s, RETRY_AFTER_MAX_S))
        return pause


async def follow(settings: KubernetesSettings, access: ClusterAccess, *, log: Log, changed: Changed) -> None:
    """Follow the slices that the settings name, until cancelled; ``changed`` as in :meth:`EndpointSliceSource.run`."""
    async with KubeClient(access) as client:
        source = EndpointSliceSource(
            client,
            namespace=settings.namespace or access.namespace,
            selector=settings.label_selector,
            rules=SliceRules(port_name=settings.port_name, model_names=settings.model_names),
            log=log,
        )
        await source.run(changed)
