"""A Kubernetes API server in this process, as far as EndpointSlices go: list, watch, history, and faults on demand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from aiohttp import web

PATH = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"


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
class FakeKube:
    """The state of the server; tests change it while clients look.

    Attributes:
        refusals: status codes (with headers) for the next requests, in order.
        token: bearer token that requests must carry; None lets everybody in.
        split: how the bytes of a watch are cut into writes.
        slow_s: wait before each answer.
        requests: query of every request so far.
        page_items: most items of one page of a list.
    """

    url: str = ""
    refusals: deque[tuple[int, dict[str, str]]] = field(default_factory=deque)
    token: str | None = None
    split: Callable[[bytes], list[bytes]] = lambda data: [data]
    slow_s: float = 0.0
    requests: list[dict[str, str]] = field(default_factory=list)
    page_items: int = 500
    open_watches: int = 0

    def __post_init__(self) -> None:
        self._version = 100
        self._oldest = 0
        self._slices: dict[str, dict] = {}
        self._history: list[tuple[int, str, dict | bytes]] = []
        self._end: str = ""
        self._news = asyncio.Condition()

    @property
    def slices(self) -> list[dict]:
        """All slices that there are."""
        return list(self._slices.values())

    # -- What happens in the cluster -------------------------------------------------------------------------

    async def put(self, one: dict) -> None:
        """Create or change a slice."""
        name = one["metadata"]["name"]
        await self._happen("MODIFIED" if name in self._slices else "ADDED", one)

    async def delete(self, name: str) -> None:
        """Delete a slice."""
        await self._happen("DELETED", self._slices[name])

    async def bookmark(self) -> None:
        """Things elsewhere in the cluster raise the version, and watches hear of it."""
        await self._happen("BOOKMARK", {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": {}})

    async def send_line(self, line: bytes) -> None:
        """Watches get this line, whatever it is."""
        async with self._news:
            self._version += 1
            self._history.append((self._version, "RAW", line))
            self._news.notify_all()

    async def compact(self) -> None:
        """Forget the history."""
        self._oldest = self._version + 1
        self._history.clear()

    async def end_watches(self, how: str = "end") -> None:
        """Open watches end: `end` as they should, `cut` in the middle of a line, `gone` with an ERROR event."""
        async with self._news:
            self._end = how
            self._news.notify_all()
        while self.open_watches:
            await asyncio.sleep(0.001)
        self._end = ""

    async def _happen(self, kind: str, one: dict) -> None:
        async with self._news:
            self._version += 1
            one = {**one, "metadata": {**one["metadata"], "resourceVersion": str(self._version)}}
            if kind == "DELETED":
                self._slices.pop(one["metadata"]["name"])
            elif kind != "BOOKMARK":
                self._slices[one["metadata"]["name"]] = one
            self._history.append((self._version, kind, one))
            self._news.notify_all()

    # -- HTTP ------------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request as the API server does."""
        self.requests.append({"namespace": request.match_info["namespace"], **request.query})
        await asyncio.sleep(self.slow_s)
        if self.refusals:
            code, headers = self.refusals.popleft()
            return _status(code, headers)
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            return _status(401, {})
        return await self._watch(request) if request.query.get("watch") == "true" else self._list(request)

    def _list(self, request: web.Request) -> web.Response:
        items = [one for one in self._slices.values() if _matches(one, request.query.get("labelSelector", ""))]
        start = int(request.query.get("continue", "0"))
        end = start + min(self.page_items, int(request.query.get("limit", "500")))
        more = {"continue": str(end)} if end < len(items) else {}
        metadata = {"resourceVersion": str(self._version), **more}
        return web.json_response({"kind": "EndpointSliceList", "metadata": metadata, "items": items[start:end] or None})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        version = int(request.query["resourceVersion"])
        if version < self._oldest - 1:
            return _status(410, {})
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self.open_watches += 1
        try:
            await self._stream(request, response, version)
        finally:
            self.open_watches -= 1
        return response

    async def _stream(self, request: web.Request, response: web.StreamResponse, version: int) -> None:
        selector = request.query.get("labelSelector", "")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(int(request.query.get("timeoutSeconds", "1800"))):
                while True:
                    async with self._news:
                        while self._version <= version and not self._end:
                            await self._news.wait()
                        fresh = [(kind, one) for at, kind, one in self._history if at > version]
                        version = self._version
                    for kind, one in fresh:
                        await self._write(response, _line(kind, one, selector))
                    if self._end:
                        await self._finish(request, response)
                        return

    async def _write(self, response: web.StreamResponse, line: bytes) -> None:
        for piece in self.split(line):
            await response.write(piece)
            await asyncio.sleep(0)

    async def _finish(self, request: web.Request, response: web.StreamResponse) -> None:
        if self._end == "gone":
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
        elif self._end == "cut":
            await response.write(b'{"type":"MODIFIED","object":{"metadata":{"name":"half')
            assert request.transport is not None
            await asyncio.sleep(0.01)
            request.transport.abort()


def _line(kind: str, one: dict | bytes, selector: str) -> bytes:
    """A watch event as a client with this selector gets it: what no longer matches is gone for it."""
    if isinstance(one, bytes):
        return one
    if kind == "MODIFIED" and not _matches(one, selector):
        kind = "DELETED"
    elif kind == "ADDED" and not _matches(one, selector):
        return b""
    return json.dumps({"type": kind, "object": one}).encode() + b"\n"


def _matches(one: dict, selector: str) -> bool:
    labels = one["metadata"].get("labels", {})
    return all(
        labels.get(key) == value if equals else key in labels
        for key, equals, value in (term.partition("=") for term in selector.split(",") if term)
    )


def _status(code: int, headers: dict[str, str]) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": code, "message": f"this is a {code}"}
    return web.json_response(body, status=code, headers=headers)


@contextlib.asynccontextmanager
async def running_fake_kube(port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeKube]:
    """Serve a :class:`FakeKube` on 127.0.0.1."""
    fake = FakeKube()
    app = web.Application()
    app.router.add_get(PATH, fake.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
    await site.start()
    fake.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await fake.end_watches()
        await runner.cleanup()
