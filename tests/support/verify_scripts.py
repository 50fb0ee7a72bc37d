"""What checks of `inferdock verify` are run against: a platform and a cluster that behave as a test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from inferdock.app.verify.target import Target
from inferdock.verify.check import Check, Evidence
from inferdock.verify.run import chosen, run_all

MODEL = "m"
REVISION = "1.0.0-0123456789ab"


async def evidence(checks: Iterable[Check[Target]], name: str, target: Target) -> Evidence:
    """What one check says of a target that offers everything."""
    (result,) = await run_all(chosen(list(checks), only=[name]), target, lacking={})
    return result.evidence


async def outcome(checks: Iterable[Check[Target]], name: str, target: Target) -> str:
    """pass, fail or needs."""
    return (await evidence(checks, name, target)).outcome.value


@contextlib.asynccontextmanager
async def lone_target(**more: Any) -> AsyncIterator[Target]:
    """A target where nothing answers."""
    async with aiohttp.ClientSession() as http:
        yield Target(url="http://127.0.0.1:1", model=MODEL, http=http, **more)


@dataclass
class ScriptedPlatform:
    """A gateway with replicas, as far as checks look at it.

    Attributes:
        replicas: names of those that are ready.
        metrics: text of `/metrics`; each answer takes the next, the last one stays.
        cut: streams end without their end mark.
        fault: streams end with an error event.
        refuses: status of short requests; 200: they are answered.
        comes_back: whether a replica that is put back becomes ready.
        cache: headers of the answers, in order; the last ones stay. None: there is no cache.
        stats: `/admin/cache`; None: there is no such thing.
        usage: tokens of each answer.
    """

    replicas: list[str] = field(default_factory=lambda: ["a", "b"])
    metrics: list[str] = field(default_factory=lambda: [""])
    cut: bool = False
    fault: bool = False
    refuses: int = 200
    comes_back: bool = True
    cache: list[str] | None = None
    stats: Mapping[str, Any] | None = None
    usage: tuple[int, int] = (4, 8)
    token_s: float = 0.001

    def routes(self) -> list[web.RouteDef]:
        """What it serves."""
        return [
            web.get("/metrics", self._metrics),
            web.get("/ready", self._ready),
            web.get("/admin/status", self._status),
            web.get("/admin/cache", self._stats),
            web.put("/admin/endpoints", self._put),
            web.post("/v1/chat/completions", self._chat),
        ]

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=self.metrics[0] if len(self.metrics) == 1 else self.metrics.pop(0))

    async def _ready(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _status(self, _: web.Request) -> web.Response:
        rows = [{"name": name, "url": f"http://{name}", "model": MODEL, "revision": REVISION} for name in self.replicas]
        return web.json_response({"endpoints": [{**row, "state": "ready", "in_flight": 4} for row in rows]})

    async def _stats(self, _: web.Request) -> web.Response:
        return web.json_response(self.stats, status=404 if self.stats is None else 200)

    async def _put(self, request: web.Request) -> web.Response:
        named = [row["name"] for row in (await request.json())["endpoints"]]
        if self.comes_back or len(named) <= len(self.replicas):
            self.replicas = named
        return web.json_response({})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body.get("stream"):
            return await self._stream(request, int(body["max_tokens"]))
        prompt, output = self.usage
        answer = {
            "choices": [{"message": {"content": "hello"}}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": output},
        }
        return web.json_response(answer, status=self.refuses, headers=self._outcome())

    def _outcome(self) -> dict[str, str]:
        if self.cache is None:
            return {}
        told = self.cache[0] if len(self.cache) == 1 else self.cache.pop(0)
        result, _, tier = told.partition(" ")
        return {"x-inferdock-cache": result, "x-inferdock-cache-tier": tier}

    async def _stream(self, request: web.Request, tokens: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number in range(5):
            finish = "length" if number == 4 else None
            await self._send(response, {"choices": [{"delta": {"content": "x"}, "finish_reason": finish}]})
            await asyncio.sleep(self.token_s * 10)
        if self.fault:
            await self._send(response, {"error": {"message": "the replica is gone"}})
        await self._send(response, {"choices": [], "usage": {"completion_tokens": tokens}})
        if not self.cut:
            await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _send(self, response: web.StreamResponse, event: Mapping[str, Any]) -> None:
        await response.write(f"data: {json.dumps(event)}\n\n".encode())


@contextlib.asynccontextmanager
async def served(platform: ScriptedPlatform, **more: Any) -> AsyncIterator[Target]:
    """A target that behaves as the script says."""
    app = web.Application()
    app.add_routes(platform.routes())
    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        url = str(server.make_url("")).rstrip("/")
        yield Target(url=url, admin_url=url, model=MODEL, http=http, **more)


@dataclass
class ScriptedCluster:
    """A cluster's API with given objects; what is deleted is gone at once.

    Attributes:
        objects: by the plural name of their kind.
    """

    objects: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    patched: list[str] = field(default_factory=list)

    async def list(self, resource: Any, namespace: str, *, selector: str = "") -> tuple[Sequence[dict[str, Any]], str]:
        """Objects whose labels fit."""
        wanted = dict(pair.split("=", 1) for pair in selector.split(",") if pair)
        found = self.objects.get(resource.plural, [])
        return [one for one in found if wanted.items() <= (one["metadata"].get("labels") or {}).items()], "1"

    async def get(self, resource: Any, namespace: str, name: str) -> dict[str, Any] | None:
        """One by its name."""
        found = self.objects.get(resource.plural, [])
        return next((one for one in found if one["metadata"]["name"] == name), None)

    async def delete(self, resource: Any, namespace: str, name: str, *, uid: str | None = None) -> bool:
        """Take one away."""
        self.deleted.append(name)
        kept = [one for one in self.objects[resource.plural] if one["metadata"]["name"] != name]
        self.objects[resource.plural] = kept
        return True

    async def patch(self, resource: Any, namespace: str, name: str, body: Mapping[str, Any]) -> None:
        """Only noted."""
        self.patched.append(name)


def thing(name: str, component: str = "", spec: Any = None, conditions: Iterable[str] = (), **status: Any) -> dict:
    """An object of the release `r`, with conditions that are True."""
    labels = {"app.kubernetes.io/instance": "r", "app.kubernetes.io/component": component}
    shown = {"conditions": [{"type": one, "status": "True"} for one in conditions], **status}
    return {"metadata": {"name": name, "uid": name, "labels": labels}, "spec": spec or {}, "status": shown}
