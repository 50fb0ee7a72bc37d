"""Ten thousand streams while replicas are killed: none fails, none is cut, none is altered.

The replicas are simulated, so the right text of every answer is known beforehand; they and the gateway are processes
of their own. ``NO_LOSS_STREAMS`` sets the number of streams.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import time

import aiohttp
import pytest

from inferdock.sim.language import EOS, Generator, decode, render_chat
from inferdock.sim.testing import SimProcess
from tests.support.gateway import gateway_process

STREAMS = int(os.environ.get("NO_LOSS_STREAMS", "10000"))
RATE_PER_S = 120
KILL_EVERY_S = 5.0
TOKENS = 24
REPLICAS = 4
CONFIG = """
gateway: {health_interval_s: 0.5, max_in_flight_per_replica: 2000}
log: {requests: false}
keys: {check: never}
"""
SIM = ["--ttft", "0.05", "--itl", "0.03", "--max-num-seqs", "512"]


def right_answer(text: str) -> str:
    """What an undisturbed replica says."""
    prompt = render_chat([("user", text)])
    generator = Generator(prompt, 0)
    ids = [generator.next(may_end=False) for _ in range(TOKENS)]
    return decode([token for token in ids if token != EOS])


class Replicas:
    """Simulated replicas on fixed ports, one of which is always about to be killed."""

    def __init__(self) -> None:
        self.processes = [SimProcess("--port", "0", *SIM) for _ in range(REPLICAS)]
        self.kills = 0

    async def kill_in_turn(self, over: asyncio.Event) -> None:
        """Kill -9 one every few seconds and start it again at its port, until ``over``."""
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), KILL_EVERY_S)
                break
            index = self.kills % REPLICAS
            old = self.processes[index]
            old.kill()
            self.kills += 1
            arguments = ("--port", str(old.port), *SIM)
            self.processes[index] = await asyncio.to_thread(SimProcess, *arguments)

    def stop(self) -> None:
        """End all."""
        for process in self.processes:
            process.kill()


async def one_stream(http: aiohttp.ClientSession, url: str, number: int) -> str:
    """Ask, read, and say what came of it: ``right``, or what was wrong."""
    text = f"stream number {number}"
    body = {
        "model": "sim",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    try:
        async with http.post(f"{url}/v1/chat/completions", json=body) as response:
            if response.status != 200:
                return f"status {response.status}: {await response.text()}"
            stream = (await response.read()).decode()
    except (aiohttp.ClientError, TimeoutError) as exc:
        return f"{type(exc).__name__}: {exc}"
    return judge(stream, right_answer(text))


async def all_streams(http: aiohttp.ClientSession, url: str, began: float) -> list[str]:
    """Ask at an even rate, and say what came of each."""
    tasks = []
    for number in range(STREAMS):
        due = began + number / RATE_PER_S
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(one_stream(http, url, number)))
    return await asyncio.gather(*tasks)


def judge(stream: str, expected: str) -> str:
    """Compare a stream with the answer that it should hold."""
    said, usage = "", None
    events = [line for line in stream.split("\n\n") if line and not line.startswith(":")]
    for line in events[:-1]:
        event = json.loads(line.removeprefix("data: "))
        if "error" in event:
            return f"error event: {event['error']['message']}"
        usage = event.get("usage") or usage
        said += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
    if not events or events[-1] != "data: [DONE]":
        return "no end mark"
    if usage is None or usage["completion_tokens"] != TOKENS:
        return f"usage {usage}"
    return "right" if said == expected else f"altered: {said!r} instead of {expected!r}"


@pytest.mark.timeout(600)
async def test_ten_thousand_streams_survive_killed_replicas(tmp_path):
    replicas = Replicas()
    outcomes: collections.Counter[str] = collections.Counter()
    try:
        urls = [process.url for process in replicas.processes]
        async with gateway_process(tmp_path, urls, config=CONFIG) as url:
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120)) as http:
                over = asyncio.Event()
                killer = asyncio.create_task(replicas.kill_in_turn(over))
                began = time.monotonic()
                try:
                    outcomes.update(await all_streams(http, url, began))
                finally:
                    over.set()
                    await killer  # it may be starting a replica, which has to be ended too
                rate = STREAMS / (time.monotonic() - began)
                async with http.get(f"{url}/metrics") as response:
                    metrics = await response.text()
    finally:
        replicas.stop()
    assert outcomes == {"right": STREAMS}
    resumed = [line for line in metrics.splitlines() if "stream_resumes_total{" in line]
    print(f"{STREAMS} streams at {rate:.0f}/s, {replicas.kills} kills; {resumed}")
    assert rate >= 50
    assert replicas.kills >= 3 or STREAMS < 2000
    assert any('outcome="resumed"' in line for line in resumed)
