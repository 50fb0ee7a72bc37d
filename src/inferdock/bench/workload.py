"""What is asked: prompts of a chosen length, and how many tokens to answer with."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from inferdock.domain.errors import ConfigError

Length = Callable[[random.Random], int]
_TEXT = """
what how why when where which model token request answer stream replica gateway release version latency cost cache
scale traffic queue batch weight number system server client engine memory budget window report limit
"""
_WORDS = tuple(_TEXT.split())
_SPELLING = re.compile(r"(\d+)|uniform:(\d+):(\d+)|lognormal:(\d+):(\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class Task:
    """One request to send.

    Attributes:
        prompt: text of the user's message, or of the prompt.
        output_tokens: most tokens to answer with.
    """

    prompt: str
    output_tokens: int


def parse_length(text: str) -> Length:
    """Read ``N``, ``uniform:LOW:HIGH`` or ``lognormal:MEDIAN:SIGMA`` (tokens).

    Raises:
        ConfigError: another spelling, or bounds the wrong way round.
    """
    found = _SPELLING.fullmatch(text)
    if found is None:
        raise ConfigError(f"`{text}` is not a length.", cure="Write N, uniform:LOW:HIGH or lognormal:MEDIAN:SIGMA.")
    fixed, low, high, median, sigma = found.groups()
    if fixed is not None:
        return lambda _: max(1, int(fixed))
    if low is not None:
        if int(low) > int(high):
            raise ConfigError(f"`{text}`: the lower bound is above the upper one.")
        return lambda rng: max(1, rng.randint(int(low), int(high)))
    return lambda rng: max(1, round(rng.lognormvariate(math.log(max(1, int(median))), float(sigma))))


def synthetic(prompt: Length, output: Length, rng: random.Random, *, shared_prefix_words: int = 0) -> Iterator[Task]:
    """Prompts of words, about one token each; each begins differently, so that prefix caching is not what is
    measured, unless ``shared_prefix_words`` asks for a common beginning."""
    prefix = " ".join(_WORDS[i % len(_WORDS)] for i in range(shared_prefix_words))
    while True:
        words = [f"{rng.getrandbits(24):06x}", *(rng.choice(_WORDS) for _ in range(max(0, prompt(rng) - 1)))]
        yield Task(f"{prefix} {' '.join(words)}".strip(), output(rng))


def from_file(path: Path, output: Length, rng: random.Random) -> Iterator[Task]:
    """Prompts of a file, round and round: one per line, or JSON lines with a ``prompt`` key.

    Raises:
        ConfigError: the file cannot be read, is empty, or a JSON line has no prompt.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"Cannot read the prompts in {path}: {exc}.") from exc
    if not lines:
        raise ConfigError(f"{path} holds no prompts.", cure="Write one prompt per line.")
    prompts = [_prompt_of(path, number, line) for number, line in enumerate(lines, 1)]
    return _round(prompts, output, rng)


def _round(prompts: list[str], output: Length, rng: random.Random) -> Iterator[Task]:
    while True:
        for prompt in prompts:
            yield Task(prompt, output(rng))


def _prompt_of(path: Path, number: int, line: str) -> str:
    if not line.lstrip().startswith("{"):
        return line
    try:
        return str(json.loads(line)["prompt"])
    except (ValueError, KeyError, TypeError) as exc:
        raise ConfigError(f"{path}, line {number}: no JSON object with `prompt`.") from exc
