"""Each check of the API against a scripted target that is right, and against one broken at that point only."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from inferdock.app.verify.openai_api import CHECKS, MODELS
from inferdock.app.verify.phase1 import health
from inferdock.app.verify.target import Target
from inferdock.verify.check import Check, Need
from inferdock.verify.run import run_all

HEALTH = Check(id="1.1.health", line="", run=health)
LOOKED_AT = [HEALTH, MODELS, *(one for one in CHECKS if one.id not in ("1.5.client", "1.5.suite"))]


def _events(*texts: str, end: bool = True) -> str:
    lines = [f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n" for text in texts]
    return "".join(lines) + ("data: [DONE]\n\n" if end else "")


def _said(kind: str, choice: dict[str, Any], tokens: int = 2, **changed: Any) -> dict[str, Any]:
    choices = [{"index": 0, "finish_reason": "stop", **choice}]
    usage = {"completion_tokens": tokens}
    return {"id": "1", "object": kind, "created": 1, "model": "m", "choices": choices, "usage": usage, **changed}


def _chat(text: str, tokens: int = 2, **changed: Any) -> dict[str, Any]:
    return _said("chat.completion", {"message": {"content": text}}, tokens, **changed)


def _error(**changed: Any) -> dict[str, Any]:
    return {"error": {"message": "no", "type": "t", "param": None, "code": None, **changed}}


RIGHT: dict[str, Any] = {
    "health": 200,
    "models": ["m"],
    "chat": _chat("hello"),
    "completion": _said("text_completion", {"text": "hello"}),
    "stream": _events("hel", "lo"),
    "status": 200,
    "unknown": (404, _error()),
    "broken": (400, _error()),
}


async def _outcomes(**changed: Any) -> dict[str, str]:
    script = RIGHT | changed

    async def alive(_: web.Request) -> web.Response:
        return web.Response(status=script["health"])

    async def listed(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": name} for name in script["models"]]})

    async def completed(_: web.Request) -> web.Response:
        return web.json_response(script["completion"])

    async def asked(request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except ValueError:
            return web.json_response(script["broken"][1], status=script["broken"][0])
        if body["model"] != "m":
            return web.json_response(script["unknown"][1], status=script["unknown"][0])
        if body.get("stream"):
            return web.Response(text=script["stream"], content_type="text/event-stream")
        return web.json_response(script["chat"], status=script["status"])

    app = web.Application()
    app.router.add_get("/health", alive)
    app.router.add_get("/v1/models", listed)
    app.router.add_post("/v1/completions", completed)
    app.router.add_post("/v1/chat/completions", asked)
    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        target = Target(url=str(server.make_url("")).rstrip("/"), model="m", http=http)
        results = await run_all(LOOKED_AT, target, lacking={})
    return {result.id: result.evidence.outcome.value for result in results}


@pytest.mark.parametrize(
    ("changed", "broken"),
    [
        ({}, None),
        ({"health": 503}, "1.1.health"),
        ({"models": ["other"]}, "1.2.models"),
        ({"models": []}, "1.2.models"),
        ({"chat": _chat("", 0)}, "1.5.chat"),
        ({"chat": {}}, "1.5.chat"),
        ({"chat": _chat("hello", object="answer")}, "1.5.chat"),
        ({"status": 503}, "1.5.chat"),
        ({"completion": _said("text_completion", {"text": ""})}, "1.5.completion"),
        ({"completion": {k: v for k, v in RIGHT["completion"].items() if k != "created"}}, "1.5.completion"),
        ({"stream": _events("hel", "lo", end=False)}, "1.5.stream"),
        ({"stream": _events("hello")}, "1.5.stream"),
        ({"stream": _events("", "")}, "1.5.stream"),
        ({"stream": ""}, "1.5.stream"),
        ({"unknown": (400, _error())}, "1.5.errors"),
        ({"unknown": (404, {"error": "no such model"})}, "1.5.errors"),
        ({"broken": (500, _error())}, "1.5.errors"),
        ({"broken": (400, {"error": {"message": "no"}})}, "1.5.errors"),
    ],
)
async def test_only_the_broken_point_fails(changed: dict[str, Any], broken: str | None) -> None:
    outcomes = await _outcomes(**changed)
    assert outcomes == {one.id: "fail" if one.id == broken else "pass" for one in LOOKED_AT}


def test_each_needs_a_target() -> None:
    assert all(Need.TARGET in one.needs for one in (MODELS, *CHECKS))
