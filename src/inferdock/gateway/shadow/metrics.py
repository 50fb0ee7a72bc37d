"""What is counted of shadow requests. None of it is in the figures of clients' requests."""

from __future__ import annotations

from inferdock.telemetry import names
from inferdock.telemetry.instruments import (
    LATENCY_BUCKETS_S,
    TOKEN_TIME_BUCKETS_S,
    Counter,
    Histogram,
    Instrument,
)


class ShadowMetrics:
    """The instruments, all by the model and the revision that got the copies."""

    def __init__(self) -> None:
        labels = ("model", "revision")
        self.requests = Counter(
            names.SHADOW_REQUESTS, "Copies of requests, by what became of them.", (*labels, "outcome")
        )
        self.differences = Counter(
            names.SHADOW_DIFFERENCES, "Answered copies, by how they differ from the client's.", (*labels, "kind")
        )
        self.ttft = Histogram(
            names.SHADOW_TTFT, "Copied streams: copy sent to first output byte.", labels, LATENCY_BUCKETS_S
        )
        self.tpot = Histogram(
            names.SHADOW_TPOT,
            "Copied streams of 2+ tokens: time per token after the first.",
            labels,
            TOKEN_TIME_BUCKETS_S,
        )
        self.instruments: list[Instrument] = [self.requests, self.differences, self.ttft, self.tpot]
