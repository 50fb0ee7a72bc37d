"""Follows the traffic ConfigMap and sets the gateway's weights as it says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Protocol

from inferdock.domain.shadow import Shadow
from inferdock.kube.follow import STEADY_AFTER_S, Follower, Log
from inferdock.kube.objects import ConfigMap, ConfigMapEvent
from inferdock.kube.traffic import UNDIVIDED, Division, TrafficState, read_traffic


class ConfigMapApi(Protocol):
    """What is used of the Kubernetes API (``kube.api.KubeClient``)."""

    async def list_config_map(self, namespace: str, name: str) -> tuple[list[ConfigMap], str]:
        """The ConfigMap or nothing, and the resource version to watch from."""

    def watch_config_map(self, namespace: str, name: str, version: str) -> AsyncGenerator[list[ConfigMapEvent], None]:
        """Changes after a version; first an empty list once the server has taken the watch."""


class SetTraffic(Protocol):
    """Who is told of weights (``set_traffic`` of a gateway)."""

    def __call__(self, model: str, weights: Mapping[str, float], shadow: Shadow | None, /) -> None:
        """Divide a model's requests so, and copy some; no weights: all its endpoints share.

        Raises:
            ValueError: the weights make no sense; then the former ones hold.
        """


class TrafficSource:
    """Says how requests are divided, each time that changes.

    Args:
        api: the cluster.
        namespace, name: of the ConfigMap; it need not be there.
        log: told what changed, what cannot be used, and when the API fails and is back.
        steady_after_s, sleep, uniform: see :class:`~inferdock.kube.follow.Follower`.
    """

    def __init__(
        self,
        api: ConfigMapApi,
        *,
        namespace: str,
        name: str,
        log: Log,
        steady_after_s: float = STEADY_AFTER_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._log = log
        self._set_traffic: SetTraffic = lambda model, weights, shadow: None
        self._name_revisions: Callable[[Mapping[str, str]], None] = lambda names: None
        self._state = TrafficState()
        self._set: dict[str, Division] = {}
        self._follower = Follower(
            self, what="traffic", log=log, steady_after_s=steady_after_s, sleep=sleep, uniform=uniform
        )

    @property
    def tried(self) -> asyncio.Event:
        """Set once the first list was read, or refused for a reason that will not pass."""
        return self._follower.tried

    async def run(self, set_traffic: SetTraffic, name_revisions: Callable[[Mapping[str, str]], None]) -> None:
        """Follow the ConfigMap until cancelled.

        Args:
            set_traffic: called for each model whose traffic differs from before.
            name_revisions: called before with the revisions whose names no label can hold.
        """
        self._set_traffic, self._name_revisions = set_traffic, name_revisions
        await self._follower.run()

    # -- What the follower asks for --------------------------------------------------------------------------

    async def read_all(self) -> str:
        """Take the ConfigMap as it is."""
        found, version = await self._api.list_config_map(self._namespace, self._name)
        self._take(found[0].data if found else None)
        return version

    def watch(self, version: str) -> AsyncGenerator[list[ConfigMapEvent], None]:
        """Changes of the ConfigMap."""
        return self._api.watch_config_map(self._namespace, self._name, version)

    def take(self, events: list[ConfigMapEvent]) -> str:
        """Take the newest of some changes: it says all."""
        last = next((event for event in reversed(events) if event.type != "BOOKMARK"), None)
        if last is not None:
            self._take(last.object.data if last.type != "DELETED" else None)
        return events[-1].object.metadata.resource_version

    def kept(self) -> int:
        """Models whose requests are divided."""
        return len(self._set)

    # -- What holds ------------------------------------------------------------------------------------------

    def _take(self, data: Mapping[str, str] | None) -> None:
        before, state = self._state, read_traffic(data or {}, self._state)
        self._name_revisions(state.revision_names)
        divisions = state.divisions
        for model in sorted(self._set.keys() | divisions.keys()):
            division = divisions.get(model, UNDIVIDED)
            if division == self._set.get(model, UNDIVIDED):
                continue
            try:
                self._divide(model, division)
            except ValueError as exc:
                state = state.without(model, before, f"cannot be used: {exc}")
        self._state = state
        if state.problems != before.problems:
            level = "warning" if state.problems else "info"
            self._log.event(level, "traffic left out", why="; ".join(state.problems) or "none any more")

    def _divide(self, model: str, division: Division) -> None:
        self._set_traffic(model, division.weights, division.shadow)
        if division == UNDIVIDED:
            self._set.pop(model, None)
        else:
            self._set[model] = division
        said = ", ".join(f"{revision}: {weight:g}" for revision, weight in division.weights.items())
        shadow = division.shadow
        copied = f"{shadow.revision}: {shadow.share:g}" if shadow is not None else "none"
        self._log.event("info", "traffic changed", model=model, weights=said or "none", shadow=copied)
