"""Labelled prompts for measuring the guard. They are read from a folder beside the project and never copied."""

from __future__ import annotations

import gzip
import json
import os
import random
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(os.environ.get("INFERDOCK_CACHE_DATA", "../shared/data/semantic_cache"))


@dataclass(frozen=True, slots=True)
class Pair:
    """Two prompts and whether the answer to one may be served for the other."""

    a: str
    b: str
    same: bool
    group: str = ""


@dataclass(frozen=True, slots=True)
class Lookup:
    """A prompt that is asked, the stored prompt it should find (None: none), and of what kind it is."""

    prompt: str
    expected: str | None
    kind: str


@dataclass(frozen=True, slots=True)
class Workload:
    """What is stored, and what is asked."""

    stored: tuple[str, ...]
    lookups: tuple[Lookup, ...]


def pairs(name: str, *group: str) -> list[Pair]:
    """Of ``pairs_<name>.dev.jsonl.gz``; the group is what the named fields say."""
    with gzip.open(FOLDER / f"pairs_{name}.dev.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [Pair(row["a"], row["b"], row["label"] == 1, " / ".join(row[field] for field in group)) for row in rows]


def workload() -> Workload:
    """The one that comes with the data."""
    with gzip.open(FOLDER / "workload_1k.dev.json.gz", "rt", encoding="utf-8") as file:
        loaded = json.load(file)
    lookups = tuple(Lookup(row["prompt"], row["expect"], row["kind"]) for row in loaded["lookups"])
    return Workload(tuple(row["prompt"] for row in loaded["stored"]), lookups)


def utterances() -> list[tuple[str, str]]:
    """Text and intent of CLINC150, without those that have none."""
    with gzip.open(FOLDER / "clinc150.dev.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [(row["text"], row["intent"]) for row in rows if row["intent"] != "oos"]


class Clusters:
    """Prompts that pairs connect, directly or through others."""

    def __init__(self, connected: Iterable[Pair]) -> None:
        self._parents: dict[str, str] = {}
        for pair in connected:
            self._parents[self.of(pair.a)] = self.of(pair.b)

    def of(self, prompt: str) -> str:
        """The prompt that stands for the cluster."""
        while self._parents.setdefault(prompt, prompt) != prompt:
            self._parents[prompt] = self._parents[self._parents[prompt]]
            prompt = self._parents[prompt]
        return prompt

    def members(self) -> dict[str, list[str]]:
        """Prompts by cluster."""
        found: dict[str, list[str]] = {}
        for prompt in list(self._parents):
            found.setdefault(self.of(prompt), []).append(prompt)
        return found


def parts(found: list[Pair]) -> dict[str, list[Pair]]:
    """Pairs split so that no prompt, and none connected with it, is in both parts.

    The guard's words and rules were chosen by looking at the first three quarters; the last was never read.
    """
    clusters = Clusters(found)
    split: dict[str, list[Pair]] = {"tuned on": [], "held out": []}
    for pair in found:
        split["held out" if zlib.crc32(clusters.of(pair.a).encode()) % 4 == 3 else "tuned on"].append(pair)
    return split


def made_workload(found: list[Pair], seed: int) -> Workload:
    """Another workload, made of pairs as the one in the data: 1,000 stored, 1,000 asked, one pair of each cluster."""
    chance = random.Random(seed)
    clusters = Clusters(found)
    one_each = {clusters.of(pair.a): pair for pair in chance.sample(found, len(found))}
    shuffled = chance.sample(list(one_each.values()), len(one_each))
    same = [pair for pair in shuffled if pair.same][:300]
    different = [pair for pair in shuffled if not pair.same][:300]
    used = set(same + different)
    others = [pair.a for pair in shuffled if pair not in used][:700]
    stored = [pair.b for pair in same + different] + others[:400]
    lookups = [Lookup(pair.a, pair.b, "duplicate") for pair in same]
    lookups += [Lookup(pair.a, None, "labelled_different") for pair in different]
    lookups += [Lookup(prompt, None, "unrelated") for prompt in others[400:]]
    kept = chance.sample(stored, 100)
    lookups += [Lookup(prompt, prompt, "exact") for prompt in kept[:50]]
    lookups += [Lookup(_surface(prompt, number), prompt, "surface") for number, prompt in enumerate(kept[50:])]
    return Workload(tuple(stored), tuple(lookups))


def _surface(prompt: str, number: int) -> str:
    spaced = f"{prompt[:-1]} ?" if prompt.endswith("?") else f"{prompt} "
    return (prompt.lower(), f"  {prompt}", prompt.rstrip("?"), spaced)[number % 4]
