"""One request to the API server: HTTP, limits, and what its errors become. ``kube.api`` and ``objects_api`` use it.

Errors of sockets, TLS and time leave this module as ``KubeError``.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import TypeVar
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from inferdock.kube.access import ClusterAccess
from inferdock.kube.errors import ApiNonsense, ApiUnreachable, KubeError
from inferdock.kube.lines import LineSplitter
from inferdock.kube.objects import Meta, Status, read_status, refusal

MAX_LINE_BYTES = 4 * 1024 * 1024
"""Longest watch event, and largest object; etcd takes none above 1.5 MiB."""
MAX_LIST_BYTES = 64 * 1024 * 1024
"""Largest list over all its pages; a slice of 100 endpoints is about 40 KB."""
MAX_ERROR_BYTES = 64 * 1024
PAGE_ITEMS = 500
MAX_PAGES = 200
CONNECT_TIMEOUT_S = 10.0
ERROR_TIMEOUT_S = 10.0
WATCH_GRACE_S = 15.0
"""How long after its own end a watch may stay silent before we give it up."""
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 15, 5, 3
"""A server that vanished without a word is noticed after about 30 s, though a watch may rightly be silent."""

Item = TypeVar("Item")


class Transport:
    """Speaks HTTP with one API server; one client owns it.

    Args:
        access: where it is and how we show who we are.
        answer_timeout_s: longest time for an answer.
        watch_timeout_s: the server ends a watch after one to two times this; then it is resumed.
        rights: what to say to somebody whom the server forbids something.
    """

    def __init__(
        self, access: ClusterAccess, *, answer_timeout_s: float, watch_timeout_s: float, rights: str = ""
    ) -> None:
        self.access = access
        self._answer_timeout_s = answer_timeout_s
        self._watch_timeout_s = watch_timeout_s
        self._rights = rights
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        body: bytes | None = None,
        content_type: str = "application/json",
        most: int | None = None,
        what: str = "answer",
    ) -> bytes:
        """One request and its whole answer; ``most``: longest answer in bytes.

        Raises:
            KubeError: see the module ``kube.errors``.
        """
        timeout = aiohttp.ClientTimeout(total=self._answer_timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        room = MAX_LINE_BYTES if most is None else most
        async with self._open(method, path, params or {}, timeout, body, content_type) as response:
            got = bytearray()
            async for data in response.content.iter_any():
                got += data
                if len(got) > room:
                    raise ApiNonsense(f"The {what} of the Kubernetes API is larger than {room} bytes.")
            return bytes(got)

    async def list_all(
        self, path: str, params: Mapping[str, str], read: Callable[[bytes], tuple[Meta, Sequence[Item]]], what: str
    ) -> tuple[list[Item], str]:
        """All pages of a list, and the resource version to watch from; ``read`` decodes a page.

        Raises:
            KubeError: as above; ``ApiGone`` when the list changed too much between its pages.
        """
        items: list[Item] = []
        query = {"limit": str(PAGE_ITEMS), **params}
        room = MAX_LIST_BYTES
        for _ in range(MAX_PAGES):
            body = await self.ask("GET", path, query, most=room, what=what)
            meta, some = read(body)
            items += some
            if not meta.continue_:
                return items, _version_of(meta)
            query["continue"] = meta.continue_
            room -= len(body)
        raise ApiNonsense(f"The {what} of the Kubernetes API has more than {MAX_PAGES} pages.")

    async def watch(self, path: str, params: Mapping[str, str]) -> AsyncGenerator[list[bytes], None]:
        """Lines of a watch, as many at a time as arrived together, until the server ends it; first an empty list,
        once the server has taken it.

        Raises:
            KubeError: as above.
        """
        seconds = self._watch_timeout_s * (1 + random.random())  # spread, or all gateways return at once
        query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(max(1, int(seconds))), **params}
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=int(seconds) + WATCH_GRACE_S
        )
        lines = LineSplitter(MAX_LINE_BYTES)
        async with self._open("GET", path, query, timeout) as got:
            _keep_alive(got)
            yield []
            async for data in got.content.iter_any():
                whole = lines.feed(data)
                if whole:
                    yield whole

    @contextlib.asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
        body: bytes | None = None,
        content_type: str = "",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        headers = self.access.headers()
        if body is not None:
            headers["Content-Type"] = content_type
        query = f"?{urlencode(params)}" if params else ""
        try:
            async with self._session.request(
                method,
                URL(f"{self.access.base_url}{path}{query}", encoded=True),
                data=io.BytesIO(body) if body is not None else None,  # bytes above 1 MiB would earn a warning
                headers=headers,
                ssl=self.access.tls(),
                timeout=timeout,
                allow_redirects=False,  # the token is for this server only
            ) as response:
                if response.status not in (200, 201, 202):
                    raise await self._refused(response)
                yield response
        except (aiohttp.ClientError, OSError) as exc:  # time-outs are OSErrors
            reason = str(exc) or type(exc).__name__
            raise ApiUnreachable(f"The Kubernetes API at {self.access.base_url} failed: {reason}.") from exc

    async def _refused(self, response: aiohttp.ClientResponse) -> KubeError:
        """The status is known, whatever becomes of the text."""
        text = bytearray()
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async with asyncio.timeout(ERROR_TIMEOUT_S):
                async for data in response.content.iter_any():
                    text += data
                    if len(text) > MAX_ERROR_BYTES:
                        break
        said = read_status(bytes(text[:MAX_ERROR_BYTES]))
        if said == Status() and response.content_type == "text/plain":  # of `kubectl proxy`, or of a pod
            said = Status(message=text.decode("utf-8", "replace"))
        return refusal(response.status, said, _retry_after_s(response), rights=self._rights)


def _version_of(meta: Meta) -> str:
    if not meta.resource_version:
        raise ApiNonsense("The Kubernetes API sent a list without a resource version.")
    return meta.resource_version


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
