"""Ten times more requests than the replicas can answer: they stay busy with answers that arrive in time."""

from __future__ import annotations

import asyncio
import collections
import time

import aiohttp
import pytest

from inferdock.sim.testing import SimProcess
from tests.support.gateway import gateway_process

SLOTS = 8
SIM = ["--port", "0", "--ttft", "0.1", "--itl", "0.02", "--max-num-seqs", str(SLOTS)]
TOKENS = 21
ANSWER_S = 0.1 + 20 * 0.02
CAPACITY_PER_S = 2 * SLOTS / ANSWER_S
IN_TIME_S = 3.0
PHASE_S = 8.0
QUEUE = 32
CONFIG = f"""
gateway: {{max_in_flight_per_replica: {SLOTS}, queue_length: {QUEUE}, queue_timeout_s: {IN_TIME_S - 1}}}
log: {{requests: false}}
keys: {{check: never}}
"""
BODY = {"model": "sim", "messages": [{"role": "user", "content": "x"}], "max_tokens": TOKENS, "ignore_eos": True}


class Load:
    """Requests sent, and what became of them."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http = http
        self.url = url
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.retry_after: list[int] = []

    async def ask(self) -> None:
        """One request."""
        began = time.monotonic()
        async with self.http.post(f"{self.url}/v1/chat/completions", json=BODY) as response:
            await response.read()
            if response.status == 200:
                self.outcomes["good" if time.monotonic() - began < IN_TIME_S else "late"] += 1
            else:
                self.outcomes[str(response.status)] += 1
                self.retry_after.append(int(response.headers["retry-after"]))

    async def closed(self, clients: int) -> float:
        """So many clients that each wait for their answer: answers in time per second."""
        end = time.monotonic() + PHASE_S

        async def client() -> None:
            while time.monotonic() < end:
                await self.ask()

        await asyncio.gather(*(client() for _ in range(clients)))
        return self.outcomes["good"] / PHASE_S

    async def open(self, rate: float) -> float:
        """Arrivals that wait for nobody: answers in time per second."""
        began = time.monotonic()
        tasks = []
        for number in range(int(rate * PHASE_S)):
            if (wait := began + number / rate - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(self.ask()))
        await asyncio.gather(*tasks)
        return self.outcomes["good"] / (time.monotonic() - began)


@pytest.mark.timeout(180)
async def test_goodput_holds_at_ten_times_the_load_and_nothing_grows(tmp_path):
    replicas = [SimProcess(*SIM) for _ in range(2)]
    try:
        urls = [replica.url for replica in replicas]
        async with gateway_process(tmp_path, urls, config=CONFIG) as url:
            timeout = aiohttp.ClientTimeout(total=60)
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as http:
                peak = await Load(http, url).closed(2 * SLOTS)
                over = Load(http, url)
                watch = asyncio.create_task(longest_queue(http, url))
                goodput = await over.open(10 * CAPACITY_PER_S)
                watch.cancel()
                longest = max(await asyncio.gather(watch, return_exceptions=True), key=lambda x: isinstance(x, int))
    finally:
        for replica in replicas:
            replica.kill()
    print(f"peak {peak:.1f}/s, at ten times the load {goodput:.1f}/s: {dict(over.outcomes)}; queue {longest}")
    assert goodput >= 0.9 * peak
    assert over.outcomes["late"] == 0
    assert over.outcomes["429"] > 0
    assert all(1 <= seconds <= 10 for seconds in over.retry_after)


async def longest_queue(http: aiohttp.ClientSession, url: str) -> int:
    """Watch the queue; it may never be longer than its limit."""
    longest = 0
    try:
        while True:
            async with http.get(f"{url}/metrics") as response:
                lines = (await response.text()).splitlines()
            waiting = [int(float(x.rpartition(" ")[2])) for x in lines if x.startswith("llm_gateway_queue_waiting{")]
            longest = max([longest, *waiting])
            assert longest <= QUEUE
            await asyncio.sleep(0.1)
    except asyncio.CancelledError:
        return longest
