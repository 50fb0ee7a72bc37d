"""What differs between two readings, and what it means."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from inferdock.cache.guard import words
from inferdock.cache.guard.antonyms import opposites
from inferdock.cache.guard.reading import Reading
from inferdock.cache.guard.verdict import Reason

Weight = Literal["none", "light", "near", "generic"]
Kind = Literal["list", "how", "why", "other"]

_OPPOSITES = opposites()
_DIRECTIONS = frozenset({"to", "in", "for"})
_OPPOSITE_STARTS = ("un", "in", "im", "ir", "il", "dis", "non", "anti", "de", "mis")
_STARTS = words.TIMES | {"be", "do", "have"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Tokens that only one of the readings has, each list in order."""

    asked: tuple[str, ...]
    stored: tuple[str, ...]

    @property
    def both(self) -> tuple[str, ...]:
        """All of them."""
        return self.asked + self.stored

    def __str__(self) -> str:
        return f"{' '.join(self.asked) or '-'} | {' '.join(self.stored) or '-'}"


def difference(asked: tuple[str, ...], stored: tuple[str, ...]) -> Difference:
    """What is left on either side when equal tokens are taken off, one for one."""
    left, right = Counter(asked), Counter(stored)
    return Difference(asked=tuple((left - right).elements()), stored=tuple((right - left).elements()))


def forbidden(asked: Reading, stored: Reading, found: Difference, kind: Kind) -> Reason | None:
    """Why a difference changes the meaning; None when all of its words are light or near."""
    heavy = [token for token in found.both if not (_is_light(token, kind) or _is_near(token, kind))]
    if "".join(asked.tokens) == "".join(stored.tokens):  # "e commerce"
        return None
    if (
        _are_generic(heavy, asked, stored, found, kind)
        or _is_family(found, heavy, kind)
        or _asks_alike(found, heavy, asked, stored)
    ):
        heavy = []
    if not heavy:
        return _light_trap(found, kind)
    return next((reason for reason, applies in _REASONS if any(applies(token) for token in heavy)), None) or (
        "antonym" if _antonym(found) else "word"
    )


def weight(found: Difference, kind: Kind) -> Weight:
    """How much of an allowed difference there is."""
    if _letters(found.asked) == _letters(found.stored):
        return "none"
    heavy = [token for token in found.both if not _is_light(token, kind)]
    if heavy:
        return "near" if all(_is_near(token, kind) for token in heavy) else "generic"
    return "light" if found.both else "none"


def _letters(tokens: tuple[str, ...]) -> str:
    """Words written in one, or apart, have the same."""
    return "".join(sorted("".join(tokens)))


def _is_light(token: str, kind: Kind) -> bool:
    return token in words.LIGHT or (kind == "list" and token in words.LIGHT_IN_LISTS)


def _is_near(token: str, kind: Kind) -> bool:
    return (
        token in words.NEAR
        or (kind != "other" and token in words.NEAR_IN_QUESTIONS)
        or (kind == "list" and token in words.NEAR_IN_LISTS)
        or (kind in {"list", "how"} and token in words.MODALS)
    )


def _are_generic(heavy: list[str], asked: Reading, stored: Reading, found: Difference, kind: Kind) -> bool:
    """Whether one or two words of no news are missing on one side."""
    if len(heavy) > 2 or not (set(heavy).isdisjoint(found.asked) or set(heavy).isdisjoint(found.stored)):
        return False
    return bool(heavy) and all(_is_generic(word, asked, stored, kind) for word in heavy)


def _is_generic(word: str, asked: Reading, stored: Reading, kind: Kind) -> bool:
    """Whether one word, missing on one side, is of no news there."""
    longer = asked.tokens if word in asked.tokens else stored.tokens
    shorter = stored.tokens if longer is asked.tokens else asked.tokens
    if word == "what":
        return (
            longer[:2] == ("what", "be")
            and not _STARTS.intersection(shorter[:1])
            and words.QUESTIONS.isdisjoint(shorter)
        )
    if kind in {"list", "how"} and word in words.OWN:
        return longer.index(word) > 2 and words.PERSONS.isdisjoint(shorter)
    return kind != "other" and word in words.GENERIC


def _asks_alike(found: Difference, heavy: list[str], asked: Reading, stored: Reading) -> bool:
    """ "Who" or "how is" against "what is", and "when" against "if", where all else is equal."""
    if sorted(heavy) == ["when", "whether"]:
        return {asked.tokens[:1], stored.tokens[:1]}.isdisjoint({("when",), ("whether",)})
    if len(heavy) != 2 or asked.tokens[1:2] != ("be",) or stored.tokens[1:2] != ("be",):
        return False
    return {asked.tokens[0], stored.tokens[0]} in ({"what", "who"}, {"what", "how"}) and set(heavy) == {
        asked.tokens[0],
        stored.tokens[0],
    }


_ENDINGS = ("", "al", "ation", "ational", "ly", "ness", "ment", "ion", "ic", "ical", "s", "e", "y", "ity", "ous")


def _is_family(found: Difference, heavy: list[str], kind: Kind) -> bool:
    """Whether the difference is one word in two forms: "education" and "educational"."""
    if kind == "other" or len(heavy) != 2:
        return False
    left, right = heavy
    if (left in found.asked) == (right in found.asked):
        return False
    shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))
    return (
        shared >= 4
        and shared * 3 >= 2 * min(len(left), len(right))
        and left[shared:] in _ENDINGS
        and right[shared:] in _ENDINGS
    )


def _near(tokens: tuple[str, ...], kind: Kind) -> bool:
    return any(token not in words.LIGHT and _is_near(token, kind) for token in tokens)


def kind_of(asked: Reading, stored: Reading) -> Kind:
    """What kind of question both are."""
    first, second = asked.tokens[:1], stored.tokens[:1]
    if first == second == ("what",):
        return "list"
    if first != second or first == ("isway",) or not words.QUESTIONS.issuperset(first):
        return "other"
    return "why" if first in {("why",), ("who",), ("whose",)} else "how"


def _light_trap(found: Difference, kind: Kind) -> Reason | None:
    """Small words that together say something else: what a thing does or is, who does it, and where from or to."""
    sides = ((found.asked, found.stored), (found.stored, found.asked))
    if any("do" in one and "be" in other for one, other in sides):
        return "question"
    if any("by" in one and ("be" in found.both or "by" in other) for one, other in sides):
        return "order"
    if any("from" in one and not _DIRECTIONS.isdisjoint(other) for one, other in sides):
        return "order"
    if any("to" in one and "in" in other for one, other in sides):
        return "word"
    if _near(found.asked, kind) and _near(found.stored, kind):
        return "word"
    return None


def _is_number(token: str) -> bool:
    return (not token.isalpha() and any(character.isnumeric() for character in token)) or token in {
        "-",
        "+",
        "*",
        "/",
        "%",
        "=",
    }


def _is_negation(token: str) -> bool:
    return token.rstrip(",") in words.NEGATIONS or token == "yes,"


_REASONS: tuple[tuple[Reason, Callable[[str], bool]], ...] = (
    ("number", _is_number),
    ("negation", _is_negation),
    ("time", words.TIMES.__contains__),
    ("person", words.PERSONS.__contains__),
    ("question", words.QUESTIONS.__contains__),
)


def _antonym(found: Difference) -> bool:
    return any(
        (left, right) in _OPPOSITES or _prefixed(left, right) or _prefixed(right, left)
        for left in found.asked[:8]
        for right in found.stored[:8]
    )


def _prefixed(longer: str, shorter: str) -> bool:
    return len(shorter) > 3 and longer.endswith(shorter) and longer.removesuffix(shorter) in _OPPOSITE_STARTS


def heavy_tokens(reading: Reading, found: Difference, kind: Kind) -> tuple[str, ...]:
    """The tokens whose order counts; none of the difference is left."""
    return tuple(token for token in reading.tokens if not (_is_light(token, kind) or token in found.both))
