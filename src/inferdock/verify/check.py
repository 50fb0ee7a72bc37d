"""What a check is, and what it leaves behind. Pure."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Generic, TypeVar

C = TypeVar("C")
"""What checks look at: the target, as the caller describes it."""

NOTHING: Mapping[str, float] = MappingProxyType({})


class Outcome(enum.StrEnum):
    """How a check ended; `needs` says that it was not run."""

    PASS = "pass"
    FAIL = "fail"
    NEEDS = "needs"


class Need(enum.StrEnum):
    """What a check cannot do without."""

    TARGET = "target"
    ENGINE = "engine"
    ADMIN = "admin"
    CHECKOUT = "checkout"
    GPU = "gpu"
    CLUSTER = "cluster"
    AWS = "aws"
    MINUTES = "minutes"
    DISRUPTION = "disruption"
    RELEASE = "release"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a check saw.

    Attributes:
        sentence: what was seen, or what is missing and how to give it.
        figures: numbers by name; the unit is the end of the name.
        command: shows the same again ("" when nothing does).
    """

    outcome: Outcome
    sentence: str
    figures: Mapping[str, float] = field(default_factory=lambda: NOTHING)
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check(Generic[C]):
    """One line of the plan.

    Attributes:
        id: step of the plan and a word, such as `1.5.streaming`.
        line: what the plan asks, in our words.
        run: looks at the target; what it raises counts as a failure.
        limit_s: seconds after which it counts as failed.
    """

    id: str
    line: str
    run: Callable[[C], Awaitable[Evidence]]
    needs: frozenset[Need] = frozenset()
    limit_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A check that ended, and how long it took in seconds."""

    id: str
    line: str
    evidence: Evidence
    seconds: float
