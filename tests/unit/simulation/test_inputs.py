"""Profiles and traces from files, which may hold anything."""

from __future__ import annotations

import random

import pytest

from inferdock.domain.errors import ConfigError
from inferdock.simulation.profile import Profile, Step, fitted, read_profile
from inferdock.simulation.traffic import Asked, Lengths, diurnal, poisson, ramp, read_trace


def test_between_measurements_lies_a_straight_line_and_beyond_them_the_last_slope() -> None:
    profile = Profile(steps=(Step(2, 0.01), Step(10, 0.02), Step(20, 0.04)))
    assert [profile.step_s(n) for n in (1, 2, 6, 10, 15, 30)] == pytest.approx([0.01, 0.01, 0.015, 0.02, 0.03, 0.06])


def test_noise_never_makes_more_sequences_faster() -> None:
    steps = fitted([(1, 0.01), (4, 0.03), (8, 0.02), (8, 0.024), (16, 0.05)])
    seconds = [step.seconds for step in steps]
    assert seconds == sorted(seconds)
    assert [step.running for step in steps] == [1, 4, 8, 16]
    assert seconds[1] == seconds[2] == pytest.approx((0.03 + 0.02 + 0.024) / 3)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"steps": []}',
        b'{"steps": [{"running": 0, "seconds": 1}]}',
        b'{"steps": [{"running": 1, "seconds": -1}]}',
        b'{"steps": [{"running": 2, "seconds": 1}, {"running": 1, "seconds": 1}]}',
        b'{"steps": [{"running": 1, "seconds": 1}], "colour": 1}',
        b'{"steps": [{"running": 1, "seconds": 1e999}]}',
        b"[" * 100_000,
        b" " * (1024 * 1024 + 1),
    ],
    ids=["empty", "list", "none", "zero", "negative", "order", "unknown", "infinite", "deep", "long"],
)
def test_what_is_no_profile_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"x\.json is no profile"):
        read_profile(data, "x.json")


def test_a_trace_counts_from_its_first_line() -> None:
    lines = ["seconds,model,prompt_tokens,output_tokens\n", "100.5,a,10,20\n", "101,b,3,1\n"]
    assert list(read_trace(lines, "t.csv")) == [Asked(0.0, 10, 20), Asked(0.5, 3, 1)]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["seconds,prompt_tokens\n"], "no column `output_tokens`"),
        ([], "no column `seconds`"),
        (["seconds,prompt_tokens,output_tokens\n", "1,2\n"], "line 2"),
        (["seconds,prompt_tokens,output_tokens\n", "1,2,x\n"], "line 2"),
        (["seconds,prompt_tokens,output_tokens\n", "nan,2,3\n"], "line 2"),
        (["seconds,prompt_tokens,output_tokens\n", "1,2,0\n"], "line 2"),
        (["seconds,prompt_tokens,output_tokens\n", "1,2,1e99\n"], "line 2"),
        (["seconds,prompt_tokens,output_tokens\n", "2,2,3\n", "1,2,3\n"], "line 3: earlier"),
        (["seconds,prompt_tokens,output_tokens\n", '"' + "x" * 200_000], "no CSV|line 2"),
    ],
    ids=["column", "empty", "short", "word", "nan", "no output", "huge", "order", "quote"],
)
def test_what_is_no_trace_is_refused_with_its_line(lines: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        list(read_trace(lines, "t.csv"))


def test_generated_traffic_has_the_rate_it_was_asked_for() -> None:
    day = list(poisson(diurnal(10, 2, 1000), 10, 1000, Lengths(), random.Random(2)))
    assert len(day) == pytest.approx(6000, rel=0.05)
    assert sum(400 < one.at < 600 for one in day) > 3 * sum(one.at < 100 or one.at > 900 for one in day)
    assert [ramp(1, 5, 10, 20)(at) for at in (0, 15, 99)] == [1, 3, 5]
    assert list(poisson(lambda _: 0.0, 0.0, 10, Lengths(), random.Random(1))) == []
