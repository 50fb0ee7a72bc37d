"""``inferdock cache``: what is asked of the gateway, and what a person sees."""

from __future__ import annotations

import asyncio
import json

import pytest
from click.testing import CliRunner

from inferdock.cli.main import cli
from inferdock.config.settings import CacheSettings
from inferdock.domain.errors import ConfigError, UnreachableError
from tests.integration.gateway.caching.support import chat_body, platform

BODY = {"messages": chat_body()["messages"], "temperature": 0.0, "max_tokens": 256}


def run(url: str, *words: str, fails: type[Exception] | None = None) -> str:
    """Output of the command, standard error included."""
    result = CliRunner().invoke(cli, ["cache", *words, "--admin-url", url], catch_exceptions=True)
    if fails is not None:
        assert isinstance(result.exception, fails), result.exception
        return str(result.exception)
    assert result.exception is None, result.exception
    return result.output


async def asked(p, *words: str, fails: type[Exception] | None = None) -> str:
    """Run the command beside the gateway."""
    return await asyncio.to_thread(run, p.gateway.admin_url, *words, fails=fails)


async def test_explain_shows_a_miss_then_a_hit_with_its_answer() -> None:
    async with platform() as p:
        assert "miss" in await asked(p, "explain", "where is the river")
        answer = await p.post({"model": "sim", **BODY})
        shown = await asked(p, "explain", "where is the river")
        assert shown.startswith("hit, exact tier: equal")
        assert answer.text[:20] in shown


async def test_stats_show_hits_by_tier_and_what_they_save() -> None:
    async with platform() as p:
        for _ in range(4):
            await p.post(chat_body())
        shown = await asked(p, "stats")
        assert "75.0% of 4 look-ups (exact 3)" in shown
        document = json.loads(await asked(p, "stats", "-o", "json"))
        assert document["entries"] == 1


async def test_evict_and_flush_make_answers_void() -> None:
    async with platform() as p:
        await p.post({"model": "sim", **BODY})
        key = json.loads(await asked(p, "explain", "where is the river", "-o", "json"))["key"]
        assert "is gone" in await asked(p, "evict", key)
        assert "no such answer" in await asked(p, "evict", key)
        assert "Flushed: model sim." in await asked(p, "flush", "--model", "sim")
        assert "Flushed: all." in await asked(p, "flush", "--all")


async def test_a_whole_request_can_be_explained(tmp_path) -> None:
    async with platform() as p:
        await p.post(chat_body())
        file = tmp_path / "request.json"
        file.write_text(json.dumps(chat_body(stream=True)))
        assert "hit" in await asked(p, "explain", "--body", str(file))
        file.write_text("[1]")
        assert "not a JSON object" in await asked(p, "explain", "--body", str(file), fails=ConfigError)


@pytest.mark.parametrize("words", [["flush"], ["flush", "--all", "--model", "x"], ["explain"]])
def test_wrong_usage_is_refused_before_anything_is_asked(words: list[str]) -> None:
    result = CliRunner().invoke(cli, ["cache", *words, "--admin-url", "http://127.0.0.1:9"])
    assert result.exit_code == 2


def test_a_gateway_that_is_not_there_is_said_so() -> None:
    assert "does not answer" in run("http://127.0.0.1:9", "stats", fails=UnreachableError)


async def test_a_gateway_without_a_cache_says_how_to_switch_it_on() -> None:
    async with platform(CacheSettings()) as p:
        assert "cache.enabled" in await asked(p, "stats", fails=ConfigError)
