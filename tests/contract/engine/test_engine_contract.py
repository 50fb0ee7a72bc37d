"""The simulated replica against the recording of the real engine, and the real engine against the same recording."""

from __future__ import annotations

import copy
import json

import pytest

from inferdock.sim.options import SimOptions
from inferdock.sim.testing import running_sim
from tests.contract.engine.record import RECORDINGS
from tests.contract.engine.shapes import CASES, record

RECORDING = json.loads((RECORDINGS / "vllm-0.32.0.json").read_text())

SIMULATED_METRICS = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:num_preemptions_total",
    "vllm:request_success_total",
    "vllm:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:request_time_per_output_token_seconds",
    "vllm:e2e_request_latency_seconds",
    "vllm:request_queue_time_seconds",
    "vllm:request_prompt_tokens",
    "vllm:request_generation_tokens",
}
"""Metrics that the simulation really measures; the others are absent from it, never zero."""


def known_differences(name: str, answer: dict) -> dict:
    """The simulation has no permission objects in its model card; everything else must be equal."""
    answer = copy.deepcopy(answer)
    if name == "models":
        answer["body"]["data"][0]["permission"] = []
    return answer


async def simulated() -> dict:
    async with running_sim(SimOptions(ttft_s=0, itl_s=0.001)) as replica:
        return await record(replica.url)


@pytest.fixture(scope="module")
def simulation() -> dict:
    import asyncio  # noqa: PLC0415 - the fixture outlives the loops of single tests

    return asyncio.run(simulated())


@pytest.mark.parametrize("name", CASES)
def test_the_simulated_replica_answers_in_the_real_engines_shape(simulation, name):
    assert known_differences(name, simulation[name]) == known_differences(name, RECORDING[name])


@pytest.mark.parametrize("metric", sorted(SIMULATED_METRICS))
def test_simulated_metrics_have_the_real_engines_names_labels_and_buckets(simulation, metric):
    ours, theirs = simulation["metrics"][metric], RECORDING["metrics"][metric]
    lengths = metric.endswith(("request_prompt_tokens", "request_generation_tokens"))
    if lengths:  # these end at the longest sequence of the model that was recorded
        shorter = min(len(ours["buckets"]), len(theirs["buckets"])) - 1
        ours["buckets"], theirs["buckets"] = ours["buckets"][:shorter], theirs["buckets"][:shorter]
    assert ours == theirs


def test_the_simulation_exposes_no_metric_that_it_does_not_measure(simulation):
    assert set(simulation["metrics"]) == SIMULATED_METRICS


@pytest.mark.engine
async def test_the_real_engine_still_answers_as_recorded(engine_url):
    live = await record(engine_url)
    assert {name: live[name] for name in CASES} == {name: RECORDING[name] for name in CASES}
    missing = {name: live["metrics"].get(name) for name in SIMULATED_METRICS}
    assert {name: m and m["labels"] for name, m in missing.items()} == {
        name: RECORDING["metrics"][name]["labels"] for name in SIMULATED_METRICS
    }
