"""The response cache with real vLLM: similar prompts hit, with the engine's own words; a release gets no old answer."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.support.platform import Platform
from tests.support.redis_server import RedisServer, running_redis

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

TOPICS = ["canary", "rollback", "quality gate", "revision", "replica", "registry", "gateway", "drain"]
FORMS = ["What is a {}?", "what is a {}", "What's a {}?", "Please, what is a {}?", "What does {} mean?", "Why a {}?"]


def config(folder: Path, redis: RedisServer, **model: Any) -> Path:
    """A platform whose answers are kept in this Redis."""
    file = folder / "inferdock.yaml"
    settings = {
        "cache": {"enabled": True, "ttl_jitter": 0, "redis": {"url": redis.url, "timeout_s": 0.5}},
        "model": model,
    }
    file.write_text(json.dumps(settings))  # YAML takes it
    return file


def asked(client: OpenAI, text: str, *, stream: bool = False) -> tuple[str, str]:
    """(outcome of the cache, answer)."""
    kept = {"model": "inferdock-demo", "messages": [{"role": "user", "content": text}]}
    answer = client.chat.completions.with_raw_response.create(**kept, temperature=0, max_tokens=40, stream=stream)
    outcome = answer.headers["x-inferdock-cache"]
    parsed = answer.parse()
    if stream:
        return outcome, "".join(chunk.choices[0].delta.content or "" for chunk in parsed if chunk.choices)
    return outcome, parsed.choices[0].message.content


def client_of(platform: Platform) -> OpenAI:
    """The official client, which never tries again by itself."""
    return OpenAI(base_url=platform.url + "/v1", api_key="none", max_retries=0)


def test_similar_prompts_hit_and_a_release_gets_no_old_answer(tmp_path: Path) -> None:
    with running_redis(tmp_path / "redis") as redis:
        first = Platform(tmp_path / "one", "-f", str(config(tmp_path, redis)))
        try:
            first.wait_until_ready(1, within_s=400)
            admin = first.state["admin_url"]
            client = client_of(first)
            asked(client, "warm up")
            wait_for_embedder(admin)
            prompts = [form.format(topic) for form in FORMS for topic in TOPICS]
            outcomes = [asked(client, prompt, stream=bool(number % 2)) for number, prompt in enumerate(prompts)]
            hits = [outcome for outcome, _ in outcomes].count("hit")
            assert hits / len(prompts) > 0.10
            # Equal but for its surface, asked as a stream and as a body: the engine's own answer each time.
            for number, topic in enumerate(TOPICS):
                outcome, answer = outcomes[len(TOPICS) + number]
                assert (outcome, answer) == ("hit", outcomes[number][1]), topic
            stats = httpx.get(f"{admin}/admin/cache").json()
            assert stats["hits"].get("semantic", 0) >= len(TOPICS)
            assert stats["saved_tokens"] > 0
        finally:
            assert first.stop() == 0, first.output.read_text()

        # Other engine arguments are another identity, though weights and revision are the same.
        second = Platform(tmp_path / "two", "-f", str(config(tmp_path, redis, max_model_len=256)))
        try:
            second.wait_until_ready(1, within_s=400)
            client = client_of(second)
            assert {asked(client, prompt)[0] for prompt in prompts[: len(TOPICS)]} == {"miss"}
            assert asked(client, prompts[0])[0] == "hit"
        finally:
            assert second.stop() == 0, second.output.read_text()


def wait_for_embedder(admin: str) -> None:
    """Until messages can be compared."""
    deadline = time.monotonic() + 60
    while httpx.get(f"{admin}/admin/cache").json()["semantic"]["state"] != "ready":
        assert time.monotonic() < deadline
        time.sleep(0.1)
