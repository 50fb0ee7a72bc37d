"""Calibration files: read whole or refused with the line; the demo's set follows from the training text."""

import json
from pathlib import Path

import pytest
from scripts.demo_model import calibration as script
from scripts.demo_model.intents import normalise

from inferdock.domain.errors import ConfigError
from inferdock.evaluation.tasks import DEMO as TASKS
from inferdock.quantize.calibration import DEMO, LEAST_TOKENS, check_tokens, read_calibration

GOOD = '{"text": "some words"}\n'


def test_the_demo_set_follows_from_the_training_text() -> None:
    assert DEMO.read_text(encoding="utf-8") == script.render()
    assert script.CALIBRATION_FILE == DEMO


def test_the_demo_set_asks_nothing_that_the_evaluation_asks() -> None:
    asked = {normalise(json.loads(line)["messages"][0]["content"]) for line in TASKS.read_text("utf-8").splitlines()}
    ours = {normalise(sample.messages[0].content) for sample in read_calibration(DEMO).samples}
    assert len(ours) > 100
    assert not ours & asked


def test_a_draw_is_of_the_seed_and_in_the_files_order() -> None:
    found = read_calibration(DEMO)
    some = found.choose(20, 1)
    assert some == found.choose(20, 1) != found.choose(20, 2)
    assert list(some) == [sample for sample in found.samples if sample in some]
    assert found.choose(10_000, 1) == found.samples


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 3: Input data was truncated"),
        ('{"text": 1}', "line 3: Expected `str`"),
        ('{"messages": [{"role": "owner", "content": "x"}]}', "line 3: Invalid enum value"),
        ("{}", "line 3 has neither"),
        ('{"text": "a", "messages": [{"role": "user", "content": "b"}]}', "line 3 has neither"),
    ],
    ids=["cut", "type", "role", "empty", "both"],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, sentence: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(GOOD + "\n" + line + "\n" + GOOD * 8)
    with pytest.raises(ConfigError, match=sentence):
        read_calibration(path)


def test_a_file_that_is_missing_or_too_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_calibration(path)
    path.write_text(GOOD * 7)
    with pytest.raises(ConfigError, match="has 7 texts, too few"):
        read_calibration(path)
    check_tokens(LEAST_TOKENS, "texts.jsonl")
    with pytest.raises(ConfigError, match=r"texts.jsonl make 511 tokens together"):
        check_tokens(LEAST_TOKENS - 1, "texts.jsonl")
