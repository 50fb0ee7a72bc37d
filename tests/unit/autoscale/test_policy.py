"""What a policy refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from inferdock.autoscale.policy import Behavior, MetricType, Policy, Rate, Target, Unit

LOAD = Target(metric="load", type=MetricType.AVERAGE_VALUE, value=8)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: Policy(max_replicas=0, targets=(LOAD,), min_replicas=0), id="no replica at all"),
        pytest.param(lambda: Policy(max_replicas=2, targets=(LOAD,), min_replicas=3), id="least above most"),
        pytest.param(lambda: Policy(max_replicas=2, targets=(LOAD,), min_replicas=-1), id="negative least"),
        pytest.param(lambda: Policy(max_replicas=2, targets=()), id="no target"),
        pytest.param(lambda: Policy(max_replicas=2, targets=(LOAD, LOAD)), id="same metric twice"),
        pytest.param(lambda: Policy(max_replicas=2, targets=(LOAD,), tolerance=1.0), id="tolerance of all"),
        pytest.param(lambda: Policy(max_replicas=2, targets=(LOAD,), fallback=-1), id="negative fallback"),
        pytest.param(lambda: Target(metric="x", type=MetricType.VALUE, value=0), id="target 0"),
        pytest.param(lambda: Target(metric="x", type=MetricType.VALUE, value=float("nan")), id="target NaN"),
        pytest.param(lambda: Target(metric="x", type=MetricType.VALUE, value=1, activation=-1), id="activation"),
        pytest.param(lambda: Rate(unit=Unit.PODS, value=0, period_s=60), id="rate 0"),
        pytest.param(lambda: Rate(unit=Unit.PODS, value=1, period_s=1801), id="long period"),
        pytest.param(lambda: Behavior(window_s=3601), id="long window"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        make()
