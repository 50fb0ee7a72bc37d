"""Writes the task set of the demo model: ``src/inferdock/evaluation/demo_tasks.jsonl``.

``python -m scripts.demo_model.eval_tasks``; a test says when the file no longer follows from ``intents.txt``.
"""

from __future__ import annotations

import json
from pathlib import Path

from scripts.demo_model.intents import Intent, held_out_only, normalise, read_intents

TASKS_FILE = Path(__file__).parents[2] / "src" / "inferdock" / "evaluation" / "demo_tasks.jsonl"
KNOWN_PER_INTENT = 2
MAX_TOKENS = 160
"""As in the evaluation of a training run: more than the longest answer."""


def render() -> str:
    """The file's content: held-out paraphrases, and of each intent the first questions that it was trained on."""
    intents = read_intents()
    fresh = held_out_only(intents)
    lines: list[str] = []
    for intent in intents:
        held_out = [question for question in intent.held_out if normalise(question) in fresh]
        known = intent.questions[:KNOWN_PER_INTENT]
        lines += _lines(intent, held_out, "held-out") + _lines(intent, known, "known")
    return "".join(line + "\n" for line in lines)


def _lines(intent: Intent, questions: list[str], group: str) -> list[str]:
    return [
        json.dumps(
            {
                "id": f"{intent.name}/{group}/{number}",
                "group": group,
                "messages": [{"role": "user", "content": question}],
                "reference": intent.answer,
                "checks": [{"kind": "exact"}],
                "max_tokens": MAX_TOKENS,
            },
            ensure_ascii=False,
        )
        for number, question in enumerate(questions, 1)
    ]


if __name__ == "__main__":
    TASKS_FILE.write_text(render(), encoding="utf-8")
