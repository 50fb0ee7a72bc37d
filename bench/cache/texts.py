"""The prompts of the measurement: labelled ones where the data is there, made-up English ones where it is not.

No prompt gets into a result.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator

from bench.cache import accuracy_data
from bench.cache.accuracy_data import Lookup, Workload

SETS = ("qqp", "template", "checklist")

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


def labelled() -> bool:
    """People have said which look-ups of the workload may be answered."""
    return accuracy_data.FOLDER.is_dir()


def workload() -> Workload:
    """A thousand stored prompts and a thousand look-ups."""
    if labelled():
        return accuracy_data.workload()
    texts = list(itertools.islice(sentences(seed=1), 2000))
    return Workload(tuple(texts[:1000]), tuple(Lookup(text, None, "made up") for text in texts[1000:]))


def fillers(count: int, without: Iterable[str]) -> list[str]:
    """Distinct texts, as far as possible such as people wrote, none of them among those to be left out."""
    seen = set(without)
    kept: list[str] = []
    for text in itertools.chain(_written() if labelled() else (), sentences(seed=2)):
        if len(kept) >= count:
            return kept
        if text not in seen:
            seen.add(text)
            kept.append(text)
    raise AssertionError("sentences never end")


def _written() -> list[str]:
    """Texts of all sets, in an order that mixes them and is the same every time."""
    pairs = [pair for name in SETS for pair in accuracy_data.pairs(name)]
    texts = dict.fromkeys(text for pair in pairs for text in (pair.a, pair.b))
    texts |= dict.fromkeys(text for text, _ in accuracy_data.utterances())
    mixed = list(texts)
    random.Random(3).shuffle(mixed)
    return mixed


def sentences(*, seed: int) -> Iterator[str]:
    """Questions of 6 to 25 words, put together at random; one may come twice."""
    chance = random.Random(seed)
    while True:
        parts = [chance.choice(OPENINGS), chance.choice(DEEDS), chance.choice(KINDS), chance.choice(THINGS)]
        parts += chance.sample(ENDS, chance.choice((1, 1, 1, 2, 3)))
        if chance.random() < 0.2:
            parts += ["and then", chance.choice(DEEDS), chance.choice(KINDS), chance.choice(THINGS)]
        yield " ".join(part for part in parts if part) + "?"
