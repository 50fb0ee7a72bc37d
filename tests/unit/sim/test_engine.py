"""The simulated scheduler and its HTTP side."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim

TEXT = {"model": "sim", "prompt": " river stone", "temperature": 0, "ignore_eos": True}


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


async def complete(http: aiohttp.ClientSession, url: str, **fields: object) -> dict:
    async with http.post(f"{url}/v1/completions", json={**TEXT, **fields}) as response:
        return await response.json()


async def gauge(http: aiohttp.ClientSession, url: str, name: str) -> float:
    async with http.get(f"{url}/metrics") as response:
        lines = [line for line in (await response.text()).splitlines() if line.startswith(f"{name}{{")]
    return float(lines[0].rpartition(" ")[2])


async def until(http: aiohttp.ClientSession, url: str, name: str, value: float) -> None:
    async with asyncio.timeout(10):
        while await gauge(http, url, name) != value:
            await asyncio.sleep(0.01)


async def test_the_batch_limit_makes_requests_wait_in_order(http):
    async with running_sim(SimOptions(max_num_seqs=1, ttft_s=0.2, itl_s=0.001)) as sim:
        order: list[int] = []

        async def one(index: int) -> None:
            await complete(http, sim.url, max_tokens=2)
            order.append(index)

        tasks = []
        for index in range(3):
            tasks.append(asyncio.create_task(one(index)))
            await until(http, sim.url, "vllm:num_requests_waiting", max(0, index))
        assert await gauge(http, sim.url, "vllm:num_requests_running") == 1
        await asyncio.gather(*tasks)
    assert order == [0, 1, 2]


async def test_a_full_kv_cache_makes_requests_wait(http):
    async with running_sim(SimOptions(kv_cache_tokens=64, ttft_s=0.3, itl_s=0.001)) as sim:
        prompt = list(range(10, 50))
        tasks = [asyncio.create_task(complete(http, sim.url, prompt=prompt, max_tokens=4)) for _ in range(2)]
        await until(http, sim.url, "vllm:num_requests_waiting", 1)
        assert await gauge(http, sim.url, "vllm:kv_cache_usage_perc") > 0.5
        assert [len(r["choices"]) for r in await asyncio.gather(*tasks)] == [1, 1]


async def test_an_overfull_kv_cache_preempts_and_loses_nothing(http):
    async with running_sim(SimOptions(kv_cache_tokens=40, ttft_s=0.05, itl_s=0.002)) as sim:
        alone = await complete(http, sim.url, max_tokens=20)
        both = await asyncio.gather(*(complete(http, sim.url, max_tokens=20) for _ in range(2)))
        assert {r["choices"][0]["text"] for r in both} == {alone["choices"][0]["text"]}
        assert await gauge(http, sim.url, "vllm:num_preemptions_total") >= 1


async def test_a_stop_string_ends_the_text_before_it(http):
    async with running_sim(SimOptions(ttft_s=0, itl_s=0.001)) as sim:
        text = (await complete(http, sim.url, max_tokens=20))["choices"][0]["text"]
        word = text.split()[7]
        cut = (await complete(http, sim.url, max_tokens=20, stop=[word]))["choices"][0]
    assert cut["text"] == text[: text.index(word)]
    assert (cut["finish_reason"], cut["stop_reason"]) == ("stop", word)


async def test_token_ids_continue_on_another_replica(http):
    options = SimOptions(ttft_s=0, itl_s=0.001)
    async with running_sim(options) as one, running_sim(options) as two:
        whole = (await complete(http, one.url, max_tokens=12, return_token_ids=True))["choices"][0]
        prompt = whole["prompt_token_ids"] + whole["token_ids"][:5]
        rest = (await complete(http, two.url, prompt=prompt, max_tokens=7, return_token_ids=True))["choices"][0]
    assert rest["token_ids"] == whole["token_ids"][5:]


async def test_a_client_that_leaves_is_an_abort(http):
    async with running_sim(SimOptions(ttft_s=30)) as sim:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(complete(http, sim.url, max_tokens=5), 0.2)
        async with asyncio.timeout(10):
            while sim.unfinished:
                await asyncio.sleep(0.01)
        async with http.get(f"{sim.url}/metrics") as response:
            assert 'finished_reason="abort",model_name="sim"} 1.0' in await response.text()


@pytest.mark.parametrize("fault", ["refuse", "garbage", "cut:2", "badchunk:2"])
async def test_faults_break_the_answer(http, fault):
    async with running_sim(SimOptions(ttft_s=0, itl_s=0.001), fault) as sim:
        with pytest.raises(aiohttp.ClientError):
            async with http.post(f"{sim.url}/v1/completions", json={**TEXT, "stream": True}) as response:
                await response.read()


async def test_faults_can_be_armed_and_cleared_while_it_runs(http):
    async with running_sim(SimOptions(ttft_s=0)) as sim:
        async with http.post(f"{sim.url}/sim/faults", json={"fault": "status:429"}) as response:
            assert [f["kind"] for f in (await response.json())["armed"]] == ["status"]
        async with http.post(f"{sim.url}/v1/completions", json=TEXT) as response:
            assert response.status == 429
        await http.delete(f"{sim.url}/sim/faults")
        assert (await complete(http, sim.url, max_tokens=1))["choices"]
        async with http.post(f"{sim.url}/sim/faults", json={"fault": "nonsense"}) as response:
            assert response.status == 400


async def test_shutdown_lets_open_answers_finish_within_its_time(http):
    async with running_sim(SimOptions(ttft_s=0.3, itl_s=0.01, shutdown_timeout_s=10)) as sim:
        open_answer = asyncio.create_task(complete(http, sim.url, max_tokens=5))
        while not sim.unfinished:
            await asyncio.sleep(0.01)
        await sim.stop()
        assert (await open_answer)["usage"]["completion_tokens"] == 5
