"""The tables of a result, as Markdown: goals, latencies, answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.cache.figures import all_hit

LOOK_UP_GOAL_MS = 5.0
EXACT_GOAL_MS = 0.5
HIT_GOAL = 0.14
WRONG_GOAL_PER_1000 = 3.0
DEFAULT = "Inferdock, default"

Document = Mapping[str, Any]


def size_name(size: int) -> str:
    """How look-ups by meaning in a partition of that size are called."""
    return f"semantic, {size // 1000}k"


def tables(document: Document) -> str:
    """All of them."""
    parts = [_origin(document), table(("goal", "wanted", "measured", "met"), goals(document)), _latencies(document)]
    if document["answers"]:
        parts.append(_answers(document["answers"]))
    return "\n\n".join(parts)


def goals(document: Document) -> list[tuple[str, str, str, str]]:
    """Each goal: what is wanted, what was measured, whether that is enough."""
    rows = [
        _at_most(f"{name}: p95, embedding included", LOOK_UP_GOAL_MS, found["wall_ms"]["p95"], " ms")
        for name, found in document["latency"].items()
        if name.startswith("semantic")
    ]
    rows.append(_at_most("exact: p95", EXACT_GOAL_MS, document["latency"]["exact, 100k"]["wall_ms"]["p95"], " ms"))
    ours = document["answers"].get(DEFAULT)
    if ours is not None:
        share = 100 * ours["hit_ratio"]
        met = "yes" if ours["hit_ratio"] >= HIT_GOAL else "no"
        rows.append(("look-ups answered", f">= {100 * HIT_GOAL:g} %", f"{share:.1f} %", met))
        rows.append(_at_most("wrong answers in 1,000 look-ups", WRONG_GOAL_PER_1000, ours["wrong_per_1000"], ""))
        found = "yes" if all_hit(ours, ("exact", "surface")) else "no"
        rows.append(("exact and surface variants hit", "all", "all" if found == "yes" else "not all", found))
    return rows


def _at_most(name: str, most: float, value: float, unit: str) -> tuple[str, str, str, str]:
    return name, f"<= {most:g}{unit}", f"{value:.3g}{unit}", "yes" if value <= most else "no"


def _latencies(document: Document) -> str:
    rows = [
        (
            name,
            *(_milliseconds(found["wall_ms"][percent]) for percent in ("p50", "p95", "p99")),
            *(_milliseconds(found["cpu_ms"][percent]) for percent in ("p50", "p95")),
            f"{100 * found['answered_ratio']:.0f} %",
            *(_ratio(document["ratios"].get(name), kind) for kind in ("wall_p50", "wall_p95", "cpu_p50")),
        )
        for name, found in document["latency"].items()
    ]
    head = ("look-up", "p50 ms", "p95 ms", "p99 ms", "CPU p50 ms", "CPU p95 ms", "answered")
    return table((*head, "to GPTCache: p50", "p95", "CPU p50"), rows)


def _answers(answers: Document) -> str:
    rows = [
        (
            name,
            f"{100 * found['hit_ratio']:.1f} %",
            f"{found['wrong_per_1000']:g}",
            f"{100 * found['false_share']:.1f} %",
            *(
                _kind(found["kinds"].get(kind))
                for kind in ("exact", "surface", "duplicate", "labelled_different", "unrelated")
            ),
        )
        for name, found in answers.items()
    ]
    head = ("cache, threshold", "answered", "wrong in 1,000", "wrong of answers", "exact", "surface", "duplicate")
    return table((*head, "labelled different", "unrelated"), rows)


def _kind(found: Mapping[str, int] | None) -> str:
    """Answers to one kind of look-up, wrong ones in brackets."""
    if found is None:
        return "-"
    return f"{found['hits']}/{found['look_ups']}" + (f" ({found['wrong']})" if found["wrong"] else "")


def _milliseconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _ratio(found: Mapping[str, Mapping[str, float]] | None, kind: str) -> str:
    """Median within rounds, and range."""
    if found is None:
        return ""
    return f"{found[kind]['median']:.2g} [{found[kind]['min']:.2g}-{found[kind]['max']:.2g}]"


def _origin(document: Document) -> str:
    machine, prompts = document["machine"], document["prompts"]
    ours, theirs = (_versions(document[name].get("versions", {})) for name in ("inferdock", "gptcache"))
    return (
        f"{document['started']}, commit {machine['commit']}, {machine['processor']}, one core of {machine['cpus']}. "
        f"{prompts['count']} prompts ({document['workload']}) of {prompts['tokens_p50']} tokens (median), "
        f"{prompts['tokens_max']} at most. "
        f"Inferdock with {ours}; GPTCache: {theirs or document['gptcache']['missing']}."
    )


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """One table."""
    lines = [" | ".join(head), "|".join("---" for _ in head), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines).replace("| ---", "|---").replace("--- |", "---|")
