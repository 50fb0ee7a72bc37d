"""What the guard says of a pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Reason = Literal[
    "same",
    "surface",
    "same words",
    "same meaning",
    "below threshold",
    "long",
    "code",
    "quote",
    "mention",
    "template",
    "language",
    "number",
    "negation",
    "antonym",
    "time",
    "question",
    "person",
    "word",
    "order",
]

JUDGEABLE: frozenset[Reason] = frozenset({"below threshold", "word", "order", "question"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a stored answer may be served, and why.

    Attributes:
        served: the answer may be served.
        reason: one of a fixed list, safe as a metric's label.
        detail: the words that decided, for ``cache explain``. May hold words of both prompts: no label, no log.
        grey: not served, but no hard rule spoke against it and the score is near: a judge model may promote the pair.
    """

    served: bool
    reason: Reason
    detail: str = ""
    grey: bool = False
