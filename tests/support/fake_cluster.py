"""A Kubernetes API server in this process for objects of every kind that we use, with faults on demand.

    async with running_fake_cluster() as cluster:
        cluster.store.create(CONFIG_MAPS, "ns", {...})
        async with KubeObjects(ClusterAccess(cluster.url)) as api: ...

Pods, endpoints and autoscalers come with ``async with fake_cluster_controllers.controllers(cluster, ...)``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from inferdock.kube.resources import DEPLOYMENTS, PODS, KubeObject, Resource
from tests.support.fake_cluster_http import (
    CODES,
    PATH,
    copy_of,
    cut,
    json_object,
    resource_of,
    scale_of,
    status_response,
    verb_of,
    watch_line,
)
from tests.support.fake_cluster_store import WITH_STATUS, Refused, Store, not_found


@dataclass
class Fault:
    """What shall go wrong with the next requests that match.

    Attributes:
        kind: ``refuse`` (a status), ``drop`` (cut before anything is done), ``lose`` (done, and the answer is cut),
            ``nonsense`` (done, and the answer is ``body``).
        times: for so many requests.
        method: only these; "" all.
        path: only paths that contain this.
        watch: whether watches count: True only they, False only others, None both.
    """

    kind: str
    times: int = 1
    method: str = ""
    path: str = ""
    watch: bool | None = None
    code: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"oops"

    def hits(self, request: web.Request) -> bool:
        """Whether it strikes this request."""
        watching = request.query.get("watch") == "true"
        fits = self.method in ("", request.method) and self.path in request.path
        return self.times > 0 and fits and self.watch in (None, watching)


@dataclass(frozen=True)
class Asked:
    """One request that came."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes


@dataclass
class FakeCluster:
    """The server; tests change it while clients look.

    Attributes:
        store: all objects; ``create``, ``update``, ``patch``, ``delete`` there are what others in the cluster do.
        faults: see :class:`Fault`; the first that matches strikes.
        away: no request is answered, and open watches are cut (:meth:`go_away`).
        slow_s: wait before each answer.
        page_items: most items of one page of a list.
        token: bearer token that requests must carry; None lets everybody in.
        forbidden: says for verb, resource and name whether that is 403.
        unknown: plurals of kinds that this cluster does not have.
        split: how the bytes of a watch are cut into writes.
        requests: every request so far.
        backends: where a pod's port really is: (namespace, pod, port) to host and port.
    """

    url: str = ""
    store: Store = field(default_factory=Store)
    faults: list[Fault] = field(default_factory=list)
    away: bool = False
    slow_s: float = 0.0
    page_items: int = 500
    token: str | None = None
    forbidden: Callable[[str, Resource, str], bool] = lambda verb, resource, name: False
    unknown: set[str] = field(default_factory=set)
    split: Callable[[bytes], list[bytes]] = lambda data: [data]
    requests: list[Asked] = field(default_factory=list)
    backends: dict[tuple[str, str, int], tuple[str, int]] = field(default_factory=dict)
    open_watches: int = 0

    def __post_init__(self) -> None:
        self._end = ""
        self._raw: list[tuple[int, bytes]] = []

    # -- What happens ----------------------------------------------------------------------------------------

    def fault(self, kind: str, times: int = 1, **more: object) -> None:
        """Let something go wrong; see :class:`Fault`."""
        self.faults.append(Fault(kind, times, **more))  # type: ignore[arg-type]

    async def end_watches(self, how: str = "end") -> None:
        """Open watches end: `end` as they should, `cut` in the middle of a line, `gone` with an ERROR event."""
        self._end = how
        while self.open_watches:
            self.store.wake()
            await asyncio.sleep(0.001)
        self._end = ""

    async def expire(self) -> None:
        """The history goes, and with it every watch."""
        self.store.compact()
        await self.end_watches("cut")

    async def go_away(self) -> None:
        """Nobody gets an answer until ``away`` is False again."""
        self.away = True
        await self.end_watches("cut")

    def send_line(self, line: bytes) -> None:
        """All open watches get this line, whatever it is."""
        self.store.version += 1
        self._raw.append((self.store.version, line))
        self.store.wake()

    def scale(self, namespace: str, name: str, replicas: int, manager: str = "kubectl") -> None:
        """Somebody scales a Deployment."""
        self.store.patch(DEPLOYMENTS, namespace, name, {"spec": {"replicas": replicas}}, manager, "scale")

    # -- HTTP ------------------------------------------------------------------------------------------------

    def strikes(self, request: web.Request) -> Fault | None:
        """The fault that this request meets."""
        fault = next((one for one in self.faults if one.hits(request)), None)
        if fault is not None:
            fault.times -= 1
        return fault

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request as the API server does."""
        body = await request.read()
        self.requests.append(Asked(request.method, request.path, dict(request.query), body))
        await asyncio.sleep(self.slow_s)
        fault = self.strikes(request)
        if self.away or (fault is not None and fault.kind == "drop"):
            return await cut(request)
        if fault is not None and fault.kind == "refuse":
            problem = Refused(fault.code, CODES.get(fault.code, ""), f"this is a {fault.code}")
            return status_response(problem, fault.headers)
        try:
            answer = await self._answer(request, body)
        except Refused as problem:
            answer = status_response(problem, {})
        if fault is not None and fault.kind == "lose":
            return await cut(request)
        if fault is not None and fault.kind == "nonsense":
            return web.Response(body=fault.body, content_type="application/json")
        return answer

    async def _answer(self, request: web.Request, body: bytes) -> web.StreamResponse:
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            raise Refused(401, "Unauthorized", "Unauthorized")
        if request.path == "/version":
            return web.json_response({"major": "1", "minor": "33", "gitVersion": "v1.33.0"})
        found = PATH.fullmatch(request.raw_path.partition("?")[0].replace("%3A", ":"))
        resource = resource_of(found) if found else None
        if found is None or resource is None or resource.plural in self.unknown:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        namespace, name, sub = found["namespace"] or "", found["name"] or "", found["sub"] or ""
        verb = verb_of(request, name)
        if self.forbidden(verb, resource, name):
            raise Refused(403, "Forbidden", f'{resource.full_name} "{name}" is forbidden: User "u" cannot {verb} '
                          f'resource "{resource.plural}" in the namespace "{namespace}"')  # fmt: skip
        if resource == PODS and sub == "proxy":
            return await self._proxy(request, namespace, name, found["rest"] or "/", body)
        if verb == "watch":
            return await self._watch(request, resource, namespace)
        if verb == "list":
            return self._list(request, resource, namespace)
        return self._one(request, resource, namespace, name, sub, json_object(body) if body else {})

    def _one(
        self, request: web.Request, resource: Resource, namespace: str, name: str, sub: str, body: KubeObject
    ) -> web.Response:
        manager = request.query.get("fieldManager", request.headers.get("User-Agent", "unknown"))
        if request.method == "GET":
            live = self.store.get(resource, namespace, name)
            if live is None:
                raise not_found(resource, name)
            return web.json_response(scale_of(live) if sub == "scale" else live)
        if request.method == "POST":
            if resource in WITH_STATUS:
                body.pop("status", None)
            return web.json_response(self.store.create(resource, namespace, body, manager), status=201)
        if request.method == "DELETE":
            self.store.delete(resource, namespace, name, (body.get("preconditions") or {}).get("uid"))
            return web.json_response({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
        if request.method != "PATCH":
            raise Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        if resource in WITH_STATUS and sub != "status":
            body.pop("status", None)
        if request.content_type == "application/apply-patch+yaml":
            return self._apply(request, resource, namespace, name, sub, body, manager)
        if request.content_type != "application/merge-patch+json":
            raise Refused(415, "UnsupportedMediaType", f"the body of the request was in {request.content_type}")
        if body.get("metadata", {}).get("name", name) != name:
            raise Refused(400, "BadRequest", "the name of the object does not match the name on the URL")
        after = self.store.patch(resource, namespace, name, body, manager, sub)
        return web.json_response(scale_of(after) if sub == "scale" else after)

    def _apply(
        self, request: web.Request, resource: Resource, namespace: str, name: str, sub: str, body: KubeObject, who: str
    ) -> web.Response:
        if not request.query.get("fieldManager"):
            raise Refused(400, "BadRequest", "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value")
        wanted = ("autoscaling/v1", "Scale") if sub == "scale" else (resource.api, resource.kind)
        if (body.get("apiVersion"), body.get("kind")) != wanted or body.get("metadata", {}).get("name") != name:
            raise Refused(400, "BadRequest", f"the object is no {wanted[1]} {name} of {wanted[0]}")
        if sub and self.store.record(resource, namespace, name) is None:
            raise not_found(resource, name)
        if sub == "scale":
            body = {"metadata": {"name": name}, "spec": {"replicas": (body.get("spec") or {}).get("replicas")}}
        store = self.store
        if request.query.get("dryRun") == "All":
            store = copy_of(store, resource, namespace, name)
        force = request.query.get("force") == "true"
        after, new = store.apply(resource, namespace, name, body, (who, "Apply", sub), force=force)
        return web.json_response(scale_of(after) if sub == "scale" else after, status=201 if new else 200)

    def _list(self, request: web.Request, resource: Resource, namespace: str) -> web.Response:
        start, version = 0, self.store.version
        if request.query.get("continue"):
            start, version = map(int, request.query["continue"].split("@"))
            if version < self.store.oldest:
                raise Refused(410, "Expired", "The provided continue parameter is too old")
        wanted = request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")
        items = self.store.all(resource, namespace, *wanted)
        end = start + min(self.page_items, int(request.query.get("limit", "500")))
        more = {"continue": f"{end}@{version}"} if end < len(items) else {}
        if "." not in resource.api.rpartition("/")[0] or "k8s.io" in resource.api:
            items = [{k: v for k, v in item.items() if k not in ("kind", "apiVersion")} for item in items]
        metadata = {"resourceVersion": str(version), **more}
        return web.json_response(
            {"kind": f"{resource.kind}List", "apiVersion": resource.api, "metadata": metadata,
             "items": items[start:end] or None}
        )  # fmt: skip

    # -- Watches ---------------------------------------------------------------------------------------------

    async def _watch(self, request: web.Request, resource: Resource, namespace: str) -> web.StreamResponse:
        version = int(request.query["resourceVersion"])
        if version < self.store.oldest - 1:
            raise Refused(410, "Expired", f"too old resource version: {version} ({self.store.oldest})")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        self.open_watches += 1
        try:
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                await response.prepare(request)
                async with asyncio.timeout(int(request.query.get("timeoutSeconds", "1800"))):
                    await self._stream(request, response, resource, namespace, version)
        finally:
            self.open_watches -= 1
        return response

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, resource: Resource, namespace: str, version: int
    ) -> None:
        wanted = request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")
        while True:
            while self.store.version <= version and not self._end:
                await self.store.news()
            gone = version < self.store.oldest - 1
            lines = [watch_line(change, resource, namespace, wanted) for change in self.store.since(version)]
            lines += [line for at, line in self._raw if at > version]
            version = self.store.version
            for line in filter(None, lines):
                await self._send(response, line)
            if self._end or gone:
                await self._finish(request, response, "gone" if gone else self._end)
                return

    async def _send(self, response: web.StreamResponse, line: bytes) -> None:
        for piece in self.split(line):
            await response.write(piece)

    async def _finish(self, request: web.Request, response: web.StreamResponse, how: str) -> None:
        if how == "gone":
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
        elif how == "cut":
            await response.write(b'{"type":"MODIFIED","object":{"metadata":{"name":"half')
            await asyncio.sleep(0.01)
            if request.transport is not None:
                request.transport.abort()

    # -- Pods ------------------------------------------------------------------------------------------------

    async def _proxy(self, request: web.Request, namespace: str, spec: str, rest: str, body: bytes) -> web.Response:
        scheme, _, pod_port = spec.partition(":")
        pod, _, port = pod_port.partition(":") if scheme in ("http", "https") else (scheme, "", pod_port)
        at = self.backends.get((namespace, pod, int(port or "80")))
        if self.store.get(PODS, namespace, pod) is None:
            raise not_found(PODS, pod)
        if at is None:
            raise Refused(503, "ServiceUnavailable", f"error trying to reach service: dial tcp {pod}:{port}: refused")
        query = f"?{request.query_string}" if request.query_string else ""
        keep = {k: v for k, v in request.headers.items() if k.lower() in ("content-type", "accept", "x-request-id")}
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.request(
                    request.method, f"http://{at[0]}:{at[1]}{rest}{query}", data=body or None, headers=keep
                ) as got,
            ):
                headers = {"Content-Type": got.headers.get("Content-Type", "application/octet-stream")}
                response = web.StreamResponse(status=got.status, headers=headers)
                await response.prepare(request)
                async for data in got.content.iter_any():
                    await response.write(data)
                return response  # type: ignore[return-value]
        except (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError) as exc:
            raise Refused(503, "ServiceUnavailable", f"error trying to reach service: {exc}") from exc


@contextlib.asynccontextmanager
async def running_fake_cluster(port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeCluster]:
    """Serve a :class:`FakeCluster` on 127.0.0.1."""
    cluster = FakeCluster()
    async with serving(cluster, port, tls):
        yield cluster


@contextlib.asynccontextmanager
async def serving(cluster: FakeCluster, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
    """Serve this one."""
    app = web.Application(client_max_size=4 * 1024 * 1024)
    app.router.add_route("*", "/{tail:.*}", cluster.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
    await site.start()
    cluster.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield
    finally:
        await cluster.end_watches()
        await runner.cleanup()
