"""What a run of checks leaves behind: a value, and the JSON document made of it. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from inferdock.verify.check import Outcome, Result

SCHEMA: Final = "inferdock.verify/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A run of checks.

    Attributes:
        target: address that was looked at.
        facts: what it is, by name: model, engine, version and the like.
        at: when the run began (ISO 8601, UTC).
        results: in the order of the plan.
        seconds: the run took.
    """

    target: str
    facts: Mapping[str, str]
    at: str
    results: tuple[Result, ...]
    seconds: float

    def counts(self) -> dict[str, int]:
        """How many checks ended each way."""
        found = Counter(result.evidence.outcome for result in self.results)
        return {outcome.value: found[outcome] for outcome in Outcome}

    def outcome(self) -> Outcome:
        """Of the whole: failed where one failed, not run where none was."""
        counts = self.counts()
        if counts[Outcome.FAIL]:
            return Outcome.FAIL
        return Outcome.PASS if counts[Outcome.PASS] else Outcome.NEEDS

    def document(self) -> dict[str, Any]:
        """For JSON: finite numbers and text only."""
        return {
            "schema": SCHEMA,
            "outcome": self.outcome().value,
            "counts": self.counts(),
            "target": self.target,
            "facts": dict(self.facts),
            "at": self.at,
            "seconds": round(self.seconds, 3),
            "checks": [_row(result) for result in self.results],
        }


def counted(report: Report) -> str:
    """How many ended each way, in a sentence."""
    counts = report.counts()
    needs = counts[Outcome.NEEDS]
    rest = f", {needs} could not be run here" if needs else ""
    return f"{counts[Outcome.PASS]} passed, {counts[Outcome.FAIL]} failed{rest}."


def step(name: str) -> str:
    """The step of the plan that a check belongs to: `2.3` of `2.3.drain`."""
    return name.rpartition(".")[0]


def spell_figures(figures: Mapping[str, float]) -> str:
    """Figures for people: name and number, with as many digits as say something."""
    return ", ".join(f"{name} {value:.4g}" if value % 1 else f"{name} {value:.0f}" for name, value in figures.items())


def _row(result: Result) -> dict[str, Any]:
    seen = result.evidence
    return {
        "id": result.id,
        "step": step(result.id),
        "line": result.line,
        "outcome": seen.outcome.value,
        "sentence": seen.sentence,
        "figures": {name: value if math.isfinite(value) else None for name, value in seen.figures.items()},
        "command": seen.command or None,
        "seconds": round(result.seconds, 3),
    }
