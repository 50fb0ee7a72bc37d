"""Whether a folder has a tokenizer, and how many ids the tokenizer's vocabulary needs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from inferdock.domain.errors import ModelError
from inferdock.registry.inspect.json_files import is_object, pick, read_object

TOKENIZERS: Final = (
    "tokenizer.json",
    "tokenizer.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_STRING: Final = rb'"(?:[^"\\]++|\\.)*+"'
_TOKEN_ID: Final = re.compile(_STRING + rb"\s*+:\s*+(\d{1,18})")
_TOKEN_SCORE: Final = re.compile(rb"\[\s*+" + _STRING + rb"\s*+,")


def require_tokenizer(folder: Path, top: Iterable[str]) -> None:
    """Check that one of the known files of tokenizers is among the names directly in the folder.

    Raises:
        ModelError: none is.
    """
    names = set(top)
    if names.isdisjoint(TOKENIZERS) and not any(name.endswith(".tiktoken") for name in names):
        raise ModelError(
            f"{folder} has no tokenizer.", cure="Copy tokenizer.json (or tokenizer.model) beside the config."
        )


def ids_needed(path: Path) -> int:
    """Ids that the vocabulary of a ``tokenizer.json`` needs: its largest plus one; 0 when it has none.

    Tokens that were added later do not count: published models have some that their embedding has no row for (Gemma 3
    1B has one for images, which it cannot read). The ids are found by walking over the text, since a hostile
    vocabulary would take gigabytes as a dictionary.

    Raises:
        ModelError: it is missing or malformed.
    """
    vocabulary = pick(pick(read_object(path), "model")["model"], "vocab")["vocab"]
    return _largest(vocabulary) + 1 if is_object(vocabulary) else _count(vocabulary)


def _largest(vocabulary: msgspec.Raw) -> int:
    return max((int(match[1]) for match in _TOKEN_ID.finditer(vocabulary)), default=-1)


def _count(vocabulary: msgspec.Raw) -> int:
    """Unigram tokenizers list token and score; the place in the list is the id."""
    return sum(1 for _ in _TOKEN_SCORE.finditer(vocabulary))
