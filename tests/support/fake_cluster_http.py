"""Requests and answers of a fake API server, as HTTP has them."""

from __future__ import annotations

import asyncio
import json
import re

from aiohttp import web

from inferdock.kube.resources import ALL, KubeObject, Resource
from tests.support.fake_cluster_store import Change, Refused, Store, matches

PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>v[^/]+)"
    r"(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?(?P<rest>/.*)?"
)
CODES = {401: "Unauthorized", 403: "Forbidden", 429: "TooManyRequests", 503: "ServiceUnavailable"}


def resource_of(found: re.Match[str]) -> Resource | None:
    api = f"{found['group']}/{found['version']}" if found["group"] else found["version"]
    return next((one for one in ALL if (one.api, one.plural) == (api, found["plural"])), None)


def verb_of(request: web.Request, name: str) -> str:
    if request.method == "GET" and not name:
        return "watch" if request.query.get("watch") == "true" else "list"
    return {"GET": "get", "POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}[request.method]


def json_object(body: bytes) -> KubeObject:
    try:
        found = json.loads(body)
    except ValueError as exc:
        raise Refused(400, "BadRequest", f"error decoding patch: {exc}") from exc
    if not isinstance(found, dict):
        raise Refused(400, "BadRequest", "error decoding patch: no object")
    return found


def scale_of(live: KubeObject) -> KubeObject:
    meta = {key: live["metadata"].get(key) for key in ("name", "namespace", "uid", "resourceVersion")}
    status = {"replicas": live.get("status", {}).get("replicas", 0)}
    spec = {"replicas": live["spec"].get("replicas", 0)}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec, "status": status}


def copy_of(store: Store, resource: Resource, namespace: str, name: str) -> Store:
    """A store with this object alone, to try something on."""
    other = Store()
    record = store.record(resource, namespace, name)
    if record is not None:
        other.take(resource, namespace, name, record)
    return other


def watch_line(change: Change, resource: Resource, namespace: str, wanted: tuple[str, str]) -> bytes:
    """A watch event as a client with these selectors gets it: what no longer matches is gone for it."""
    if change.resource != resource.full_name:
        return b""
    kind, body = change.type, change.body
    if kind != "BOOKMARK":
        if resource.namespaced and body["metadata"].get("namespace") != namespace:
            return b""
        is_, was = matches(body, *wanted), change.before is not None and matches(change.before, *wanted)
        if not is_ and not was:
            return b""
        if kind == "MODIFIED":
            kind = "MODIFIED" if is_ and was else "ADDED" if is_ else "DELETED"
    whole = {"apiVersion": resource.api, "kind": resource.kind, **body}
    return json.dumps({"type": kind, "object": whole}).encode() + b"\n"


def status_response(problem: Refused, headers: dict[str, str]) -> web.Response:
    body: dict = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": problem.code}
    body |= {"message": problem.message, "reason": problem.reason}
    if problem.causes is not None:
        body["details"] = {"causes": problem.causes}
    return web.json_response(body, status=problem.code, headers=headers)


async def cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    await asyncio.sleep(0)
    return web.Response()
