"""A model folder without weights: what vLLM needs beside `--load-format dummy`.

The tokenizer has a word for every id, none of them special but the end: invented weights may answer with any id, and
an answer whose tokens have no text would never show its first one to a client. A prompt of N words is N tokens.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Final

from bench.gpu.shape import Awq, Shape, model_config
from inferdock.bench.workload import parse_length, synthetic

UNKNOWN: Final = "<unk>"
END: Final = "</s>"
_UNKNOWN_ID: Final = 1
_END_ID: Final = 2
_DRAWN: Final = 5000


def words() -> list[str]:
    """The words of the load's prompts, in order; the first of a prompt is a number and not among them."""
    task = next(synthetic(parse_length(str(_DRAWN)), parse_length("1"), random.Random(0)))
    return sorted(set(task.prompt.split()[1:]))


def vocabulary(size: int) -> dict[str, int]:
    """A word for every id below ``size``."""
    known = iter(words())
    names = {_UNKNOWN_ID: UNKNOWN, _END_ID: END}
    return {names.get(number) or next(known, f"w{number}"): number for number in range(size)}


def tokenizer(size: int) -> dict[str, object]:
    """The content of tokenizer.json: words between blanks."""
    end = {"id": _END_ID, "content": END, "single_word": False, "lstrip": False, "rstrip": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{**end, "normalized": False, "special": True}],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary(size), "unk_token": UNKNOWN},
    }


def write_folder(folder: Path, shape: Shape, awq: Awq | None) -> None:
    """Write config.json and the tokenizer into an existing folder."""
    files: dict[str, dict[str, object]] = {
        "config.json": model_config(shape, awq),
        "tokenizer.json": tokenizer(shape.vocabulary),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "model_max_length": shape.positions,
            "clean_up_tokenization_spaces": False,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
