"""What an evaluation leaves behind: values, and the JSON document that a gate keeps as evidence. Pure."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inferdock.domain.verdict import Verdict
from inferdock.evaluation.bootstrap import METHOD, Drawing, Estimate
from inferdock.evaluation.metrics import METRICS, Outcome, Scoring, passes
from inferdock.evaluation.verdict import Finding, Measure

SCHEMA: Final = "inferdock.evaluation/1"
EXAMPLES: Final = 20
SHOWN: Final = 4_000
"""Characters of a text in a report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A task that the two sides answered differently.

    Attributes:
        lost, won: kinds of checks that only the champion, only the candidate met.
        likeness: of the two answers, 0-1.
    """

    id: str
    group: str
    question: str
    reference: str | None
    champion: str
    candidate: str
    lost: tuple[str, ...]
    won: tuple[str, ...]
    likeness: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side, as it was met.

    Attributes:
        revisions: that the gateway named in its answers, with how many answers each gave.
        failures: what went wrong, with how often, the most frequent first.
        weight_bytes: of its weight files; None: not known.
        kv_cache_tokens: that fit into its engine's KV cache; None: not known.
    """

    urls: tuple[str, ...]
    model: str
    revisions: Mapping[str, int]
    failures: Mapping[str, int]
    weight_bytes: int | None = None
    kv_cache_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """An evaluation.

    Attributes:
        tasks_name, tasks_digest: of the file (SHA-256, hex).
        tasks: how many there were.
        compared: how many have two answers.
        changed: how many of those differ.
        measures: all that was measured: over all tasks, then over each group.
        findings: the limits, judged.
        examples: what changed most.
        notes: what a reader must know to trust the verdict, in sentences.
        seconds: it took.
    """

    verdict: Verdict
    champion: Side
    candidate: Side
    tasks_name: str
    tasks_digest: str
    tasks: int
    compared: int
    changed: int
    measures: tuple[Measure, ...]
    findings: tuple[Finding, ...]
    examples: tuple[Example, ...]
    notes: tuple[str, ...]
    drawing: Drawing
    seconds: float

    def document(self) -> dict[str, Any]:
        """For JSON: finite numbers and text only."""
        return {
            "schema": SCHEMA,
            "verdict": str(self.verdict),
            "tasks": {"name": self.tasks_name, "sha256": self.tasks_digest, "count": self.tasks},
            "compared": self.compared,
            "changed": self.changed,
            "champion": _side(self.champion),
            "candidate": _side(self.candidate),
            "limits": [_finding(finding) for finding in self.findings],
            "measures": [_measure(measure) for measure in self.measures],
            "method": {
                "name": METHOD,
                "level": self.drawing.level,
                "resamples": self.drawing.resamples,
                "seed": self.drawing.seed,
            },
            "notes": list(self.notes),
            "examples": [_example(example) for example in self.examples],
            "seconds": round(self.seconds, 3),
        }


def side(
    outcomes: Sequence[Outcome],
    *,
    champion: bool,
    urls: tuple[str, ...],
    model: str,
    weight_bytes: int | None = None,
    kv_cache_tokens: int | None = None,
) -> Side:
    """What was met on one side."""
    answers = [o.champion if champion else o.candidate for o in outcomes]
    return Side(
        urls=urls,
        model=model,
        revisions=dict(Counter(a.revision for a in answers if a.revision).most_common(20)),
        failures=dict(Counter(a.error for a in answers if a.error).most_common(10)),
        weight_bytes=weight_bytes,
        kv_cache_tokens=kv_cache_tokens,
    )


def examples(outcomes: Sequence[Outcome], scoring: Scoring) -> tuple[Example, ...]:
    """What changed most: lost checks first, then the least alike."""
    found = [_as_example(outcome, scoring) for outcome in outcomes if differs(outcome)]
    return tuple(sorted(found, key=lambda e: (not e.lost, e.likeness, e.id))[:EXAMPLES])


def differs(outcome: Outcome) -> bool:
    """True when both answered, and not the same."""
    return outcome.answered and outcome.champion.text.strip() != outcome.candidate.text.strip()


def _as_example(outcome: Outcome, scoring: Scoring) -> Example:
    task = outcome.task
    met = {
        name: [passes(check, task, answer.text, scoring) for check in task.checks]
        for name, answer in (("champion", outcome.champion), ("candidate", outcome.candidate))
    }
    kinds = [type(check).__name__.lower() for check in task.checks]
    pairs = list(zip(kinds, met["champion"], met["candidate"], strict=True))
    return Example(
        id=task.id,
        group=task.group or "",
        question=task.question[:SHOWN],
        reference=task.reference[:SHOWN] if task.reference is not None else None,
        champion=outcome.champion.text[:SHOWN],
        candidate=outcome.candidate.text[:SHOWN],
        lost=tuple(dict.fromkeys(kind for kind, before, after in pairs if before and not after)),
        won=tuple(dict.fromkeys(kind for kind, before, after in pairs if after and not before)),
        likeness=scoring.chrf(outcome.candidate.text[:SHOWN], outcome.champion.text[:SHOWN]) / 100,
    )


def changed_words(before: str, after: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Both texts in pieces, with whether a piece is only there."""
    left, right = before.split(" "), after.split(" ")
    ours: list[tuple[str, bool]] = []
    theirs: list[tuple[str, bool]] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, left, right, autojunk=True).get_opcodes():
        if b > a:
            ours.append((" ".join(left[a:b]), kind != "equal"))
        if d > c:
            theirs.append((" ".join(right[c:d]), kind != "equal"))
    return ours, theirs


def spell(value: float, unit: str, *, change: bool = False) -> str:
    """A number for people: shares in percent, changes with their sign."""
    if not math.isfinite(value):
        return "–"
    sign = "+" if change else ""
    if unit == "share":
        text = f"{value * 100:{sign}.1f} %"
    elif unit == "nats":
        text = f"{value:{sign}.4f}"
    else:
        text = f"{value:{sign}.1f}"
    return text if float(text.rstrip(" %")) else text.replace("-", "").replace("+", "")


def spell_finding(finding: Finding) -> str:
    """One sentence on a limit."""
    if finding.measured is None:
        return f"{finding.limit.text}: {finding.reason}."
    unit = "share" if finding.limit.of == "relative" else METRICS[finding.limit.metric].unit
    change = finding.limit.of != "value"
    value, low, high = (
        spell(x, unit, change=change) for x in (finding.measured.value, finding.measured.low, finding.measured.high)
    )
    return f"{finding.limit.text}: {value} ({low} to {high}) on {finding.samples} tasks; {finding.reason}."


def spell_sizes(report: Report) -> list[str]:
    """Sentences on what the two take: weights, and the KV cache that their engines have beside them."""
    champion, candidate = report.champion, report.candidate
    found = []
    for what, before, after in (
        ("Weights: {} bytes, the candidate's", champion.weight_bytes, candidate.weight_bytes),
        ("Room in the KV cache: {} tokens, the candidate's", champion.kv_cache_tokens, candidate.kv_cache_tokens),
    ):
        if before and after is not None:
            found.append(f"{what.format(f'{before:,}')} {after:,} ({after / before - 1:+.1%}).")
    return found


def measure_cells(measure: Measure) -> tuple[str, ...]:
    """A row of the table of measures, as text."""
    metric = METRICS[measure.metric]
    own = measure.champion is not None
    change = measure.difference if measure.difference is not None else measure.candidate
    return (
        measure.group or "all",
        metric.name if metric.unit == "share" else f"{metric.name} ({metric.unit})",
        str(measure.samples),
        _value(measure.champion, metric.unit),
        _value(measure.candidate, metric.unit),
        spell(change.value, metric.unit, change=True) if own else "",
        f"{spell(change.low, metric.unit, change=own)} to {spell(change.high, metric.unit, change=own)}",
    )


def _value(estimate: Estimate | None, unit: str) -> str:
    return "" if estimate is None else spell(estimate.value, unit)


def _side(found: Side) -> dict[str, Any]:
    return {
        "urls": list(found.urls),
        "model": found.model,
        "revisions": dict(found.revisions),
        "failures": dict(found.failures),
        "weight_bytes": found.weight_bytes,
        "kv_cache_tokens": found.kv_cache_tokens,
    }


def _estimate(found: Estimate | None) -> dict[str, float | None] | None:
    if found is None:
        return None
    return {name: _finite(getattr(found, name)) for name in ("value", "low", "high")}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _measure(found: Measure) -> dict[str, Any]:
    return {
        "group": found.group or None,
        "metric": found.metric,
        "unit": METRICS[found.metric].unit,
        "samples": found.samples,
        "champion": _estimate(found.champion),
        "candidate": _estimate(found.candidate),
        "difference": _estimate(found.difference),
        "relative": _estimate(found.relative),
    }


def _finding(found: Finding) -> dict[str, Any]:
    return {
        "limit": found.limit.text,
        "verdict": str(found.verdict),
        "group": found.limit.group or None,
        "metric": found.limit.metric,
        "of": found.limit.of,
        "bound": found.limit.number,
        "samples": found.samples,
        "measured": _estimate(found.measured),
        "reason": found.reason,
        "tasks_needed": found.needed,
    }


def _example(found: Example) -> dict[str, Any]:
    return {
        "id": found.id,
        "group": found.group or None,
        "question": found.question,
        "reference": found.reference,
        "champion": found.champion,
        "candidate": found.candidate,
        "lost": list(found.lost),
        "won": list(found.won),
        "likeness": round(found.likeness, 4),
    }
