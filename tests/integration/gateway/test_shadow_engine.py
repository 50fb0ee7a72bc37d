"""Shadow traffic with real vLLM: the engine's own answers are read and found equal to themselves."""

from __future__ import annotations

import aiohttp
import pytest

from inferdock.release.judging.readings import counts_of
from tests.integration.gateway.test_shadow import settled, shadowed

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

MESSAGES = [{"role": "user", "content": "Which routes does the gateway serve?"}]
TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}},
}
CHAT = {"messages": MESSAGES, "max_tokens": 24, "temperature": 0}
CALL = {"type": "function", "function": {"name": "look"}}
CASES = {
    "stream": ("chat/completions", CHAT | {"stream": True}),
    "whole": ("chat/completions", CHAT),
    "two choices": ("chat/completions", CHAT | {"n": 2, "temperature": 0.9, "seed": 3, "stream": True}),
    "log-probabilities": ("chat/completions", CHAT | {"logprobs": True, "top_logprobs": 3, "stream": True}),
    "tool call": ("chat/completions", CHAT | {"tools": [TOOL], "tool_choice": CALL, "max_tokens": 64}),
    "completion": ("completions", {"prompt": "Inferdock is", "max_tokens": 24, "temperature": 0, "stream": True}),
    "seed": ("completions", {"prompt": "Inferdock is", "max_tokens": 24, "temperature": 0.9, "seed": 5}),
}


TRIES = 20
"""A copy is not sent while the engine's last figures show a request that waits: then the same is asked again."""


async def test_an_engine_that_is_its_own_shadow_is_equal(engine_url: str) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as http:
        async with http.get(f"{engine_url}/v1/models") as response:
            model = (await response.json())["data"][0]["id"]
        sent = 0
        async with shadowed(http, engine_url, engine_url, model=model) as gateway:
            for wanted, (case, (route, body)) in enumerate(CASES.items(), 1):
                for _ in range(TRIES):
                    async with http.post(f"{gateway.url}/v1/{route}", json={"model": model, **body}) as response:
                        assert response.status == 200, await response.text()
                        await response.read()
                    sent += 1
                    found = await settled(http, gateway.url, sent, model=model)
                    if found.shadow.by_outcome.get("answered", 0) >= wanted:
                        break
                else:
                    pytest.fail(f"no copy of {case} was answered: {found.shadow.by_outcome}")
    shadow = counts_of(found).shadow
    assert (shadow.answered, shadow.failed) == (len(CASES), 0)
    assert set(found.shadow.by_outcome) <= {"answered", "busy"}
    assert (shadow.equal, shadow.different) == (len(CASES), {})
