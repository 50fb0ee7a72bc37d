"""Where capitals make another word: "US" and "us", "Polish" and "polish". Everywhere else case is folded."""

from __future__ import annotations

import itertools
import re

ACRONYMS = frozenset(
    {"us", "it", "who", "aids", "cat", "mat", "sat", "act", "gate", "raw", "ice", "ram", "pie", "or", "in", "me"}
)
NAMES = frozenset(
    {"polish", "turkey", "china", "march", "may", "august", "apple", "windows", "bush", "shell", "target", "reading"}
    | {"nice", "job", "lent", "word", "excel", "mercury", "pages", "numbers", "orange", "gap", "bath", "cork", "mobile"}
)
_MARKABLE = re.compile(rf"\b(?:{'|'.join(sorted(ACRONYMS | NAMES))})\b|\w\(\)")
_BEFORE_PRONOUN = frozenset({"help", "tell", "give", "show", "let", "teach", "hate", "love", "make"})
_BEFORE_LAST = frozenset({"with", "for"})
_WORD = re.compile(r"[^\W\d_]+")
_SENTENCE_START = re.compile(r"(?:^|[.?!:\n\"'(])\s*$")


def says_case(text: str) -> bool:
    """Whether the writer used both cases as usual: not all lower, not all capitals, not Every Word Capitalised."""
    words = _WORD.findall(text)
    long = [word for word in words if len(word) > 3]
    capitals = sum(word[0].isupper() for word in long)
    return (
        any(word[0].isupper() for word in words)
        and any(word.islower() for word in words)
        and capitals * 5 <= len(long) * 4
    )


def marked_words(text: str) -> tuple[str, ...]:
    """Words that their capitals make another word, in order; none where the text says nothing by case."""
    if not _MARKABLE.search(text.lower()) or not says_case(text):
        return ()
    found = list(_WORD.finditer(text))
    return tuple(match[0] for place, match in enumerate(found) if _marked(text, found, place))


def fold_case(text: str) -> str:
    """Lower case, but for the marked words and the names of functions."""
    folded = text.lower()
    if len(folded) != len(text) or not _MARKABLE.search(folded) or not says_case(text):
        return folded
    found = list(_WORD.finditer(text))
    pieces, end = [], 0
    for place, match in enumerate(found):
        if _marked(text, found, place):
            pieces += [folded[end : match.start()], match[0]]
            end = match.end()
    return "".join([*pieces, folded[end:]])


def _marked(text: str, found: list[re.Match[str]], place: int) -> bool:
    word = found[place][0]
    if word.isupper() and len(word) > 1:
        near = found[max(place - 1, 0) : place + 2]
        return word.lower() in ACRONYMS and not any(other[0].isupper() for other in near if other is not found[place])
    if text[found[place].end() : found[place].end() + 2] == "()":
        return not word.islower()  # the name of a function
    if not word[0].isupper() or word.lower() not in NAMES:
        return False
    return not _SENTENCE_START.search(text, max(found[place].start() - 8, 0), found[place].start())


def pronoun_or_country(asked: str, stored: str) -> bool:
    """Whether "US" stands in one text, and in the other a "us" that is the pronoun."""
    return any("US" in marked_words(one) and _pronoun(other) for one, other in ((asked, stored), (stored, asked)))


def _pronoun(text: str) -> bool:
    words = [word.lower() if word != "US" else word for word in _WORD.findall(text)]
    return any(
        second == "us" and (first in _BEFORE_PRONOUN or (first in _BEFORE_LAST and place + 2 == len(words)))
        for place, (first, second) in enumerate(itertools.pairwise(words))
    )
