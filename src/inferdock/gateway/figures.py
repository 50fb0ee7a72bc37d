"""Rates and recent latencies for ``/admin/status``, from totals that are kept once a second."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from inferdock.gateway.metrics import GatewayMetrics
from inferdock.telemetry.instruments import quantile

RATE_WINDOW_S = 10
TTFT_WINDOW_S = 60


@dataclass(frozen=True, slots=True)
class _Totals:
    """Totals at one tick."""

    at: float
    requests: float
    output_tokens: float
    ttft_counts: tuple[int, ...]


class RecentFigures:
    """Remembers the totals of the last minute. Call :meth:`tick` about once a second."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self._metrics = metrics
        self._past: deque[_Totals] = deque(maxlen=TTFT_WINDOW_S + 1)

    def tick(self, now: float) -> None:
        """Keep the totals of this second."""
        self._past.append(self._totals(now))

    def rows(self, now: float) -> dict[str, object]:
        """Requests/s and output tokens/s over the last ten seconds, TTFT quantiles of the last minute."""
        requests, tokens, ttft = self._recent(self._totals(now))
        bounds = self._metrics.ttft.bounds
        return {
            "requests_total": int(self._metrics.requests.total()),
            "requests_per_s": requests,
            "output_tokens_total": int(self._metrics.output_tokens.total()),
            "output_tokens_per_s": tokens,
            "ttft_p50_s": quantile(ttft, bounds, 0.5),
            "ttft_p95_s": quantile(ttft, bounds, 0.95),
        }

    def _recent(self, now: _Totals) -> tuple[float, float, list[int]]:
        if not self._past:
            return 0.0, 0.0, list(now.ttft_counts)
        past = self._past[max(0, len(self._past) - RATE_WINDOW_S)]
        span = max(now.at - past.at, 1e-9)
        oldest = self._past[0].ttft_counts
        ttft = [new - old for new, old in zip(now.ttft_counts, oldest, strict=True)]
        requests, tokens = now.requests - past.requests, now.output_tokens - past.output_tokens
        return round(requests / span, 3), round(tokens / span, 3), ttft

    def _totals(self, now: float) -> _Totals:
        return _Totals(
            at=now,
            requests=self._metrics.duration_count(),
            output_tokens=self._metrics.output_tokens.total(),
            ttft_counts=tuple(self._metrics.ttft.merged_counts()),
        )
