"""The guard: may the answer to one prompt be served for another?

Two prompts of one cosine may ask for the same or for the opposite, so the score only opens the door. Then what differs
must be explained: by surface, by words that carry no meaning, by synonyms and ways of asking. Whatever is not, refuses.
"""

from __future__ import annotations

from inferdock.cache.guard import rules
from inferdock.cache.guard.form import looks_like_code, surface_form
from inferdock.cache.guard.language import is_english
from inferdock.cache.guard.letters import pronoun_or_country, says_case
from inferdock.cache.guard.order import same_order
from inferdock.cache.guard.reading import Reading, read
from inferdock.cache.guard.template import defines_other, is_mention, is_structured, is_template
from inferdock.cache.guard.verdict import JUDGEABLE, Reason, Verdict

MAX_CHARACTERS = 4096
"""Of a prompt that is read; longer ones are served by equal form only. 256 tokens have about 1,100."""

GREY = 0.1
"""So far below the threshold a pair is looked at; what is refused there for other words may be judged by a model."""

ALLOWANCE: dict[rules.Weight, float] = {"none": 0.1, "light": 0.1, "near": 0.08, "generic": 0.02}
"""So far below a threshold of 0.95 or less a pair may be served, by what still differs in meaning."""

FULL_ALLOWANCE = 0.95
"""A higher threshold, which a large partition or measured wrong hits ask for, shrinks the allowances: none at 1."""


def allowance(weight: rules.Weight, threshold: float) -> float:
    """How far below the threshold a pair may be served."""
    return ALLOWANCE[weight] * min(max((1 - threshold) / (1 - FULL_ALLOWANCE), 0.0), 1.0)


class Guard:
    """Judges pairs. Holds nothing, so that one is enough for all threads."""

    def judge(self, asked: str, stored: str, score: float, *, threshold: float) -> Verdict:
        """Whether the stored prompt's answer may be served. The same for the pair the other way round; never raises.

        Args:
            asked: the prompt that came, any str.
            stored: the prompt whose answer is there.
            score: cosine of their vectors.
            threshold: of the partition, see :func:`inferdock.cache.thresholds.threshold`.
        """
        if asked == stored:
            return Verdict(served=True, reason="same")
        if surface_form(asked) == surface_form(stored):
            return Verdict(served=True, reason="surface")
        if not score >= threshold - GREY:  # also for NaN
            return Verdict(served=False, reason="below threshold")
        if max(len(asked), len(stored)) > MAX_CHARACTERS:
            return Verdict(served=False, reason="long")
        if looks_like_code(asked) or looks_like_code(stored):
            return Verdict(served=False, reason="code")
        if pronoun_or_country(asked, stored):
            return Verdict(served=False, reason="word", detail="US | us")
        return _compare(asked, stored, score, threshold)


def _compare(asked: str, stored: str, score: float, threshold: float) -> Verdict:
    by_case = says_case(asked) and says_case(stored)
    left, right = read(asked, by_case=by_case), read(stored, by_case=by_case)
    if left.spelled == right.spelled:
        return Verdict(served=True, reason="same words")
    found = rules.difference(left.tokens, right.tokens)
    strict = _strict(asked, stored, left, right)
    if strict:
        return Verdict(served=False, reason=strict, detail=str(found))
    kind = rules.kind_of(left, right)
    reason = rules.forbidden(left, right, found, kind)
    if reason is None and not same_order(left, right, kind):
        reason = "order"
    if reason:
        return Verdict(served=False, reason=reason, detail=str(found), grey=reason in JUDGEABLE)
    if score < threshold - allowance(rules.weight(found, kind), threshold):
        return Verdict(served=False, reason="below threshold", detail=str(found), grey=True)
    return Verdict(served=True, reason="same meaning", detail=str(found))


def _strict(asked: str, stored: str, left: Reading, right: Reading) -> Reason | None:
    """Why only the same words would do here."""
    if left.quotes != right.quotes:
        return "quote"
    if is_mention(asked) or is_mention(stored) or defines_other(asked, stored, left.spelled, right.spelled):
        return "mention"
    if is_structured(asked, stored) and is_template(left.spelled, right.spelled):
        return "template"
    if not (is_english(left) and is_english(right)):
        return "language"
    return None
