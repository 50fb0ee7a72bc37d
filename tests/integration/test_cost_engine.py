"""The cost of tokens of real vLLM: against the clients' own counts and their own clock."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from inferdock.app.cost import Engine, Where, over_window, report
from inferdock.config.settings import CostSettings

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

PRICE = 3.0
SHARED = "Say which of these is a release: " + "canary, gateway, replica, drain, registry, tokenizer, " * 12


async def ask(http: aiohttp.ClientSession, base_url: str, text: str) -> tuple[int, int]:
    body = {"model": "inferdock-demo", "messages": [{"role": "user", "content": text}], "max_tokens": 24}
    async with http.post(f"{base_url}/chat/completions", json=body) as response:
        usage = (await response.json())["usage"]
    return usage["prompt_tokens"], usage["completion_tokens"]


async def test_tokens_and_dollars_agree_with_what_the_clients_saw(base_url: str, engine_url: str) -> None:
    gateway = Where(base_url.removesuffix("/v1"), engines=(Engine("inferdock-demo", "", engine_url),))
    counted: list[tuple[int, int]] = []
    async with aiohttp.ClientSession() as http:
        inside = 0.0

        async def load(_: float) -> None:
            nonlocal inside
            began = time.monotonic()
            for _ in range(4):
                counted.extend(await asyncio.gather(*(ask(http, base_url, f"{SHARED}{i}") for i in range(8))))
            inside = time.monotonic() - began

        await ask(http, base_url, SHARED)
        began = time.monotonic()
        figures = await over_window(http, gateway, 1.0, sleep=load)
        outside = time.monotonic() - began
    total = report(CostSettings(cost_per_hour=PRICE), figures)["total"]
    prompt, output = (sum(column) for column in zip(*counted, strict=True))
    tokens = total["tokens"]
    assert (tokens["prompt"] + tokens["cached"], tokens["output"]) == (prompt, output)
    assert tokens["cached"] > prompt / 2
    # The window lies between the client's two clocks: one stops before its last look, the other after it.
    least, most = (PRICE * elapsed / 3600 / (prompt + output) * 1e6 for elapsed in (inside, outside))
    assert least * 0.98 <= total["dollars_per_million"]["blended"] <= most * 1.02
    assert total["saved_dollars"]["prefix_cache"] >= 0
