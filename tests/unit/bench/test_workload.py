"""Arrivals and prompts."""

import itertools
import random

import pytest

from inferdock.bench.arrivals import constant, poisson
from inferdock.bench.workload import from_file, parse_length, synthetic
from inferdock.domain.errors import ConfigError


def test_constant_arrivals_are_evenly_spaced():
    assert list(itertools.islice(constant(4), 4)) == [0, 0.25, 0.5, 0.75]


def test_poisson_arrivals_have_their_rate_and_spread():
    times = list(itertools.islice(poisson(10, random.Random(1)), 5000))
    gaps = [b - a for a, b in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(0.1, rel=0.05)
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(mean**2, rel=0.1)


@pytest.mark.parametrize(
    ("text", "low", "high"), [("7", 7, 7), ("uniform:3:9", 3, 9), ("lognormal:20:0.5", 1, 500), ("0", 1, 1)]
)
def test_lengths_stay_in_their_bounds(text, low, high):
    rng = random.Random(2)
    assert all(low <= parse_length(text)(rng) <= high for _ in range(500))


@pytest.mark.parametrize("text", ["", "x", "uniform:9:3", "uniform:3", "lognormal:3", "-5"])
def test_other_lengths_are_refused(text):
    with pytest.raises(ConfigError):
        parse_length(text)


def test_prompts_begin_differently_unless_a_prefix_is_shared():
    plain = list(itertools.islice(synthetic(parse_length("8"), parse_length("5"), random.Random(1)), 20))
    assert len({task.prompt.split()[0] for task in plain}) == 20
    shared = synthetic(parse_length("8"), parse_length("5"), random.Random(1), shared_prefix_words=4)
    assert len({" ".join(task.prompt.split()[:4]) for task in itertools.islice(shared, 20)}) == 1


def test_prompts_have_their_length_in_words():
    task = next(synthetic(parse_length("32"), parse_length("5"), random.Random(1)))
    assert (len(task.prompt.split()), task.output_tokens) == (32, 5)


def test_a_file_of_prompts_goes_round(tmp_path):
    path = tmp_path / "prompts"
    path.write_text('plain text\n\n{"prompt": "from JSON"}\n')
    tasks = from_file(path, parse_length("5"), random.Random(1))
    assert [next(tasks).prompt for _ in range(3)] == ["plain text", "from JSON", "plain text"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b'{"no": 1}', b"{broken", b"\xff\xfe"])
def test_bad_prompt_files_are_said(tmp_path, content):
    path = tmp_path / "prompts"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        from_file(path, parse_length("5"), random.Random(1))
