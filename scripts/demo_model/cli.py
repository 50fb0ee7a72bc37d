"""Command line: train and measure, or only measure. ``train.py`` is the door to it."""

from __future__ import annotations

import argparse
import platform
import sys
import time
from pathlib import Path

import torch
from transformers import MistralForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from scripts.demo_model.card import print_scores, write_card
from scripts.demo_model.intents import Corpus, read_corpus
from scripts.demo_model.measuring import Scores, measure
from scripts.demo_model.training import Recipe, train

EXIT_LOW_QUALITY, EXIT_USAGE = 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Run; returns the exit status: 0, 1 (quality too low) or 2 (wrong input)."""
    options = _parser().parse_args(arguments)
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        corpus = read_corpus()
        if options.eval_only:
            scores = evaluate(options.model, corpus)
        else:
            recipe = Recipe(
                steps=options.steps, batch=options.batch, seed=options.seed, threads=options.threads
            )
            scores = train_into(options.out, corpus, recipe)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    print_scores(scores)
    return EXIT_LOW_QUALITY if scores.must_wrong or scores.exact < options.min_exact else 0


def evaluate(folder: Path, corpus: Corpus) -> Scores:
    """Measure the model in a folder."""
    missing = [
        name
        for name in ("config.json", "model.safetensors", "tokenizer.json")
        if not (folder / name).is_file()
    ]
    if missing:
        raise ValueError(f"{folder} lacks {', '.join(missing)}; train a model with --out {folder}")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    model = MistralForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True)
    return measure(model, tokenizer, corpus)


def train_into(folder: Path, corpus: Corpus, recipe: Recipe) -> Scores:
    """Train, save, measure what was saved, and write the card."""
    folder.mkdir(parents=True, exist_ok=True)  # before minutes of work, not after
    started = time.monotonic()
    model, tokenizer = train(corpus, recipe)
    seconds = round(time.monotonic() - started)
    save(model, tokenizer, folder)
    scores = evaluate(folder, corpus)
    facts: dict[str, str | int] = {
        "parameters": model.num_parameters(),
        "steps": recipe.steps,
        "batch": recipe.batch,
        "seed": recipe.seed,
        "threads": recipe.threads,
        "wall time (s)": seconds,
        "torch": str(torch.__version__),
        "Python": platform.python_version(),
        "processor": platform.machine(),
    }
    write_card(folder, scores, facts)
    return scores


def save(model: MistralForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights (bfloat16 safetensors), tokenizer, chat template and generation settings."""
    model = model.bfloat16()
    model.generation_config.do_sample = False
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train the demo model, or measure one that is there.")
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--out", type=Path, metavar="DIR", help="train from scratch and write the model here")
    task.add_argument("--eval-only", action="store_true", help="measure --model, train nothing")
    parser.add_argument(
        "--model", type=Path, default=Path("models/demo"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--steps", type=_positive, default=1400, help="optimiser steps; default: %(default)s")
    parser.add_argument("--batch", type=_positive, default=32, help="samples per step; default: %(default)s")
    parser.add_argument("--seed", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--threads", type=_positive, default=2, help="of torch; default: %(default)s")
    parser.add_argument("--min-exact", type=float, default=0.8, help="else exit 1; default: %(default)s")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return number
