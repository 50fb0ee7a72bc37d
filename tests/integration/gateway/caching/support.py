"""Requests to a gateway that caches, and what its answers say about it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from inferdock.config.settings import CacheSettings
from inferdock.sim.faults import Faults, parse_fault
from inferdock.sim.options import SimOptions
from inferdock.sim.server import SimServer
from tests.support.gateway import RunningGateway, running_gateway

QUICK = SimOptions(ttft_s=0.005, itl_s=0.001)
EXACT_ONLY = CacheSettings(enabled=True, semantic=False, ttl_jitter=0.0)


def chat_body(text: str = "where is the river", **fields: Any) -> dict[str, Any]:
    """A request that may be cached."""
    messages = [{"role": "user", "content": text}]
    return {"model": "sim", "messages": messages, "temperature": 0, "max_tokens": 12, **fields}


@dataclass
class Got:
    """An answer.

    Attributes:
        data: JSON of a body, or the events of a stream.
        text: what the model said.
    """

    status: int
    headers: dict[str, str]
    raw: bytes
    data: Any = None
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def cache(self) -> str:
        """Outcome and tier."""
        tier = self.headers.get("x-inferdock-cache-tier")
        outcome = self.headers.get("x-inferdock-cache", "")
        return f"{outcome} {tier}" if tier else outcome

    @property
    def text(self) -> str:
        if self.events:
            return "".join(c["delta"].get("content") or "" for e in self.events for c in e["choices"])
        return self.data["choices"][0]["message"]["content"]

    @property
    def usage(self) -> dict[str, Any] | None:
        found = [e["usage"] for e in self.events if e.get("usage")] if self.events else [self.data.get("usage")]
        return found[-1] if found else None


async def post(
    http: aiohttp.ClientSession, url: str, body: Any, path: str = "/v1/chat/completions", **headers: str
) -> Got:
    """Send one request and read its answer to the end."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with http.post(
        url + path, data=io.BytesIO(data), headers={**fields, "content-length": str(len(data))}
    ) as response:
        raw = await response.read()
        got = Got(response.status, {k.lower(): v for k, v in response.headers.items()}, raw)
        if response.content_type == "text/event-stream":
            payloads = [line[6:] for line in raw.split(b"\n") if line.startswith(b"data: ")]
            assert payloads[-1] == b"[DONE]", raw[-300:]
            got.events = [json.loads(payload) for payload in payloads[:-1]]
        elif raw:
            got.data = json.loads(raw)
    return got


class CountingSim(SimServer):
    """A replica that counts.

    Attributes:
        generations: that it has begun.
    """

    generations = 0

    async def _generate(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        self.generations += 1
        return await super()._generate(request, chat=chat)


@contextlib.asynccontextmanager
async def counting_sim(options: SimOptions = QUICK, *faults: str) -> AsyncIterator[CountingSim]:
    """Run one on a free port."""
    server = CountingSim(options, Faults([parse_fault(text) for text in faults]))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@dataclass
class Platform:
    """One gateway that caches, with one replica.

    Attributes:
        sim: the replica.
    """

    gateway: RunningGateway
    sim: CountingSim
    http: aiohttp.ClientSession

    async def post(self, body: Any, path: str = "/v1/chat/completions", **headers: str) -> Got:
        """Send one request."""
        return await post(self.http, self.gateway.url, body, path, **headers)

    async def admin(self, name: str = "", **body: Any) -> dict[str, Any]:
        """Ask the admin port about the cache."""
        url = f"{self.gateway.admin_url}/admin/cache" + (f"/{name}" if name else "")
        method = "POST" if name else "GET"
        async with self.http.request(method, url, json=body if name else None) as response:
            return await response.json()

    @property
    def upstream(self) -> int:
        """Generations that the replica has begun."""
        return self.sim.generations

    async def semantic(self) -> None:
        """Wait until the embedding model is loaded."""
        async with asyncio.timeout(30):
            while (await self.admin())["semantic"]["state"] != "ready":
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def platform(
    cache: CacheSettings = EXACT_ONLY, options: SimOptions = QUICK, *faults: str, **settings: Any
) -> AsyncIterator[Platform]:
    """Run one."""
    async with counting_sim(options, *faults) as sim:
        async with running_gateway([sim.url], cache=cache, **settings) as gateway:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
                yield Platform(gateway, sim, http)
