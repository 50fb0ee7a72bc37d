"""Prompt tokens that the engine's prefix cache held, by tenant, where the engine's answers say them."""

from __future__ import annotations

import time
from pathlib import Path

import aiohttp
import pytest

from inferdock.config.settings import KeysSettings
from inferdock.keys.store import KeyFile
from inferdock.telemetry import names
from tests.support.gateway import running_gateway
from tests.support.scripted_replica import EVENT_STREAM, scripted_replica

USAGE = (
    b'"usage":{"prompt_tokens":405,"total_tokens":409,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":384,'
    b'"created_cache_tokens":0,"multimodal_tokens":null},"completion_tokens_details":null}'
)
"""As vLLM 0.32 wrote it with ``--enable-prompt-tokens-details``."""
BODY = b'{"id":"c","object":"chat.completion","created":1,"model":"sim","choices":[],%b,"metrics":null}' % USAGE
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
LAST = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"sim","choices":[],"usage":{"prompt_tokens":'
    b'405,"total_tokens":409,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":384,"created_cache_tokens":0}}}'
    b"\n\ndata: [DONE]\n\n"
)
STREAM = EVENT_STREAM + b"%x\r\n%b\r\n0\r\n\r\n" % (len(LAST), LAST)


@pytest.mark.parametrize(("stream", "answer"), [(False, WHOLE), (True, STREAM)], ids=["whole", "stream"])
async def test_they_are_counted_by_tenant(tmp_path: Path, stream: bool, answer: bytes) -> None:
    file = KeyFile(tmp_path / "keys.jsonl")
    key = file.create(name="red", now=time.time(), tenant="red")[1]
    settings = KeysSettings(file=file.path, tenants_in_metrics=True)
    async with (
        scripted_replica([answer]) as replica,
        running_gateway([replica.url], keys=settings) as gateway,
        aiohttp.ClientSession() as http,
    ):
        body = {"model": "sim", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
        for _ in range(2):
            headers = {"authorization": f"Bearer {key}"}
            async with http.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers) as response:
                assert response.status == 200
                await response.read()
        async with http.get(f"{gateway.url}/metrics") as response:
            text = await response.text()
    assert f'{names.TENANT_CACHED}{{model="sim",revision="r1",tenant="red"}} 768.0' in text
