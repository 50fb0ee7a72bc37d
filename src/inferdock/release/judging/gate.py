"""Verdicts, and what a gate is. The concrete gates (health, smoke, quality) are put in by whoever builds the runner.

A gate that cannot tell says ``inconclusive``; it does not guess. The runner then pauses, and a person looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from inferdock.domain.verdict import Verdict
from inferdock.release.steps import Target

SLO: Final = "slo"
"""The gate that judges live figures; the runner has it itself (`analysis`)."""
SHADOW: Final = "shadow"
"""The gate that judges the answers to copies of requests."""
DIGESTS: Final = "digests"
"""The gate behind the step ``check``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A verdict with what it rests on.

    Attributes:
        verdict: the verdict.
        reason: one sentence for people.
        evidence: values that JSON can hold; kept in the journal.
    """

    verdict: Verdict
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a gate may need to know.

    Attributes:
        release: id of the release.
        model: name that clients use.
        addresses: base URLs of the new revision's ready replicas.
        stable: what serves now; None for the first release of a model.
        stable_addresses: base URLs of its ready replicas.
    """

    release: str
    model: str
    addresses: tuple[str, ...]
    stable: Target | None
    stable_addresses: tuple[str, ...]


class Gate(Protocol):
    """Something that a revision must pass."""

    async def check(self, target: Target, context: Context) -> Finding:
        """Look at it. May be cancelled at any time, and asked again."""
        ...
