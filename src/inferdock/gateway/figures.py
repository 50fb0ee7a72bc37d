"""Rates and recent latencies for ``/admin/status``, from totals that are kept once a second."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from inferdock.gateway.metrics import GatewayMetrics
from inferdock.telemetry.instruments import quantile

RATE_WINDOW_S = 10
LATENCY_WINDOW_S = 60


@dataclass(frozen=True, slots=True)
class _Totals:
    """Totals at one tick."""

    at: float
    requests: float
    output_tokens: float
    ttft_counts: tuple[int, ...]
    tpot_counts: tuple[int, ...]


class RecentFigures:
    """Remembers the totals of the last minute. Call :meth:`tick` about once a second."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        self._metrics = metrics
        self._past: deque[_Totals] = deque(maxlen=LATENCY_WINDOW_S + 1)

    def tick(self, now: float) -> None:
        """Keep the totals of this second."""
        self._metrics.tick(now)
        self._past.append(self._totals(now))

    def rows(self, now: float) -> dict[str, object]:
        """Requests/s and output tokens/s over the last ten seconds, quantiles of TTFT and TPOT of the last minute."""
        totals = self._totals(now)
        requests, tokens = self._rates(totals)
        first = self._past[0] if self._past else None
        ttft = _grown(first.ttft_counts if first else None, totals.ttft_counts)
        tpot = _grown(first.tpot_counts if first else None, totals.tpot_counts)
        return {
            "requests_total": int(totals.requests),
            "requests_per_s": requests,
            "output_tokens_total": int(self._metrics.output_tokens.total()),
            "output_tokens_per_s": tokens,
            "ttft_p50_s": quantile(ttft, self._metrics.ttft.bounds, 0.5),
            "ttft_p95_s": quantile(ttft, self._metrics.ttft.bounds, 0.95),
            "tpot_p50_s": quantile(tpot, self._metrics.tpot.bounds, 0.5),
            "tpot_p95_s": quantile(tpot, self._metrics.tpot.bounds, 0.95),
        }

    def _rates(self, now: _Totals) -> tuple[float, float]:
        if not self._past:
            return 0.0, 0.0
        past = self._past[max(0, len(self._past) - RATE_WINDOW_S)]
        span = max(now.at - past.at, 1e-9)
        requests, tokens = now.requests - past.requests, now.output_tokens - past.output_tokens
        return round(requests / span, 3), round(tokens / span, 3)

    def _totals(self, now: float) -> _Totals:
        return _Totals(
            at=now,
            requests=self._metrics.duration_count(),
            output_tokens=self._metrics.output_tokens.total(),
            ttft_counts=tuple(self._metrics.ttft.merged_counts()),
            tpot_counts=tuple(self._metrics.tpot.merged_counts()),
        )


def _grown(before: Sequence[int] | None, now: Sequence[int]) -> list[int]:
    """Observations per bucket since ``before``."""
    return [new - old for new, old in zip(now, before, strict=True)] if before is not None else list(now)
