"""The gateway's client of the Kubernetes API: list and watch EndpointSlices and one ConfigMap, typed and light.

One request is one call here; when to list, when to resume and how long to wait between is ``kube.follow``'s business.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Self, TypeVar

from inferdock.kube.access import ClusterAccess
from inferdock.kube.objects import (
    GATEWAY_RIGHTS,
    ConfigMap,
    ConfigMapEvent,
    EndpointSlice,
    Meta,
    WatchEvent,
    read_config_map_event,
    read_config_maps,
    read_event,
    read_list,
)
from inferdock.kube.resources import CONFIG_MAPS, ENDPOINT_SLICES
from inferdock.kube.transport import Transport

Event = TypeVar("Event")


class KubeClient:
    """Talks to one API server; use as ``async with``.

    Args:
        access: where it is and how we show who we are.
        answer_timeout_s: longest time for a list.
        watch_timeout_s: the server ends a watch after one to two times this; then it is resumed.
    """

    def __init__(
        self, access: ClusterAccess, *, answer_timeout_s: float = 30.0, watch_timeout_s: float = 150.0
    ) -> None:
        self._transport = Transport(
            access, answer_timeout_s=answer_timeout_s, watch_timeout_s=watch_timeout_s, rights=GATEWAY_RIGHTS
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.close()

    async def list_slices(self, namespace: str, selector: str) -> tuple[list[EndpointSlice], str]:
        """All slices that match, and the resource version to watch from.

        Raises:
            KubeError: see the module ``kube.errors``.
        """
        path, what = ENDPOINT_SLICES.path(namespace), "list of EndpointSlices"
        return await self._transport.list_all(path, _matching(selector), _read_slices, what)

    def watch_slices(self, namespace: str, selector: str, version: str) -> AsyncGenerator[list[WatchEvent], None]:
        """Changes after ``version``, as many at a time as arrived together, until the server ends the watch.

        The first item is empty: it says that the server took the watch. Close the iterator (``aclosing``) when
        leaving it early.

        Raises:
            KubeError: see the module ``kube.errors``; ``ApiGone`` asks for a new list.
        """
        params = {"resourceVersion": version, **_matching(selector)}
        return self._watch(ENDPOINT_SLICES.path(namespace), params, read_event)

    async def list_config_map(self, namespace: str, name: str) -> tuple[list[ConfigMap], str]:
        """The ConfigMap of this name, or nothing; else as :meth:`list_slices`."""
        path, what = CONFIG_MAPS.path(namespace), "list of ConfigMaps"
        return await self._transport.list_all(path, _named(name), _read_config_maps, what)

    def watch_config_map(self, namespace: str, name: str, version: str) -> AsyncGenerator[list[ConfigMapEvent], None]:
        """Changes of the ConfigMap of this name; else as :meth:`watch_slices`."""
        params = {"resourceVersion": version, **_named(name)}
        return self._watch(CONFIG_MAPS.path(namespace), params, read_config_map_event)

    async def _watch(
        self, path: str, params: dict[str, str], read: Callable[[bytes], Event | None]
    ) -> AsyncGenerator[list[Event], None]:
        async with contextlib.aclosing(self._transport.watch(path, params)) as batches:
            async for lines in batches:
                events = [event for line in lines if (event := read(line)) is not None]
                if events or not lines:
                    yield events


def _matching(selector: str) -> dict[str, str]:
    return {"labelSelector": selector} if selector else {}


def _named(name: str) -> dict[str, str]:
    return {"fieldSelector": f"metadata.name={name}"}


def _read_slices(body: bytes) -> tuple[Meta, Sequence[EndpointSlice]]:
    page = read_list(body)
    return page.metadata, page.items or []


def _read_config_maps(body: bytes) -> tuple[Meta, Sequence[ConfigMap]]:
    page = read_config_maps(body)
    return page.metadata, page.items or []
