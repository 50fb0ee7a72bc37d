"""Writes the calibration set of the demo model: ``src/inferdock/quantize/demo_calibration.jsonl``.

``python -m scripts.demo_model.calibration``; a test says when the file no longer follows from ``intents.txt``. It is
of the training text, without the questions that the evaluation asks.
"""

from __future__ import annotations

import json
from pathlib import Path

from scripts.demo_model.eval_tasks import KNOWN_PER_INTENT
from scripts.demo_model.intents import normalise, read_intents

CALIBRATION_FILE = Path(__file__).parents[2] / "src" / "inferdock" / "quantize" / "demo_calibration.jsonl"
PER_INTENT = 3


def render() -> str:
    """The file's content: of each intent some trained questions that no evaluation asks, with the answer."""
    intents = read_intents()
    asked = {normalise(q) for intent in intents for q in (*intent.held_out, *intent.questions[:KNOWN_PER_INTENT])}
    lines: list[str] = []
    for intent in intents:
        free = [question for question in intent.questions if normalise(question) not in asked]
        for question in free[:PER_INTENT]:
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": intent.answer}]
            lines.append(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
    return "".join(lines)


if __name__ == "__main__":
    CALIBRATION_FILE.write_text(render(), encoding="utf-8")
