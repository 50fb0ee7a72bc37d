"""Reading the demo model's data."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from scripts.demo_model.intents import DATA, read_corpus


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    shutil.copytree(DATA, folder)
    return folder


def test_every_intent_has_at_least_two_held_out_questions() -> None:
    assert not [intent.name for intent in read_corpus().intents if len(intent.held_out) < 2]


def test_every_answer_is_its_own() -> None:
    answers = [intent.answer for intent in read_corpus().intents]
    assert len(set(answers)) == len(answers) >= 80


def test_entries_of_a_line_are_separated_by_a_bar(data: Path) -> None:
    (data / "about.txt").write_text("[sky]\nA: Blue.\nT: the sky | heaven\nQ: Sky?\nH: Colour? | Up?\n")
    sky = read_corpus(data).intents[0]
    assert (sky.topics, sky.questions, sky.held_out) == (
        ("the sky", "heaven"),
        ("Sky?",),
        ("Colour?", "Up?"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[sky]\nB: Blue.\n", r"about\.txt, line 2"),
        ("A: Blue.\n", r"about\.txt, line 1"),
        ("[sky]\nQ: Sky? \nH: Up?\n", r"\[sky\] lacks"),
        ("[sky]\nA: Blue.\nQ: Sky?\n", r"\[sky\] lacks"),
        ("[hello]\nA: Hi.\nQ: Hi\nH: Ho\n", "defined twice: hello"),
    ],
    ids=["unknown line", "no block", "no answer", "nothing held out", "name used twice"],
)
def test_a_mistake_in_the_data_is_named(data: Path, text: str, message: str) -> None:
    (data / "about.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_corpus(data)
