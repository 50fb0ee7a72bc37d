"""Checks of the OpenAI API as a client sees it: over bare HTTP, by the official client, and by our own test suite."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from typing import Any, Final

import aiohttp

from inferdock.app.release_gates import REQUEST_S, SMOKE, tried
from inferdock.app.verify.commands import run
from inferdock.app.verify.ground import LackingError, check, verdict
from inferdock.app.verify.target import Target
from inferdock.verify.check import Check, Evidence, Need

QUESTION: Final = "Say hello."
NOBODY: Final = "no-model-has-this-name"
SUITE: Final = "tests/integration/test_openai_compat.py"
PLAN_TESTS: Final = ("test_completions_endpoint", "test_chat_completions_endpoint", "test_streaming")
FRESH: Final = {"Cache-Control": "no-store"}
"""The response cache neither answers nor keeps: the engine is what is looked at."""


async def models(target: Target) -> Evidence:
    """The list of models holds the one that is asked for."""
    async with target.http.get(f"{target.url}/v1/models") as answer:
        answer.raise_for_status()
        names = [entry["id"] for entry in (await answer.json())["data"]]
    sentence = f"Models: {', '.join(names) or 'none'}."
    return verdict(target.model in names, sentence, command=f"curl {target.url}/v1/models")


async def chat(target: Target) -> Evidence:
    """A chat completion has text, counts its tokens, and has the form of OpenAI's."""
    said = await _asked(target, "chat/completions", _chat(target))
    text = said["choices"][0]["message"]["content"]
    wrong = _missing(said, "chat.completion")
    tokens = said["usage"]["completion_tokens"]
    good = bool(text) and tokens > 0 and not wrong
    return verdict(good, wrong or f"Answered {text!r}.", completion_tokens=tokens)


async def completion(target: Target) -> Evidence:
    """A completion has text, counts its tokens, and has the form of OpenAI's."""
    said = await _asked(target, "completions", {"model": target.model, "prompt": QUESTION, "max_tokens": 16})
    text = said["choices"][0]["text"]
    wrong = _missing(said, "text_completion")
    tokens = said["usage"]["completion_tokens"]
    good = bool(text) and tokens > 0 and not wrong
    return verdict(good, wrong or f"Answered {text!r}.", completion_tokens=tokens)


async def stream(target: Target) -> Evidence:
    """A streamed answer comes in several events, with text, and ends with the end mark."""
    body = _chat(target) | {"stream": True}
    url = f"{target.url}/v1/chat/completions"
    async with target.http.post(url, json=body, headers=FRESH) as answer:
        answer.raise_for_status()
        events = [line[5:].strip().decode() async for line in answer.content if line.startswith(b"data:")]
    if not events or events[-1] != "[DONE]":
        return verdict(False, f"{len(events)} events, and no end mark after them.")
    text = "".join(_delta(json.loads(event)) for event in events[:-1])
    return verdict(bool(text) and len(events) > 2, f"Streamed {text!r}.", events=len(events))


async def errors(target: Target) -> Evidence:
    """A model that nobody serves, and a body that is no JSON, are refused by OpenAI's error object."""
    url = f"{target.url}/v1/chat/completions"
    unknown = await _refusal(target.http, url, json.dumps(_chat(target) | {"model": NOBODY}))
    broken = await _refusal(target.http, url, "{")
    wrong = [
        f"{name} got {status}, {said}"
        for name, (status, said), wanted in (("an unknown model", unknown, 404), ("a broken body", broken, 400))
        if status != wanted or said
    ]
    return verdict(not wrong, f"{'; '.join(wrong)}." if wrong else "404 and 400, each with an error object.")


async def client(target: Target) -> Evidence:
    """The official client's calls work: models, chat, completion, stream, structured output."""
    try:
        openai = importlib.import_module("openai")
    except ModuleNotFoundError:
        raise LackingError("The official client is not installed here: pip install openai.") from None
    options = {"base_url": f"{target.url}/v1", "api_key": target.api_key or "none", "default_headers": FRESH}
    async with openai.AsyncOpenAI(**options, timeout=REQUEST_S, max_retries=0) as made:
        found = {name: await tried(step, made, target.model) for name, step in SMOKE.items()}
    bad = [f"{name}: {trouble}" for name, trouble in found.items() if trouble]
    good = f"openai {openai.__version__}: {', '.join(found)} work."
    return verdict(not bad, "; ".join(bad) or good, calls=len(found), failed=len(bad))


async def suite(target: Target) -> Evidence:
    """The plan's three tests of `test_openai_compat.py` pass against the target."""
    if target.checkout is None or target.api_key is not None:
        raise LackingError("The suite asks without a key: run it on a target without keys.")
    if missing := [name for name in ("pytest", "openai") if importlib.util.find_spec(name) is None]:
        raise LackingError(f"{' and '.join(missing)} not installed here: run `make setup`.")
    tests = [f"{SUITE}::{name}" for name in PLAN_TESTS]
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--base-url", f"{target.url}/v1", *tests]
    said = await run(sys.executable, *words, folder=target.checkout)
    command = f"pytest {SUITE} --base-url {target.url}/v1"
    return verdict(said.good and f"{len(tests)} passed" in said.text, said.last[-160:], command=command)


async def _asked(target: Target, route: str, body: dict[str, Any]) -> dict[str, Any]:
    async with target.http.post(f"{target.url}/v1/{route}", json=body, headers=FRESH) as answer:
        answer.raise_for_status()
        said: dict[str, Any] = await answer.json()
        return said


async def _refusal(http: aiohttp.ClientSession, url: str, body: str) -> tuple[int, str]:
    """The status, and what is wrong with the error object ("" when nothing is)."""
    async with http.post(url, data=body, headers={"Content-Type": "application/json"}) as answer:
        text = await answer.text()
    try:
        error = json.loads(text)["error"]
        lacks = [name for name in ("message", "type", "param", "code") if name not in error]
    except (ValueError, KeyError, TypeError):
        return answer.status, f"and no error object: {text[:80]!r}"
    return answer.status, f"and its error has no {', '.join(lacks)}" if lacks else ""


def _missing(said: dict[str, Any], kind: str) -> str:
    """What an answer lacks of OpenAI's form, as a sentence; "" when nothing."""
    lacks = [name for name in ("id", "object", "created", "model", "choices", "usage") if name not in said]
    choice = said["choices"][0]
    lacks += [name for name in ("index", "finish_reason") if name not in choice]
    if said.get("object") != kind:
        return f"`object` is {said.get('object')!r}, not {kind!r}."
    return f"The answer has no {', '.join(lacks)}." if lacks else ""


def _chat(target: Target) -> dict[str, Any]:
    return {"model": target.model, "max_tokens": 16, "messages": [{"role": "user", "content": QUESTION}]}


def _delta(event: dict[str, Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in event["choices"])


MODELS: Final = check("1.2.models", "the served model is listed", models, Need.TARGET)
CHECKS: Final[tuple[Check[Target], ...]] = (
    check("1.5.completion", "a completion answers and counts its tokens", completion, Need.TARGET),
    check("1.5.chat", "a chat completion answers and counts its tokens", chat, Need.TARGET),
    check("1.5.stream", "an answer can be streamed to its end", stream, Need.TARGET),
    check("1.5.errors", "what is refused is refused in OpenAI's form", errors, Need.TARGET),
    check("1.5.client", "the official client's calls work", client, Need.TARGET, limit_s=180),
    check(
        "1.5.suite",
        "the plan's three compatibility tests pass",
        suite,
        *(Need.TARGET, Need.CHECKOUT, Need.ENGINE),
        limit_s=300,
    ),
)
