"""Which rates are tried, on an engine of known capacity."""

from dataclasses import replace

import pytest
from bench.gpu.criteria import knee
from bench.gpu.forms import FORMS, pair_seconds, step_seconds
from bench.gpu.load import SIDES, Runs, sweep
from bench.gpu.report import pair_rate

from tests.unit.bench_gpu.test_criteria import step

FORM = replace(FORMS["gpu"], first_rate=1, last_rate=64, refinements=2)


class Served:
    """Serves up to a capacity well, and nobody well above it; notes what it was asked."""

    def __init__(self, **capacity: float) -> None:
        self.capacity = capacity
        self.asked: list[tuple[float, int]] = []

    async def __call__(self, rate: float, turn: int) -> Runs:
        self.asked.append((rate, turn))
        return {side: step(rate, rate if rate <= self.capacity[side] else 0).summary for side in SIDES}


async def test_rates_double_until_both_sides_are_beyond_their_knee_and_then_close_in() -> None:
    served = Served(direct=20, gateway=10)
    found = await sweep(served, FORM, deadline=1, clock=lambda: 0)
    assert [rate for rate, _ in served.asked] == [1, 2, 4, 8, 16, 32, 11.3, 9.51]
    assert [turn for _, turn in served.asked] == list(range(8))
    assert "both sides" in found.stopped
    best = knee(found.steps["gateway"])
    assert best is not None
    assert (best.rate, pair_rate(found)) == (9.51, 9.51 / 2)


async def test_no_step_begins_after_the_deadline() -> None:
    served = Served(direct=20, gateway=20)
    found = await sweep(served, FORM, deadline=3, clock=lambda: len(served.asked))
    assert ([rate for rate, _ in served.asked], found.stopped) == ([1, 2, 4], "time was up")


async def test_an_engine_that_is_never_full_is_said_to_be() -> None:
    found = await sweep(Served(direct=999, gateway=999), FORM, deadline=1, clock=lambda: 0)
    assert found.stopped == "highest rate reached"


async def test_an_engine_that_serves_nobody_has_no_knee() -> None:
    found = await sweep(Served(direct=0, gateway=0), FORM, deadline=1, clock=lambda: 0)
    assert ([one.rate for one in found.steps["direct"]], pair_rate(found)) == ([1, 0.5, 0.25], None)


async def test_a_slow_engine_is_tried_at_lower_rates() -> None:
    served = Served(direct=0.5, gateway=0.5)
    await sweep(served, FORM, deadline=1, clock=lambda: 0)
    assert [rate for rate, _ in served.asked] == [1, 0.5, 0.707, 0.595]


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)
def test_runs_are_long_enough_to_be_judged(form) -> None:
    seconds = form.seconds(form.minutes * 30)
    assert seconds > 0
    assert step_seconds(seconds, form.first_rate) * form.first_rate >= 50
    assert pair_seconds(seconds, form.first_rate / 2) * form.first_rate / 2 >= 20
