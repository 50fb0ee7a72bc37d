"""What is asked of an engine, and how its answers are reduced to shapes that do not change from run to run.

A shape keeps key paths and JSON types, statuses, content types, the order of events and the spelling of error types;
it drops ids, times, texts and numbers.
"""

from __future__ import annotations

import json
import re
from typing import Any

import aiohttp

CHAT = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3, "temperature": 0, "ignore_eos": True}
TEXT = {"prompt": "Hello there", "max_tokens": 3, "temperature": 0, "ignore_eos": True}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
CONTINUOUS = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}

CASES: dict[str, tuple[str, str, Any]] = {
    "health": ("GET", "/health", None),
    "version": ("GET", "/version", None),
    "models": ("GET", "/v1/models", None),
    "tokenize": ("POST", "/tokenize", {"prompt": "Hello"}),
    "detokenize": ("POST", "/detokenize", {"tokens": [10, 11, 12]}),
    "chat": ("POST", "/v1/chat/completions", CHAT),
    "chat with token ids": ("POST", "/v1/chat/completions", {**CHAT, "return_token_ids": True}),
    "chat with logprobs": ("POST", "/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 1}),
    "chat, two choices": ("POST", "/v1/chat/completions", {**CHAT, "n": 2, "temperature": 1, "seed": 1}),
    "chat stream": ("POST", "/v1/chat/completions", {**CHAT, "stream": True}),
    "chat stream with usage": ("POST", "/v1/chat/completions", {**CHAT, **USAGE}),
    "chat stream with running usage": ("POST", "/v1/chat/completions", {**CHAT, **CONTINUOUS}),
    "chat stream with token ids": ("POST", "/v1/chat/completions", {**CHAT, "stream": True, "return_token_ids": True}),
    "completion": ("POST", "/v1/completions", TEXT),
    "completion with logprobs": ("POST", "/v1/completions", {**TEXT, "logprobs": 1}),
    "completion of token ids": ("POST", "/v1/completions", {**TEXT, "prompt": [5, 6, 7], "return_token_ids": True}),
    "completion of two prompts": ("POST", "/v1/completions", {**TEXT, "prompt": ["a b", "c d"]}),
    "completion stream": ("POST", "/v1/completions", {**TEXT, "stream": True}),
    "completion stream with usage": ("POST", "/v1/completions", {**TEXT, **USAGE}),
    "completion stream with token ids": ("POST", "/v1/completions", {**TEXT, **CONTINUOUS, "return_token_ids": True}),
    "unknown model": ("POST", "/v1/chat/completions", {**CHAT, "model": "no-such-model"}),
    "unknown model, completion": ("POST", "/v1/completions", {**TEXT, "model": "no-such-model"}),
    "not JSON": ("POST", "/v1/chat/completions", b"not json"),
    "no messages": ("POST", "/v1/chat/completions", {"max_tokens": 3}),
    "messages of a wrong type": ("POST", "/v1/chat/completions", {**CHAT, "messages": "hi"}),
    "no prompt": ("POST", "/v1/completions", {"max_tokens": 3}),
    "too many tokens": ("POST", "/v1/chat/completions", {**CHAT, "max_tokens": 10_000_000}),
    "negative temperature": ("POST", "/v1/chat/completions", {**CHAT, "temperature": -1}),
    "two choices of a greedy answer": ("POST", "/v1/completions", {**TEXT, "n": 2}),
    "no choices": ("POST", "/v1/completions", {**TEXT, "n": 0}),
    "an empty stop string": ("POST", "/v1/completions", {**TEXT, "stop": [""]}),
    "a stop string of a wrong type": ("POST", "/v1/completions", {**TEXT, "stop": 5}),
    "a seed of a wrong type": ("POST", "/v1/completions", {**TEXT, "seed": "x"}),
    "a temperature of a wrong type": ("POST", "/v1/completions", {**TEXT, "temperature": "hot"}),
    "stream options without a stream": ("POST", "/v1/completions", {**TEXT, "stream_options": {"include_usage": True}}),
    "stream options of a wrong type": ("POST", "/v1/completions", {**TEXT, "stream": True, "stream_options": "x"}),
    "stream of a wrong type": ("POST", "/v1/completions", {**TEXT, "stream": "maybe"}),
    "an unknown token": ("POST", "/v1/completions", {**TEXT, "prompt": [99_999_999]}),
    "a negative token": ("POST", "/v1/completions", {**TEXT, "prompt": [-1]}),
    "an empty prompt": ("POST", "/v1/completions", {**TEXT, "prompt": ""}),
    "a prompt of no tokens": ("POST", "/v1/completions", {**TEXT, "prompt": [[]]}),
    "a prompt of a wrong type": ("POST", "/v1/completions", {**TEXT, "prompt": 5}),
    "a prompt that is too long": ("POST", "/v1/completions", {**TEXT, "prompt": [5] * 100_000}),
    "no tokens asked": ("POST", "/v1/completions", {**TEXT, "max_tokens": 0}),
    "max_tokens of a wrong type": ("POST", "/v1/completions", {**TEXT, "max_tokens": "x"}),
    "min_tokens above max_tokens": ("POST", "/v1/completions", {**TEXT, "min_tokens": 99}),
    "negative logprobs": ("POST", "/v1/completions", {**TEXT, "logprobs": -3}),
    "logprobs of a wrong type": ("POST", "/v1/completions", {**TEXT, "logprobs": "x"}),
    "a model of a wrong type": ("POST", "/v1/completions", {**TEXT, "model": 5}),
    "no conversation": ("POST", "/v1/chat/completions", {**CHAT, "messages": []}),
    "too many completion tokens": ("POST", "/v1/chat/completions", {**CHAT, "max_completion_tokens": 10_000_000}),
    "tokens of a chat": ("POST", "/tokenize", {"messages": CHAT["messages"]}),
    "tokenize of a wrong type": ("POST", "/tokenize", {"prompt": 5}),
    "detokenize of a wrong type": ("POST", "/detokenize", {"tokens": "x"}),
    "detokenize of a negative token": ("POST", "/detokenize", {"tokens": [-1]}),
    "no body": ("POST", "/v1/chat/completions", b""),
    "a body that is a list": ("POST", "/v1/chat/completions", b"[]"),
    "wrong method": ("GET", "/v1/chat/completions", None),
    "no such route": ("GET", "/nowhere", None),
}


def shape(value: Any) -> Any:
    """Reduce a JSON value to its keys and types; lists to the shape of their first element."""
    if isinstance(value, dict):
        shapes = {key: shape(value[key]) for key in sorted(value)}
        tops = shapes.get("top_logprobs")
        if "token_logprobs" in shapes and isinstance(tops, list):  # keyed by the tokens' texts
            shapes["top_logprobs"] = [sorted(set(top.values())) for top in tops]
        return shapes
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    return "string" if isinstance(value, str) else "number"


def error_shape(body: dict[str, Any]) -> Any:
    """Error bodies keep their values but for the message's wording."""
    error = body.get("error")
    if not isinstance(error, dict):
        return body
    return {"error": {**error, "message": "string"}}


def stream_shape(text: str) -> list[Any]:
    """Shapes of the events, successive equal ones merged (how many tokens share an event may vary)."""
    shapes: list[Any] = []
    for event in text.split("\n\n"):
        if not event:
            continue
        data = event.removeprefix("data: ")
        one = data if data == "[DONE]" else shape(json.loads(data))
        if not shapes or shapes[-1] != one:
            shapes.append(one)
    return shapes


def metrics_shape(text: str) -> dict[str, Any]:
    """Metric name to type, label names and bucket bounds; only the engine's own metrics."""
    found: dict[str, Any] = {}
    for line in text.splitlines():
        typed = re.fullmatch(r"# TYPE (vllm:\S+) (\w+)", line)
        if typed and not typed[1].endswith("_created"):
            found[typed[1]] = {"type": typed[2], "labels": [], "buckets": []}
    for line in text.splitlines():
        sample = re.match(r"(vllm:[^{ ]+)\{(.*)\} ", line)
        if not sample:
            continue
        name = sample[1].removesuffix("_bucket") if sample[1].removesuffix("_bucket") in found else sample[1]
        if name not in found:
            continue
        labels = dict(re.findall(r'(\w+)="([^"]*)"', sample[2]))
        bound = labels.pop("le", None)
        found[name]["labels"] = sorted(labels)
        if bound is not None and bound not in found[name]["buckets"]:
            found[name]["buckets"].append(bound)
    return found


async def record(base_url: str) -> dict[str, Any]:
    """Ask everything of the engine at ``base_url`` (without /v1)."""
    recording: dict[str, Any] = {}
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        async with session.get(f"{base_url}/v1/models") as response:
            model = (await response.json())["data"][0]["id"]
        for name, (method, path, body) in CASES.items():
            recording[name] = await _ask(session, model, method, base_url + path, body)
        async with session.get(f"{base_url}/metrics") as response:
            recording["metrics"] = metrics_shape(await response.text())
    return recording


async def _ask(session: aiohttp.ClientSession, model: str, method: str, url: str, body: Any) -> Any:
    data = body if body is None or isinstance(body, bytes) else json.dumps({"model": model, **body}).encode()
    async with session.request(method, url, data=data, headers={"content-type": "application/json"}) as response:
        text = await response.text()
        kind = response.headers.get("content-type", "").replace(" ", "")
        answer: dict[str, Any] = {"status": response.status, "content_type": kind if text else ""}
        if kind.startswith("text/event-stream"):
            answer["events"] = stream_shape(text)
        elif text:
            parsed = json.loads(text)
            answer["body"] = shape(parsed) if response.status < 400 else error_shape(parsed)
        return answer
