"""What passes between the gateway, the cache and its semantic tier; light, so that anybody may import it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from inferdock.cache.entry import Entry


@dataclass(frozen=True, slots=True)
class Match:
    """Result of one look-up.

    Attributes:
        key: of the entry that may be served, None for a miss.
        score: cosine of the best candidate, 0 without one; 1 where the texts differ on the surface only.
        reason: in a word, why it is a hit or a miss.
        detail: more of it, for a person; may hold words of both texts.
        candidate: key of the best candidate, served or not.
        candidate_text: its message.
        threshold: that the score was measured against.
        entries: of the partition, at the time.
        grey: a judge might say that the candidate will do.
        vector: of the text, packed; None where none was made.
    """

    key: bytes | None = None
    score: float = 0.0
    reason: str = "empty"
    detail: str = ""
    candidate: bytes | None = None
    candidate_text: str = ""
    threshold: float = 0.0
    entries: int = 0
    grey: bool = False
    vector: bytes | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one look-up.

    Attributes:
        threshold: base, which grows with the partition's size.
        tightened: makes of the number of entries and that threshold the one that counts; None: equal texts only.
    """

    threshold: float
    tightened: Callable[[int, float], float | None] = lambda entries, threshold: threshold


@dataclass(frozen=True, slots=True)
class Question:
    """What is looked up.

    Attributes:
        key, partition: see ``scope``.
        text: last user text, None where only an equal request will do.
        model: of the request.
        threshold: cosine from which two texts may mean the same, before it is raised for any reason.
        wrong_bound: largest share of semantic hits that may be wrong.
    """

    key: bytes
    partition: bytes
    text: str | None
    model: str
    threshold: float
    wrong_bound: float


@dataclass(frozen=True, slots=True)
class Found:
    """Result of a look-up.

    Attributes:
        entry: to be served, None for a miss.
        tier: ``exact`` or ``semantic``.
        score: cosine, 1 for equal requests.
        match: what the semantic tier said, None where it was not asked.
    """

    entry: Entry | None = None
    tier: str = "exact"
    score: float = 0.0
    match: Match | None = None

    @property
    def vector(self) -> bytes | None:
        """Of the text, where one was made."""
        return self.match.vector if self.match is not None else None
