"""What the cache makes of one request: may it be answered from the cache, under which key, on which terms."""

from __future__ import annotations

from dataclasses import dataclass

from inferdock.cache.canonical import CanonicalRequest
from inferdock.cache.directives import Directives
from inferdock.cache.match import Question
from inferdock.cache.policy import CachePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How one model uses the cache.

    Attributes:
        policy: which requests.
        threshold: cosine from which two texts may mean the same, before it is raised for any reason.
        ttl_s, ttl_jitter: life of what is stored, and by which share it is shortened at random.
        wrong_bound: largest share of semantic hits that may be wrong.
    """

    policy: CachePolicy
    threshold: float
    ttl_s: float
    ttl_jitter: float
    wrong_bound: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One request as the cache sees it.

    Attributes:
        request: its canonical form.
        directives: what the client allows.
        terms: of its model.
        body: for the replica, without what only concerns the cache.
        tenant: from the key.
        identity: of what would answer now; an answer of something else is stored under that.
        key, partition: see ``cache.scope``.
        epoch: of flushes, when the request came.
    """

    request: CanonicalRequest
    directives: Directives
    terms: Terms
    body: bytes
    tenant: str
    identity: str
    key: bytes
    partition: bytes
    epoch: str

    @property
    def policy(self) -> CachePolicy:
        """Which requests are cached."""
        return self.terms.policy

    @property
    def text(self) -> str | None:
        """The last user text; None where only equal requests will do."""
        return self.request.text if self.terms.policy.semantic else None

    def question(self, model: str) -> Question:
        """What is looked up."""
        return Question(self.key, self.partition, self.text, model, self.terms.threshold, self.terms.wrong_bound)


@dataclass(frozen=True, slots=True)
class Bypass:
    """The cache has nothing to do with the request.

    Attributes:
        reason: one of a fixed list.
        body: for the replica.
    """

    reason: str
    body: bytes
