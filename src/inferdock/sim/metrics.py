"""The simulated replica's ``/metrics``: vLLM 0.32's names, labels and buckets, measured from the simulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_LABELS = ("engine", "model_name")
_TTFT = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
)  # fmt: skip
_ITL = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
_E2E = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip


class Measured(Protocol):
    """What is read of a sequence."""

    prompt: list[int]
    output: list[int]
    arrived_at: float
    started_at: float
    first_at: float
    last_at: float
    finish_reason: str | None


class SimMetrics:
    """All metrics of one replica, in a registry of its own."""

    def __init__(self, model: str, *, max_model_len: int) -> None:
        self.registry = CollectorRegistry()
        self._values = ("0", model)
        lengths = _lengths(max_model_len)
        self._running = self._gauge("num_requests_running", "Number of requests in model execution batches.")
        self._waiting = self._gauge("num_requests_waiting", "Number of requests waiting to be processed.")
        self._kv = self._gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.")
        self._prompt_tokens = self._counter("prompt_tokens", "Number of prefill tokens processed.")
        self._output_tokens = self._counter("generation_tokens", "Number of generation tokens processed.")
        self._preemptions = self._counter("num_preemptions", "Cumulative number of preemption from the engine.")
        self._success = Counter(
            "vllm:request_success",
            "Count of successfully processed requests.",
            (*_LABELS, "finished_reason"),
            registry=self.registry,
        )
        for reason in ("stop", "length", "abort", "error", "repetition"):
            self._success.labels(*self._values, reason)
        self._ttft = self._histogram("time_to_first_token_seconds", "Histogram of time to first token.", _TTFT)
        self._itl = self._histogram("inter_token_latency_seconds", "Histogram of inter-token latency.", _ITL)
        self._tpot = self._histogram("request_time_per_output_token_seconds", "Time per output token.", _ITL)
        self._e2e = self._histogram("e2e_request_latency_seconds", "Histogram of e2e request latency.", _E2E)
        self._queue = self._histogram("request_queue_time_seconds", "Time spent in WAITING phase.", _E2E)
        self._request_prompt = self._histogram("request_prompt_tokens", "Number of prefill tokens.", lengths)
        self._request_output = self._histogram("request_generation_tokens", "Generation tokens.", lengths)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"vllm:{name}", text, _LABELS, registry=self.registry).labels(*self._values)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"vllm:{name}", text, _LABELS, registry=self.registry).labels(*self._values)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        histogram = Histogram(f"vllm:{name}", text, _LABELS, registry=self.registry, buckets=buckets)
        return histogram.labels(*self._values)

    def watch(
        self, *, running: Callable[[], float], waiting: Callable[[], float], kv_usage: Callable[[], float]
    ) -> None:
        """Read the gauges from the engine at scrape time."""
        self._running.set_function(running)
        self._waiting.set_function(waiting)
        self._kv.set_function(kv_usage)

    def token(self, sequence: Measured, now: float, *, first: bool) -> None:
        """A token came out."""
        if first:
            sequence.first_at = now
            self._ttft.observe(now - sequence.arrived_at)
            self._queue.observe(sequence.started_at - sequence.arrived_at)
            self._prompt_tokens.inc(len(sequence.prompt))
        else:
            self._itl.observe(now - sequence.last_at)
        sequence.last_at = now
        self._output_tokens.inc()

    def finished(self, sequence: Measured, now: float) -> None:
        """A sequence has ended, by itself or aborted."""
        self._success.labels(*self._values, sequence.finish_reason).inc()
        self._e2e.observe(now - sequence.arrived_at)
        self._request_prompt.observe(len(sequence.prompt))
        self._request_output.observe(len(sequence.output))
        if len(sequence.output) > 1:
            self._tpot.observe((sequence.last_at - sequence.first_at) / (len(sequence.output) - 1))

    def preempted(self) -> None:
        """A sequence was pushed out of the KV cache."""
        self._preemptions.inc()

    def text(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)


def _lengths(longest: int) -> tuple[float, ...]:
    """vLLM's buckets for token counts: 1, 2, 5 times powers of ten up to the longest sequence."""
    buckets: list[float] = []
    power = 1
    while True:
        for mantissa in (1, 2, 5):
            if mantissa * power > longest:
                return tuple(buckets)
            buckets.append(float(mantissa * power))
        power *= 10
