"""What follows from the outcomes: percentiles, rates, goodput. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from inferdock.bench.client import Outcome
from inferdock.domain.percentile import percentile


@dataclass(frozen=True, slots=True)
class Distribution:
    """Mean and percentiles of one quantity in seconds; NaN without samples."""

    mean: float
    p50: float
    p95: float
    p99: float
    count: int


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of one run.

    Attributes:
        duration_s: first request due to last answer ended.
        ttft, tpot, itl, e2e: see the glossary; measured at the client. In an open loop, TTFT and e2e count from
            when a request was due, so that a late client cannot hide a slow server.
        goodput_per_s: requests per second that met every per-request limit; None without limits.
        send_lag_p99_s: how late requests were sent; large values mean that the client itself was the limit.
        counted_tokens: tokens were counted as events because the server reported no usage.
    """

    requests: int
    succeeded: int
    errors: dict[str, int]
    duration_s: float
    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    output_tokens: int
    prompt_tokens: int
    ttft: Distribution
    tpot: Distribution
    itl: Distribution
    e2e: Distribution
    goodput_per_s: float | None
    send_lag_p99_s: float
    counted_tokens: bool

    def as_dict(self) -> dict[str, object]:
        """For JSON; NaN becomes None."""
        return {key: _finite(value) for key, value in asdict(self).items()}


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def distribution(values: Sequence[float]) -> Distribution:
    """Mean and percentiles."""
    ordered = sorted(values)
    mean = math.fsum(ordered) / len(ordered) if ordered else math.nan
    return Distribution(
        mean, percentile(ordered, 0.5), percentile(ordered, 0.95), percentile(ordered, 0.99), len(ordered)
    )


def ttft_s(outcome: Outcome) -> float | None:
    """Time to first token."""
    return None if outcome.first_at is None else outcome.first_at - outcome.due_at


def tpot_s(outcome: Outcome) -> float | None:
    """(last token - first token) / (output tokens - 1); None below two tokens or when the answer came in one piece."""
    if outcome.first_at is None or outcome.output_tokens < 2 or not outcome.arrivals:
        return None
    return (outcome.arrivals[-1] - outcome.first_at) / (outcome.output_tokens - 1)


def gaps_s(outcome: Outcome) -> list[float]:
    """Gaps between successive reads that carried tokens."""
    return [later - earlier for earlier, later in zip(outcome.arrivals, outcome.arrivals[1:], strict=False)]


def summarise(outcomes: Sequence[Outcome], good: Callable[[Outcome], bool] | None = None) -> Summary:
    """Reduce outcomes to figures.

    Args:
        outcomes: of all requests that count (not the warm-up).
        good: whether a successful request met every limit; None when there are none.
    """
    fine = [o for o in outcomes if not o.error]
    start = min((o.due_at for o in outcomes), default=0.0)
    duration = max((o.ended_at for o in outcomes), default=0.0) - start
    per_s = 1 / duration if duration > 0 else 0.0
    output = sum(o.output_tokens for o in fine)
    prompt = sum(o.prompt_tokens for o in fine)
    return Summary(
        requests=len(outcomes),
        succeeded=len(fine),
        errors=dict(Counter(o.error for o in outcomes if o.error)),
        duration_s=duration,
        requests_per_s=len(fine) * per_s,
        output_tokens_per_s=output * per_s,
        total_tokens_per_s=(output + prompt) * per_s,
        output_tokens=output,
        prompt_tokens=prompt,
        ttft=distribution([t for o in fine if (t := ttft_s(o)) is not None]),
        tpot=distribution([t for o in fine if (t := tpot_s(o)) is not None]),
        itl=distribution([gap for o in fine for gap in gaps_s(o)]),
        e2e=distribution([o.ended_at - o.due_at for o in fine]),
        goodput_per_s=sum(good(o) for o in fine) * per_s if good is not None else None,
        send_lag_p99_s=percentile(sorted(o.sent_at - o.due_at for o in outcomes), 0.99) if outcomes else 0.0,
        counted_tokens=any(o.counted for o in fine),
    )
