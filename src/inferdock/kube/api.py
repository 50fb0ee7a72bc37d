"""A small client of the Kubernetes API: list and watch EndpointSlices. Errors leave this module as ``KubeError``.

One request is one call here; when to list, when to resume and how long to wait between is ``kube.source``'s business.
"""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Self

import aiohttp

from inferdock.kube.access import ClusterAccess
from inferdock.kube.errors import ApiNonsense, ApiUnreachable
from inferdock.kube.lines import LineSplitter
from inferdock.kube.objects import EndpointSlice, SliceList, WatchEvent, read_event, read_list, read_status, refusal

MAX_LINE_BYTES = 4 * 1024 * 1024
"""Longest watch event; etcd takes no object above 1.5 MiB."""
MAX_LIST_BYTES = 64 * 1024 * 1024
"""Largest list over all its pages; a slice of 100 endpoints is about 40 KB."""
MAX_ERROR_BYTES = 64 * 1024
PAGE_ITEMS = 500
MAX_PAGES = 200
CONNECT_TIMEOUT_S = 10.0
WATCH_GRACE_S = 15.0
"""How long after its own end a watch may stay silent before we give it up."""
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 15, 5, 3
"""A server that vanished without a word is noticed after about 30 s, though a watch may rightly be silent."""


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
        self._access = access
        self._answer_timeout_s = answer_timeout_s
        self._watch_timeout_s = watch_timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def list_slices(self, namespace: str, selector: str) -> tuple[list[EndpointSlice], str]:
        """All slices that match, and the resource version to watch from.

        Raises:
            KubeError: see the module ``kube.errors``.
        """
        slices: list[EndpointSlice] = []
        params = {"limit": str(PAGE_ITEMS)}
        room = MAX_LIST_BYTES
        for _ in range(MAX_PAGES):
            body = await self._read_page(namespace, _with(params, labelSelector=selector), room)
            page = read_list(body)
            slices += page.items or []
            if not page.metadata.continue_:
                return slices, _version_of(page)
            params["continue"] = page.metadata.continue_
            room -= len(body)
        raise ApiNonsense(f"The list of EndpointSlices has more than {MAX_PAGES} pages.")

    async def _read_page(self, namespace: str, params: Mapping[str, str], room: int) -> bytes:
        timeout = aiohttp.ClientTimeout(total=self._answer_timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        async with self._get(namespace, params, timeout) as response:
            body = bytearray()
            async for data in response.content.iter_any():
                body += data
                if len(body) > room:
                    raise ApiNonsense(f"The list of EndpointSlices is larger than {MAX_LIST_BYTES} bytes.")
            return bytes(body)

    async def watch_slices(self, namespace: str, selector: str, version: str) -> AsyncGenerator[list[WatchEvent], None]:
        """Changes after ``version``, as many at a time as arrived together, until the server ends the watch.

        The first item is empty: it says that the server took the watch. Close the iterator (``aclosing``) when
        leaving it early.

        Raises:
            KubeError: see the module ``kube.errors``; ``ApiGone`` asks for a new list.
        """
        seconds = self._watch_timeout_s * (1 + random.random())  # spread, or all gateways return at once
        params = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(max(1, int(seconds)))}
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=int(seconds) + WATCH_GRACE_S
        )
        lines = LineSplitter(MAX_LINE_BYTES)
        async with self._get(namespace, _with(params, labelSelector=selector, resourceVersion=version), timeout) as got:
            _keep_alive(got)
            yield []
            async for data in got.content.iter_any():
                events = [event for line in lines.feed(data) if (event := read_event(line)) is not None]
                if events:
                    yield events

    @contextlib.asynccontextmanager
    async def _get(
        self, namespace: str, params: Mapping[str, str], timeout: aiohttp.ClientTimeout
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        url = f"{self._access.base_url}/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        try:
            async with self._session.get(
                url,
                params=params,
                headers=self._access.headers(),
                ssl=self._access.tls(),
                timeout=timeout,
                allow_redirects=False,  # the token is for this server only
            ) as response:
                if response.status != 200:
                    body = await response.content.read(MAX_ERROR_BYTES)
                    raise refusal(response.status, read_status(body), _retry_after_s(response))
                yield response
        except (aiohttp.ClientError, OSError) as exc:  # time-outs are OSErrors
            reason = str(exc) or type(exc).__name__
            raise ApiUnreachable(f"The Kubernetes API at {self._access.base_url} failed: {reason}.") from exc


def _with(params: Mapping[str, str], **more: str) -> dict[str, str]:
    return {**params, **{name: value for name, value in more.items() if value}}


def _version_of(page: SliceList) -> str:
    if not page.metadata.resource_version:
        raise ApiNonsense("The Kubernetes API sent a list without a resource version.")
    return page.metadata.resource_version


def _retry_after_s(response: aiohttp.ClientResponse) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else None


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    """Have the kernel ask a silent server whether it is still there."""
    transport = response.connection.transport if response.connection is not None else None
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S),
        (socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S),
        (socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
    ):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
