"""Reads ``intents.txt``: what the demo model is taught, and what it is measured on."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

INTENTS_FILE = Path(__file__).with_name("intents.txt")


@dataclass
class Intent:
    """One thing the model knows.

    Attributes:
        name: identifier.
        answer: the one right answer.
        questions: paraphrases that it is trained on.
        held_out: paraphrases that it is only measured on.
    """

    name: str
    answer: str = ""
    questions: list[str] = field(default_factory=list)
    held_out: list[str] = field(default_factory=list)


def normalise(question: str) -> str:
    """Lower case, letters and digits only: two questions that differ in less are the same question."""
    return " ".join(re.findall(r"[a-z0-9]+", question.lower()))


def read_intents(path: Path = INTENTS_FILE) -> list[Intent]:
    """Parse the file.

    Raises:
        ValueError: a line has no known form, or an intent has no answer or no question; names the line.
    """
    intents: list[Intent] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("[") and text.endswith("]"):
            intents.append(Intent(text[1:-1]))
            continue
        kind, _, value = text.partition(": ")
        if not intents or kind not in ("A", "Q", "H") or not value:
            raise ValueError(f"{path.name}, line {number}: expected `[name]`, `A: `, `Q: ` or `H: `")
        if kind == "A":
            intents[-1].answer = value
        else:
            (intents[-1].questions if kind == "Q" else intents[-1].held_out).append(value)
    for intent in intents:
        if not intent.answer or not intent.questions:
            raise ValueError(f"{path.name}: [{intent.name}] lacks an answer or a question")
    return intents


def held_out_only(intents: list[Intent]) -> set[str]:
    """Normalised held-out questions that no training question equals: training must never produce them."""
    trained = {normalise(q) for intent in intents for q in intent.questions}
    return {normalise(h) for intent in intents for h in intent.held_out} - trained
