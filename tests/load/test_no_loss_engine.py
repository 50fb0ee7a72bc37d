"""Two real vLLM replicas, two hundred streams at temperature 0, a replica killed every 20 s: the same texts as without.

A replica takes longer to come back than the next kill takes to come, so for a while there is none: the streams wait,
with heartbeats, and go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from pathlib import Path

import aiohttp
import pytest

from tests.support.platform import Platform

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1200)]

STREAMS = 200
ARRIVALS_PER_S = 4.0
KILLS = 3
KILL_EVERY_S = 20.0
TOKENS = 160
TOPICS = [
    "a canary",
    "a rollback",
    "the registry",
    "a quality gate",
    "the gateway",
    "a revision",
    "the cache",
    "a replica",
]
FORMS = ["What is {}?", "Tell me about {}.", "Why do I need {}?", "How does {} work?", "Explain {} in one sentence."]
CONFIG = "gateway: {hold_timeout_s: 400, queue_timeout_s: 400, resume_attempts: 50, health_interval_s: 0.5}\n"


def question(number: int) -> str:
    """One of 200 different questions."""
    topic, form = TOPICS[number % len(TOPICS)], FORMS[number // len(TOPICS) % len(FORMS)]
    return f"{form.format(topic)} ({number})"


@pytest.fixture
def platform(tmp_path):
    """A platform of two real replicas."""
    config = tmp_path / "inferdock.yaml"
    config.write_text(CONFIG)
    running = Platform(tmp_path / "state", "-f", str(config), "--replicas", "2")
    running.wait_until_ready(2, within_s=400)
    yield running
    assert running.stop() == 0, running.output.read_text()


async def one_stream(http: aiohttp.ClientSession, platform: Platform, number: int) -> tuple[str, str, dict]:
    """Text, how it ended, and usage of one answer."""
    body = {
        "model": platform.state["model"],
        "messages": [{"role": "user", "content": question(number)}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with http.post(f"{platform.url}/v1/chat/completions", json=body) as response:
        stream = (await response.read()).decode()
    assert response.status == 200, stream
    text, finish, usage = "", "", {}
    events = [event for event in stream.split("\n\n") if event and not event.startswith(":")]
    assert events[-1] == "data: [DONE]", events[-1]
    for event in (json.loads(event.removeprefix("data: ")) for event in events[:-1]):
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            text += choice["delta"].get("content") or ""
            finish = choice["finish_reason"] or finish
    return text, finish, {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}


async def all_streams(platform: Platform) -> list[tuple[str, str, dict]]:
    """All streams, arriving one after the other."""
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as http:
        tasks = []
        for number in range(STREAMS):
            tasks.append(asyncio.create_task(one_stream(http, platform, number)))
            await asyncio.sleep(1 / ARRIVALS_PER_S)
        return await asyncio.gather(*tasks)


async def kill_in_turn(platform: Platform, killed: list[int]) -> None:
    """Kill -9 the engine of one replica after the other."""
    for turn in range(KILLS):
        await asyncio.sleep(KILL_EVERY_S)
        pid = platform.state["replicas"][turn % 2]["pid"]
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(os.getpgid(pid), signal.SIGKILL)
                killed.append(pid)


async def resumes(platform: Platform) -> float:
    async with aiohttp.ClientSession() as http, http.get(f"{platform.url}/metrics") as response:
        lines = (await response.text()).splitlines()
    return sum(
        float(line.rpartition(" ")[2]) for line in lines if "stream_resumes_total{" in line and "resumed" in line
    )


async def test_two_hundred_streams_of_real_engines_read_the_same_with_and_without_kills(
    platform: Platform, tmp_path: Path
):
    undisturbed = await all_streams(platform)
    assert await resumes(platform) == 0
    killed: list[int] = []
    began = time.monotonic()
    killer = asyncio.create_task(kill_in_turn(platform, killed))
    disturbed = await all_streams(platform)
    await killer
    moved = await resumes(platform)
    print(f"{STREAMS} streams in {time.monotonic() - began:.0f} s, {len(killed)} kills, {moved:.0f} resumed")
    different = [number for number in range(STREAMS) if disturbed[number] != undisturbed[number]]
    assert not different, [(undisturbed[number], disturbed[number]) for number in different[:3]]
    assert len(killed) == KILLS
    assert moved > 0
