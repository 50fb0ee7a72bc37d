"""Whether a stored answer and a fresh one to the question at hand say the same. Pure.

Cheap signs first: equal but for typography is the same, other numbers or a yes for a no are different. Then the
similarity of the two texts decides, and between its limits nobody knows: a judge may say, or it counts for nothing.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, Literal

Outcome = Literal["same", "different", "unsure"]

SAME_FROM: Final = 0.93
"""Cosine of two answers' embeddings from which they are taken to say the same."""
DIFFERENT_BELOW: Final = 0.75
"""And below which they do not."""

_SPACE = re.compile(r"\s+")
_LIST_MARK = re.compile(r"(?m)^[ \t]*(?:\d{1,3}[.)]|[-*•#]+)[ \t]+")
_MARKUP = re.compile(r"[*_`\"'“”‘’«»]")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?")
_WORDS = re.compile(r"[a-z']+")
_SMALL_NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_NUMBER_WORDS: Final = {word: str(value) for value, word in enumerate(_SMALL_NUMBERS.split(" "))}
_NEGATIONS: Final = frozenset(
    {"no", "not", "never", "none", "nothing", "nobody", "neither", "nor", "without", "cannot"}
)
_YES_NO: Final = {"yes": True, "yeah": True, "yep": True, "no": False, "nope": False}


def compare(stored: str, fresh: str, similarity: float | None) -> Outcome:
    """What the answers say.

    Args:
        stored: what the cache served.
        fresh: what the model says now.
        similarity: cosine of their embeddings; None where there is none, for instance because a text is longer than
            the embedder reads.
    """
    ours, theirs = _form(stored), _form(fresh)
    if ours == theirs:
        return "same"
    our_words, their_words = _WORDS.findall(ours), _WORDS.findall(theirs)
    if _numbers_differ(ours, our_words, theirs, their_words) or _verdicts_differ(our_words, their_words):
        return "different"
    if similarity is None or not -1.001 <= similarity <= 1.001:
        return "unsure"
    if similarity < DIFFERENT_BELOW:
        return "different"
    alike = similarity >= SAME_FROM and _negates(our_words) is _negates(their_words)
    return "same" if alike else "unsure"


def _form(text: str) -> str:
    """The text without what typography adds: case, list marks, emphasis, quotes, white space, the last full stop."""
    text = unicodedata.normalize("NFKC", text).replace("’", "'").casefold()
    text = _MARKUP.sub(lambda mark: "'" if mark[0] == "'" else "", _LIST_MARK.sub("", text))
    return _SPACE.sub(" ", text).strip(" .!\n")


def _numbers_differ(ours: str, our_words: list[str], theirs: str, their_words: list[str]) -> bool:
    """One has a number that the other has neither in digits nor in words."""
    our_digits, their_digits = _numbers(ours), _numbers(theirs)
    return not (our_digits <= their_digits | _spelled(their_words) and their_digits <= our_digits | _spelled(our_words))


def _numbers(text: str) -> set[str]:
    return {_plain(found) for found in _NUMBER.findall(text)}


def _plain(number: str) -> str:
    """``1,000.50`` and ``+1000.5`` are one number."""
    number = number.replace(",", "").lstrip("+")
    whole, point, decimals = number.partition(".")
    decimals = decimals.rstrip("0")
    sign = "-" if whole.startswith("-") else ""
    return sign + (whole.lstrip("-").lstrip("0") or "0") + (point + decimals if decimals else "")


def _spelled(words: list[str]) -> set[str]:
    return {_NUMBER_WORDS[word] for word in words if word in _NUMBER_WORDS}


def _negates(words: list[str]) -> bool:
    """Embeddings hardly tell a sentence from its negation."""
    return any(word in _NEGATIONS or word.endswith("n't") for word in words)


def _verdicts_differ(our_words: list[str], their_words: list[str]) -> bool:
    """One begins with yes, the other with no."""
    ours = _YES_NO.get(our_words[0]) if our_words else None
    theirs = _YES_NO.get(their_words[0]) if their_words else None
    return ours is not None and theirs is not None and ours is not theirs
