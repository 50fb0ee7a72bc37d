"""What ``bench.autoscaling`` makes of what it saw."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from bench.autoscaling import SETUPS, _compared, _figures, _startups, _write_trace, configuration

from inferdock.autoscale.of_settings import policy_of
from inferdock.bench.client import Outcome
from inferdock.config.load import load
from inferdock.simulation.traffic import read_trace

HISTORY = [(0.0, 1, 1), (4.0, 1, 3), (6.0, 2, 3), (9.0, 3, 3), (20.0, 2, 2), (21.0, 1, 1)]


def outcome(at: float, late: float = 0.0, error: str = "") -> Outcome:
    return Outcome(
        due_at=at, sent_at=at + late, first_at=at + 0.1, ended_at=at + 1.1, arrivals=[at + 0.1, at + 1.1],
        prompt_tokens=32, output_tokens=11, error=error,
    )  # fmt: skip


def test_start_ups_count_from_the_wish() -> None:
    assert _startups(HISTORY) == [2.0, 5.0]
    assert _startups([(0.0, 1, 1), (1.0, 1, 2)]) == []


def test_replicas_are_compared_second_by_second() -> None:
    same = _compared(HISTORY, HISTORY, 25.0)
    assert (same["ready_apart_mean"], same["ready_alike"], same["wanted_alike"]) == (0, 1, 1)
    other = _compared(HISTORY, [(0.0, 1, 1)], 25.0)
    assert other["ready_apart_mean"] == pytest.approx((3 * 1 + 11 * 2 + 1 * 1) / 25)
    assert other["ready_mean_measured"] == 1


def test_a_trace_is_what_was_sent_and_can_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    _write_trace(path, [outcome(5.0, late=0.5), outcome(5.2), outcome(7.0)])
    with path.open(newline="") as file:
        assert [row["seconds"] for row in csv.DictReader(file)] == ["0.000000", "0.300000", "1.800000"]
    with path.open(newline="") as file:
        assert [asked.at for asked in read_trace(file, "trace")] == pytest.approx([0, 0.3, 1.8])


def test_failures_are_told_and_do_not_count_as_times() -> None:
    found = _figures([outcome(0.0), outcome(1.0, error="timeout")], HISTORY)
    assert (found["requests"], found["failed"]) == (2, 1)
    assert found["ttft_s"]["p50"] == pytest.approx(0.1)
    assert found["tpot_s"]["p50"] == pytest.approx(0.1)
    assert [change[1:] for change in found["changes"]] == [(1, 1), (1, 3), (2, 3), (3, 3), (2, 2), (1, 1)]


@pytest.mark.parametrize("name", SETUPS)
def test_its_configurations_can_be_read(name: str, tmp_path: Path) -> None:
    file = tmp_path / "inferdock.yaml"
    file.write_text(configuration(SETUPS[name], 6.0), encoding="utf-8")
    settings = load(file=file, env={}, flags={}).settings
    assert policy_of(settings.autoscaling).max_replicas == 3
