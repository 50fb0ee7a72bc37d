"""Bodies for the tests of this folder."""

from __future__ import annotations

import json
from typing import Any

from inferdock.cache.canonical import CanonicalRequest, Refusal, read

CHAT, COMPLETION = b"/v1/chat/completions", b"/v1/completions"


def chat_fields(text: object = "How tall is the tower?", **more: object) -> dict[str, Any]:
    return {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": text}]} | more


def completion_fields(prompt: object = "Once upon", **more: object) -> dict[str, Any]:
    return {"model": "m", "temperature": 0, "prompt": prompt} | more


def canonical(fields: object, path: bytes | None = None) -> CanonicalRequest:
    request = read_any(fields, path)
    assert isinstance(request, CanonicalRequest), request
    return request


def read_any(fields: object, path: bytes | None = None) -> CanonicalRequest | Refusal:
    completion = isinstance(fields, dict) and "prompt" in fields
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return read(body, path or (COMPLETION if completion else CHAT))
