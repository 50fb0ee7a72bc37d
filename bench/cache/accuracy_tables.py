"""The measurements: each takes vectors and gives rows of figures."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from bench.cache.accuracy_data import (
    Clusters,
    Lookup,
    Pair,
    Workload,
    made_workload,
    pairs,
    parts,
    utterances,
    workload,
)
from bench.cache.accuracy_vectors import Vectors
from inferdock.cache.guard import Guard, surface_form
from inferdock.cache.thresholds import threshold

BASE = 0.95
THRESHOLDS = (0.90, 0.92, 0.95, 0.97)
SIZES = (1_000, 10_000, 40_000)
INSTRUCTIONS = {
    "bare": "{}",
    "translate": "Translate the text into Dutch. Keep names as they are and write nothing else.\n\nText: {}",
    "question after a document": (
        "Use the notes to answer. Notes: the shop opens at nine, parcels leave on the day they are paid, returns are "
        "free for a month and the help desk is closed on Sundays.\nQuestion: {}"
    ),
    "classify": (
        "Sort the message of a bank's customer into one of these: account, card, loan, transfer, travel, other. "
        "Write the label only. Message: {}"
    ),
    "JSON": "Return the intent and the slots of this sentence as JSON with the keys intent and slots.\nSentence: {}",
}

Row = dict[str, object]


class Cache:
    """A partition as the semantic tier has it: searched by surface form, then by the nearest vector and the guard."""

    def __init__(self, stored: Sequence[str], vectors: Vectors, base: float = BASE) -> None:
        self._stored, self._vectors = stored, vectors
        self._matrix = vectors.of(stored)
        self._forms = {surface_form(prompt): prompt for prompt in stored}
        self._guard = Guard()
        self.threshold = threshold(base, len(stored))

    def found(self, prompts: Sequence[str], *, guarded: bool = True) -> list[str | None]:
        """The stored prompt whose answer each gets."""
        matrix = self._vectors.of(prompts)
        nearest: list[tuple[int, float]] = []
        for start in range(0, len(prompts), 256):
            scores = matrix[start : start + 256] @ self._matrix.T
            best = scores.argmax(axis=1)
            nearest += [(int(place), float(row[place])) for place, row in zip(best, scores, strict=True)]
        return [self._one(prompt, *near, guarded) for prompt, near in zip(prompts, nearest, strict=True)]

    def _one(self, prompt: str, place: int, score: float, guarded: bool) -> str | None:
        same = self._forms.get(surface_form(prompt))
        if same is not None:
            return same
        stored = self._stored[place]
        if not guarded:
            return stored if score >= self.threshold else None
        return stored if self._guard.judge(prompt, stored, score, threshold=self.threshold).served else None


def workload_rows(vectors: Vectors, *, quick: bool) -> list[Row]:
    """The workload of the data, and others made of each part of the QQP pairs."""
    rows = [_workload_row("workload_1k.dev", workload(), vectors)]
    if quick:
        return rows
    for name, part in parts(pairs("qqp")).items():
        rows += [_workload_row(f"{name}, {seed}", made_workload(part, seed), vectors) for seed in range(1, 6)]
    return rows


def _workload_row(name: str, load: Workload, vectors: Vectors) -> Row:
    found = Cache(load.stored, vectors).found([lookup.prompt for lookup in load.lookups])
    hits: Counter[str] = Counter()
    wrong = 0
    for lookup, served in zip(load.lookups, found, strict=True):
        right = served is not None and (served == lookup.expected or _same_form(served, lookup))
        hits[lookup.kind] += right
        wrong += served is not None and not right
    total = sum(hits.values()) + wrong
    return {
        "workload": name,
        "hits": total,
        "of": len(load.lookups),
        "wrong": wrong,
        "duplicates": hits["duplicate"],
        "exact": hits["exact"],
        "surface": hits["surface"],
    }


def _same_form(served: str, lookup: Lookup) -> bool:
    return lookup.expected is not None and surface_form(served) == surface_form(lookup.expected)


def group_rows(name: str, fields: Sequence[str], vectors: Vectors, *, each: int | None = None) -> list[Row]:
    """Pairs of a file by their groups: how many are served with the guard, and by the threshold alone."""
    groups: dict[tuple[bool, str], list[Pair]] = {}
    for pair in pairs(name, *fields):
        groups.setdefault((pair.same, pair.group), []).append(pair)
    rows = [
        {"label": int(same), "group": group, **_served(found[:each], vectors, BASE)}
        for (same, group), found in sorted(groups.items())
    ]
    for label in (0, 1):
        part = [row for row in rows if row["label"] == label]
        rows.append({"label": label, "group": "ALL", **_sum(part)})
    return rows


def _served(found: Sequence[Pair], vectors: Vectors, limit: float) -> dict[str, int]:
    guard = Guard()
    scores = vectors.cosines([pair.a for pair in found], [pair.b for pair in found])
    guarded = sum(
        guard.judge(pair.a, pair.b, float(score), threshold=limit).served
        for pair, score in zip(found, scores, strict=True)
    )
    anyway = sum(guard.judge(pair.a, pair.b, 1.0, threshold=limit).served for pair in found)
    return {
        "pairs": len(found),
        "served": guarded,
        "served were the cosine 1": anyway,
        "without guard": int((scores >= limit).sum()),
    }


def _sum(rows: Iterable[Row]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for row in rows:
        total.update({key: value for key, value in row.items() if isinstance(value, int) and key != "label"})
    return dict(total)


def qqp_rows(vectors: Vectors) -> list[Row]:
    """True and false positives on both parts of the QQP pairs."""
    rows: list[Row] = []
    for name, part in parts(pairs("qqp")).items():
        for limit in THRESHOLDS:
            same, different = (
                _served([pair for pair in part if pair.same is kind], vectors, limit) for kind in (True, False)
            )
            for column in ("without guard", "served"):
                right, wrong = same[column], different[column]
                rows.append(
                    {
                        "part": name,
                        "threshold": limit,
                        "guard": "yes" if column == "served" else "no",
                        "TPR": round(right / same["pairs"], 4),
                        "FPR": round(wrong / different["pairs"], 4),
                        "precision": round(right / max(right + wrong, 1), 3),
                    }
                )
    return rows


def growth_rows(vectors: Vectors, *, seeds: Sequence[int] = (1, 2)) -> list[Row]:
    """Novel prompts that are served, while the partition grows. 900 of 3,000 look-ups have a stored duplicate."""
    found = pairs("qqp")
    everything = Clusters(pair for pair in found if pair.same)
    for pair in found:
        everything.of(pair.a), everything.of(pair.b)
    rows: list[Row] = []
    for seed in seeds:
        members = everything.members()
        names = random.Random(seed).sample(sorted(members), len(members))
        several = [name for name in names if len(members[name]) > 1]
        alone = [name for name in names if len(members[name]) == 1]
        asked = [members[name][0] for name in several[:900] + alone[:2100]]
        rest = [prompt for name in several[900:] + alone[2100:] for prompt in members[name]]
        rest = random.Random(seed).sample(rest, len(rest))
        for size in SIZES:
            stored = [members[name][1] for name in several[:900]] + rest[: size - 900]
            rows.append({"seed": seed, **_growth_row(Cache(stored, vectors), asked, everything, len(stored))})
    return rows


def _growth_row(cache: Cache, asked: Sequence[str], clusters: Clusters, entries: int) -> Row:
    row: Row = {"entries": entries, "threshold": round(cache.threshold, 3)}
    for name, guarded in (("guard", True), ("none", False)):
        served = cache.found(asked, guarded=guarded)
        right = sum(
            one is not None and clusters.of(one) == clusters.of(prompt)
            for prompt, one in zip(asked, served, strict=True)
        )
        novel = sum(one is not None for one in served[900:])
        row |= {f"{name}: duplicates": round(right / 900, 3), f"{name}: novel served": round(novel / 2100, 4)}
    return row


def traffic_rows(vectors: Vectors) -> list[Row]:
    """One instruction, 1,000 payloads stored, 200 new ones asked: how many are served, and another intent's answer."""
    chosen = random.Random(1).sample(utterances(), 1200)
    intents = dict(chosen)
    rows: list[Row] = []
    for name, instruction in INSTRUCTIONS.items():
        prompts = {instruction.format(text): text for text, _ in chosen}
        stored, asked = list(prompts)[:1000], list(prompts)[1000:]
        cache = Cache(stored, vectors)
        row: Row = {"instruction": name}
        for column, guarded in (("guard", True), ("none", False)):
            served = cache.found(asked, guarded=guarded)
            other = sum(
                one is not None and intents[prompts[one]] != intents[prompts[prompt]]
                for prompt, one in zip(asked, served, strict=True)
            )
            row |= {f"{column}: served": sum(one is not None for one in served), f"{column}: other intent": other}
        rows.append(row)
    return rows


def timing_row(vectors: Vectors) -> Row:
    """Milliseconds of a judgement on pairs that the score lets through."""
    from_pairs = pairs("qqp")[:6000]
    scores = vectors.cosines([pair.a for pair in from_pairs], [pair.b for pair in from_pairs])
    times = [_time(pair, float(score)) for pair, score in zip(from_pairs, scores, strict=True) if score > BASE - 0.1]
    low, high = np.percentile(times, [50, 95])
    return {"judgements": len(times), "p50 ms": round(low * 1e3, 3), "p95 ms": round(high * 1e3, 3)}


def _time(pair: Pair, score: float) -> float:
    guard, started = Guard(), time.process_time()
    guard.judge(pair.a, pair.b, score, threshold=BASE)
    return time.process_time() - started
