"""The prompts of the measurement: labelled ones where the data is there, made-up English ones where it is not.

No prompt gets into a result. Where the data is: ``INFERDOCK_CACHE_DATA``, by default ``../shared/data/semantic_cache``.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAIRS = ("pairs_qqp", "pairs_template", "pairs_checklist")

OPENINGS = (
    "how do i", "what is the best way to", "can you explain how to", "is it possible to", "why would anyone",
    "when should i", "how long does it take to", "what does it cost to", "who can help me to", "where can i learn to",
)  # fmt: skip
DEEDS = (
    "repair", "choose", "clean", "sell", "paint", "rent", "build", "compare", "insure", "replace", "store", "carry",
    "draw", "describe", "measure", "test", "order", "photograph", "restore", "design",
)  # fmt: skip
KINDS = (
    "an old", "a small", "a broken", "a cheap", "a modern", "a wooden", "a large", "a used", "a heavy", "a foreign",
    "a light", "a simple", "a rare", "a quiet", "a fast",
)  # fmt: skip
THINGS = (
    "bicycle", "piano", "kitchen", "garden", "camera", "boat", "roof", "engine", "carpet", "clock", "tent", "bridge",
    "lamp", "printer", "guitar", "fence", "oven", "desk", "radio", "barn", "violin", "canoe", "drone", "stove",
    "window",
)  # fmt: skip
ENDS = (
    "", "in winter", "without any tools", "before the holidays", "for a school project", "with two children",
    "near the coast", "on a small budget", "in a rented flat", "after a long journey", "when it rains",
    "by the end of the week",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lookup:
    """One prompt that is looked up.

    Attributes:
        expect: number of the stored prompt whose response may be served, None where none may.
        kind: what the prompt is to that one.
    """

    prompt: str
    expect: int | None
    kind: str


@dataclass(frozen=True, slots=True)
class Workload:
    """Stored prompts, and look-ups.

    Attributes:
        labelled: people have said which look-ups may be answered.
        name: for the result.
    """

    stored: list[str]
    lookups: list[Lookup]
    labelled: bool
    name: str


def data_folder() -> Path | None:
    """Where the labelled prompts are, None where there are none."""
    named = os.environ.get("INFERDOCK_CACHE_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data" / "semantic_cache"
    return folder if (folder / "workload_1k.dev.json.gz").exists() else None


def workload(folder: Path | None) -> Workload:
    """A thousand stored prompts and a thousand look-ups."""
    if folder is None:
        return _made_up()
    name = "workload_1k.dev"
    content = json.loads(gzip.decompress((folder / f"{name}.json.gz").read_bytes()))
    stored = [entry["prompt"] for entry in content["stored"]]
    places = {prompt: place for place, prompt in enumerate(stored)}
    lookups = [
        Lookup(one["prompt"], None if one["expect"] is None else places[one["expect"]], one["kind"])
        for one in content["lookups"]
    ]
    return Workload(stored, lookups, labelled=True, name=name)


def _made_up() -> Workload:
    texts = list(itertools.islice(sentences(seed=1), 2000))
    return Workload(
        texts[:1000], [Lookup(text, None, "made up") for text in texts[1000:]], labelled=False, name="made up"
    )


def fillers(folder: Path | None, count: int, without: Iterable[str]) -> list[str]:
    """Distinct texts, as far as possible such as people wrote, none of them among those to be left out."""
    seen = set(without)
    kept: list[str] = []
    for text in itertools.chain(_written(folder) if folder is not None else (), sentences(seed=2)):
        if text not in seen:
            seen.add(text)
            kept.append(text)
        if len(kept) == count:
            return kept
    raise ValueError(f"there are no {count} different texts")


def _written(folder: Path) -> list[str]:
    """Texts of all sets, in an order that mixes them and is the same every time."""
    texts: dict[str, None] = {}
    for name in PAIRS:
        for row in _rows(folder / f"{name}.dev.jsonl.gz"):
            texts |= {row["a"]: None, row["b"]: None}
    texts |= {row["text"]: None for row in _rows(folder / "clinc150.dev.jsonl.gz")}
    mixed = list(texts)
    random.Random(3).shuffle(mixed)
    return mixed


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def sentences(*, seed: int) -> Iterator[str]:
    """Questions of 6 to 25 words, put together at random; one may come twice."""
    chance = random.Random(seed)
    while True:
        parts = [chance.choice(OPENINGS), chance.choice(DEEDS), chance.choice(KINDS), chance.choice(THINGS)]
        parts += chance.sample(ENDS, chance.choice((1, 1, 1, 2, 3)))
        if chance.random() < 0.2:
            parts += ["and then", chance.choice(DEEDS), chance.choice(KINDS), chance.choice(THINGS)]
        yield " ".join(part for part in parts if part) + "?"
