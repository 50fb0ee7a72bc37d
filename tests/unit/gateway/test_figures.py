"""What ``/admin/status`` says of the last seconds."""

from __future__ import annotations

import pytest

from inferdock.balance.endpoints import EndpointSet
from inferdock.balance.least_outstanding import LeastOutstanding
from inferdock.gateway.figures import RecentFigures
from inferdock.gateway.metrics import GatewayMetrics


def test_latencies_are_of_the_last_minute_and_none_where_there_were_none() -> None:
    metrics = GatewayMetrics(EndpointSet(LeastOutstanding()), connections=lambda: 0, draining=lambda: False)
    figures = RecentFigures(metrics)
    quantiles = ("ttft_p50_s", "ttft_p95_s", "tpot_p50_s", "tpot_p95_s")
    assert [figures.rows(0.0)[name] for name in quantiles] == [None] * 4
    cells = metrics.cells("m", "r")
    cells.ttft.observe(0.2)
    cells.tpot.observe(0.02)
    assert figures.rows(0.5)["ttft_p95_s"] == pytest.approx(0.2, rel=0.3)  # within a bucket
    assert figures.rows(0.5)["tpot_p50_s"] == pytest.approx(0.02, rel=0.3)
    for second in range(1, 63):
        figures.tick(float(second))
    assert [figures.rows(63.0)[name] for name in quantiles] == [None] * 4
