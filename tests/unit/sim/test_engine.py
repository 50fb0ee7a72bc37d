"""The simulated scheduler, driven by a clock of the test."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.sim.engine import Sequence, SimEngine
from inferdock.sim.metrics import SimMetrics
from inferdock.sim.options import SimOptions


class Bench:
    """An engine whose clock the test moves."""

    def __init__(self, **options: float) -> None:
        chosen = {"ttft_s": 1.0, "itl_s": 0.1, **options}
        self.options = SimOptions(**chosen)
        self.now = 100.0
        self.metrics = SimMetrics("sim", max_model_len=4096)
        self.engine = SimEngine(self.options, self.metrics, lambda: self.now)

    def submit(self, prompt: int = 4, tokens: int = 5, **more: object) -> Sequence:
        sequence = Sequence([5] * prompt, max_tokens=tokens, **{"ignore_eos": True, **more})
        self.engine.submit(sequence)
        return sequence

    def go(self, seconds: float, every: float = 0.01) -> None:
        for _ in range(round(seconds / every)):
            self.engine.step(self.now)
            self.now += every

    def value(self, name: str, **labels: str) -> float:
        wanted = {"engine": "0", "model_name": "sim", **labels}
        return self.metrics.registry.get_sample_value(f"vllm:{name}", wanted) or 0.0


def test_the_first_token_takes_the_ttft_and_later_ones_the_itl():
    bench = Bench()
    sequence = bench.submit(tokens=20)
    bench.go(0.98)
    assert sequence.output == []
    bench.go(0.05)
    assert len(sequence.output) == 1
    bench.go(1.0)
    assert len(sequence.output) in (10, 11)


def test_a_request_that_comes_while_another_is_prefilled_is_not_held_up():
    bench = Bench(ttft_s=1.0)
    bench.submit()
    bench.go(0.5)
    second = bench.submit()
    bench.go(1.03)
    assert len(second.output) == 1


def test_no_more_run_than_the_batch_holds_and_the_first_come_runs_first():
    bench = Bench(max_num_seqs=2, ttft_s=0.0)
    sequences = [bench.submit(tokens=3) for _ in range(4)]
    bench.go(0.02)
    assert (bench.value("num_requests_running"), bench.value("num_requests_waiting")) == (2, 2)
    assert [len(s.output) for s in sequences] == [1, 1, 0, 0]
    bench.go(1.0)
    assert [s.finish_reason for s in sequences] == ["length"] * 4
    assert bench.engine.unfinished == 0


def test_a_request_waits_until_the_kv_cache_has_room():
    bench = Bench(kv_cache_tokens=100, ttft_s=0.0)
    first, second = bench.submit(prompt=80, tokens=3), bench.submit(prompt=50, tokens=3)
    bench.go(0.02)
    assert (len(first.output), len(second.output)) == (1, 0)
    assert bench.value("kv_cache_usage_perc") == pytest.approx(0.81)
    bench.go(1.0)
    assert second.finish_reason == "length"
    assert bench.value("kv_cache_usage_perc") == 0


def test_a_full_kv_cache_pushes_the_youngest_out_which_later_goes_on():
    bench = Bench(kv_cache_tokens=40, ttft_s=0.0)
    first, second = bench.submit(prompt=15, tokens=15), bench.submit(prompt=15, tokens=15)
    lone = Bench(kv_cache_tokens=1000, ttft_s=0.0)
    undisturbed = lone.submit(prompt=15, tokens=15)
    lone.go(5)
    bench.go(5)
    assert bench.value("num_preemptions_total") >= 1
    assert second.output == first.output == undisturbed.output


def test_an_aborted_request_leaves_at_once_whether_it_runs_or_waits():
    bench = Bench(max_num_seqs=1, ttft_s=0.0)
    running, waiting = bench.submit(tokens=1000), bench.submit()
    bench.go(0.5)
    bench.engine.abort(waiting)
    bench.engine.abort(running)
    bench.go(0.01)
    assert bench.engine.unfinished == 0
    assert bench.value("request_success_total", finished_reason="abort") == 2
    assert bench.value("kv_cache_usage_perc") == 0


def test_abort_does_not_touch_what_has_ended():
    bench = Bench(ttft_s=0.0)
    sequence = bench.submit(tokens=1)
    bench.go(0.1)
    bench.engine.abort(sequence)
    assert sequence.finish_reason == "length"
    assert bench.value("request_success_total", finished_reason="abort") == 0


def test_a_slow_request_is_slow_and_its_neighbour_is_not():
    bench = Bench(ttft_s=0.1)
    slow, quick = bench.submit(tokens=50, slow=10.0), bench.submit(tokens=50)
    bench.go(0.95)
    assert slow.output == []
    assert len(quick.output) > 5


def test_an_answer_that_ends_by_itself_has_the_end_token_as_its_last():
    bench = Bench(ttft_s=0.0)
    sequence = bench.submit(tokens=4000, ignore_eos=False)
    bench.go(100, every=0.05)
    assert (sequence.finish_reason, sequence.output[-1], sequence.pieces[-1]) == ("stop", 1, "")


def test_a_stop_string_wins_over_the_length_that_is_reached_with_it():
    bench = Bench(ttft_s=0.0)
    free = bench.submit(tokens=3)
    bench.go(1)
    word = free.pieces[2]
    stopped = bench.submit(tokens=3, stop=[word])
    bench.go(1)
    assert (stopped.finish_reason, stopped.stop_reason) == ("stop", word)
    assert "".join(stopped.pieces) == "".join(free.pieces[:2])


def test_times_and_tokens_are_measured():
    bench = Bench()
    bench.submit(prompt=7, tokens=5)
    bench.go(2)
    assert bench.value("prompt_tokens_total") == 7
    assert bench.value("generation_tokens_total") == 5
    assert bench.value("time_to_first_token_seconds_sum") == pytest.approx(1.0, abs=0.02)
    assert bench.value("inter_token_latency_seconds_count") == 4
    assert bench.value("request_time_per_output_token_seconds_sum") == pytest.approx(0.1, abs=0.02)
    assert bench.value("e2e_request_latency_seconds_sum") == pytest.approx(1.4, abs=0.05)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 20), st.booleans()), max_size=12))
def test_whatever_comes_all_end_and_nothing_stays_in_the_cache(requests):
    bench = Bench(kv_cache_tokens=60, max_num_seqs=3, ttft_s=0.0)
    sequences = [bench.submit(prompt, tokens) for prompt, tokens, _ in requests]
    bench.go(0.5, every=0.1)
    for sequence, (_, _, gone) in zip(sequences, requests, strict=True):
        if gone:
            bench.engine.abort(sequence)
    bench.go(60, every=0.1)
    assert all(s.finish_reason for s in sequences)
    assert bench.engine.unfinished == 0
    assert bench.value("kv_cache_usage_perc") == 0
    reasons = ("length", "abort", "stop")
    ended = sum(bench.value("request_success_total", finished_reason=reason) for reason in reasons)
    assert ended == len(requests)


async def test_the_running_engine_wakes_for_what_comes_and_for_what_is_aborted():
    metrics = SimMetrics("sim", max_model_len=64)
    loop = asyncio.get_running_loop()
    engine = SimEngine(SimOptions(ttft_s=3600, itl_s=0.001), metrics, loop.time)
    running = asyncio.create_task(engine.run())
    patient, hasty = Sequence([5], max_tokens=3), Sequence([5], max_tokens=3, ignore_eos=True, slow=0.0)
    engine.submit(patient)
    await asyncio.sleep(0.01)
    engine.submit(hasty)
    async with asyncio.timeout(20):
        await hasty.ended()
        engine.abort(patient)
        while engine.unfinished:
            await asyncio.sleep(0.001)
    running.cancel()
    assert len(hasty.output) == 3
