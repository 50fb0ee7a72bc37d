"""An API server that Helm's SDK can install into: the fake cluster, and before it what Helm asks for besides.

Discovery, OpenAPI as far as it says that the server checks fields itself, Secrets (which Helm writes as protobuf), and
kinds that Inferdock never touches otherwise. Everything else goes to the fake cluster, whose controllers make pods.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from tests.support.fake_cluster import FakeCluster

KINDS: dict[str, dict[str, str]] = {
    "v1": {
        "configmaps": "ConfigMap", "secrets": "Secret", "services": "Service", "serviceaccounts": "ServiceAccount",
        "pods": "Pod", "namespaces": "Namespace",
    },
    "apps/v1": {"deployments": "Deployment"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy", "ingresses": "Ingress"},
    "rbac.authorization.k8s.io/v1": {"roles": "Role", "rolebindings": "RoleBinding"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "keda.sh/v1alpha1": {"scaledobjects": "ScaledObject", "triggerauthentications": "TriggerAuthentication"},
    "monitoring.coreos.com/v1": {"servicemonitors": "ServiceMonitor", "podmonitors": "PodMonitor"},
}  # fmt: skip
OURS = {
    "configmaps",
    "services",
    "pods",
    "deployments",
    "poddisruptionbudgets",
    "horizontalpodautoscalers",
    "scaledobjects",
}
"""Kinds that the fake cluster keeps."""
_OBJECT = re.compile(
    r"(?P<root>/api/v1|/apis/[^/]+/[^/]+)(/namespaces/(?P<ns>[^/]+))?/(?P<plural>[a-z]+)(/(?P<name>[^/]+))?"
)


@dataclass
class HelmCluster:
    """The server.

    Attributes:
        behind: keeps most kinds.
        url: where it listens.
        lacks: API groups that are not installed.
        kept: (plural, name) to object, of the kinds that it keeps itself.
        written: (verb, plural, name) of every change, in order.
    """

    behind: FakeCluster
    url: str = ""
    lacks: set[str] = field(default_factory=set)
    kept: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    written: list[tuple[str, str, str]] = field(default_factory=list)

    def groups(self) -> dict[str, dict[str, str]]:
        """Group and version to kinds."""
        return {api: kinds for api, kinds in KINDS.items() if api.partition("/")[0] not in self.lacks}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Any request."""
        if (said := self._discovery(request.path)) is not None:
            return web.json_response(said)
        found = _OBJECT.fullmatch(request.path)
        body = await request.read()
        if found is None:
            return _status(404, "NotFound")
        if request.method not in ("GET", "HEAD"):
            self.written.append((request.method, found["plural"], found["name"] or _name(body)))
        if found["plural"] in OURS:
            return await self._pass_on(request, body)
        return self._keep(request, found["plural"], found["name"], body)

    def _discovery(self, path: str) -> dict[str, Any] | None:
        groups = self.groups()
        if path == "/version":
            return {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            named = [api.split("/") for api in groups if "/" in api]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*one) for one in named]}
        if path == "/openapi/v3":
            return {
                "paths": {_root(api).lstrip("/"): {"serverRelativeURL": f"/openapi/v3{_root(api)}"} for api in groups}
            }
        for api, kinds in groups.items():
            if path == _root(api):
                return {
                    "kind": "APIResourceList",
                    "groupVersion": api,
                    "resources": [_kind(*one) for one in kinds.items()],
                }
            if path == f"/openapi/v3{_root(api)}":
                return _open_api(api, kinds)
        return None

    async def _pass_on(self, request: web.Request, body: bytes) -> web.Response:
        headers = {key: value for key, value in request.headers.items() if key.lower() in ("content-type", "accept")}
        url = f"{self.behind.url}{request.path_qs}"
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, url, data=body or None, headers=headers) as answer,
        ):
            return web.Response(body=await answer.read(), status=answer.status, content_type="application/json")

    def _keep(self, request: web.Request, plural: str, name: str | None, body: bytes) -> web.Response:
        if request.method == "GET" and name is None:
            wanted = dict(
                pair.split("=", 1) for pair in request.query.get("labelSelector", "").split(",") if "=" in pair
            )
            mine = [one for (kind, _), one in self.kept.items() if kind == plural]
            mine = [one for one in mine if wanted.items() <= one["metadata"].get("labels", {}).items()]
            return web.json_response({"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": mine})
        key = (plural, name or _name(body))
        if request.method in ("GET", "DELETE"):
            found = self.kept.get(key) if request.method == "GET" else self.kept.pop(key, None)
            return _status(404, "NotFound") if found is None else web.json_response(found)
        one = _decoded(body)
        if request.method == "POST" and key in self.kept:
            return _status(409, "AlreadyExists")
        one["metadata"] = {**one["metadata"], "uid": "1", "resourceVersion": str(len(self.written))}
        self.kept[key] = one
        return web.json_response(one, status=201 if request.method == "POST" else 200)


@contextlib.asynccontextmanager
async def running_helm_cluster(behind: FakeCluster) -> AsyncIterator[HelmCluster]:
    """The server on a free port of this machine, for as long as the block runs."""
    cluster = HelmCluster(behind)
    app = web.Application(client_max_size=8 * 2**20)
    app.router.add_route("*", "/{path:.*}", cluster.answer)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        cluster.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield cluster
    finally:
        await runner.cleanup()


async def install_by_command(
    cluster: HelmCluster, values: dict[str, Any], folder: Path, *words: str, namespace: str = "ns"
) -> tuple[int | None, str, str]:
    """`inferdock install` as a program: exit status, standard output, standard error.

    In a test's own process the fields would not be Helm's: what a test runner calls itself meanwhile counts.
    """
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    where = ["--kube-api", cluster.url, "-n", namespace, "--values", str(file)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "inferdock.cli.main", "install", *where, *words, stdout=pipe, stderr=pipe
    )
    out, said = await process.communicate()
    return process.returncode, out.decode(), said.decode()


def _root(api: str) -> str:
    return f"/apis/{api}" if "/" in api else f"/api/{api}"


def _group(name: str, version: str) -> dict[str, Any]:
    one = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [one], "preferredVersion": one}


def _kind(plural: str, kind: str) -> dict[str, Any]:
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    return {
        "name": plural,
        "singularName": kind.lower(),
        "namespaced": kind != "Namespace",
        "kind": kind,
        "verbs": verbs,
    }


def _open_api(api: str, kinds: dict[str, str]) -> dict[str, Any]:
    """Only that a patch may ask the server to check fields: then Helm leaves it to the server."""
    group, _, version = api.rpartition("/")
    checks = {"name": "fieldValidation", "in": "query", "schema": {"type": "string", "uniqueItems": True}}
    paths = {
        f"{_root(api)}/namespaces/{{namespace}}/{plural}/{{name}}": {
            "patch": {
                "parameters": [checks],
                "responses": {},
                "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
            }
        }
        for plural, kind in kinds.items()
    }
    return {"openapi": "3.0.0", "info": {"title": "k", "version": "1"}, "paths": paths}


def _status(code: int, reason: str) -> web.Response:
    return web.json_response(
        {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": reason},
        status=code,
    )


def _name(body: bytes) -> str:
    return str(_decoded(body)["metadata"].get("name", "")) if body else ""


def _decoded(body: bytes) -> dict[str, Any]:
    if body.startswith(b"k8s\0"):
        return _secret(body)
    found: dict[str, Any] = json.loads(body) if body.startswith(b"{") else yaml.safe_load(body)
    return found


def _secret(body: bytes) -> dict[str, Any]:
    """A Secret in Kubernetes' protobuf: an envelope of type and bytes; metadata is 1, data 2, type 3."""
    raw = next(value for number, value in _fields(body[4:]) if number == 2)
    parts = list(_fields(raw))
    meta = list(_fields(next(value for number, value in parts if number == 1)))
    labels = dict(_pair(value) for number, value in meta if number == 11)
    name = next(value for number, value in meta if number == 1)
    data = dict(_pair(value) for number, value in parts if number == 2)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name.decode(), "labels": {key: value.decode() for key, value in labels.items()}},
        "data": {key: _base64(value) for key, value in data.items()},
        "type": next((value.decode() for number, value in parts if number == 3), "Opaque"),
    }


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _pair(entry: bytes) -> tuple[str, bytes]:
    found = dict(_fields(entry))
    return found[1].decode(), found.get(2, b"")


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Fields of a protobuf message that hold bytes; numbers are skipped."""
    at = 0
    while at < len(data):
        tag, at = _number(data, at)
        size, at = _number(data, at)
        if tag & 7 == 2:
            yield tag >> 3, data[at : at + size]
            at += size


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
