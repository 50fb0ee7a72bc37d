"""What the rules see of a prompt: its words as written, and its meaning as a row of tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass

from inferdock.cache.guard import words
from inferdock.cache.guard.arrangement import arranged
from inferdock.cache.guard.glyphs import plain_glyphs, without_accents
from inferdock.cache.guard.inflection import base_form, superlative
from inferdock.cache.guard.letters import fold_case
from inferdock.cache.guard.persons import impersonal
from inferdock.cache.guard.phrases import lengths, phrases
from inferdock.cache.guard.requests import without_request
from inferdock.cache.guard.synonyms import representatives

_TOKEN = re.compile(
    r"[^\W\d_]+(?:'[^\W\d_]+)?(?:\+\+|#)?(?:\s*,(?=\s))?|\d+(?:[.,:]\d+)*!?|(?<![\w)])-(?=\d)|(?<=\d)\s?-\s?(?=\d)"
    r"|[+*/=<>^%$€£¥&@#~|\\]|[^\w\s.,;:?!'\"()\[\]{}-]"
)
_QUOTED = re.compile(r"\"([^\"\n]+)\"|(?<![^\s(:,])'([^'\n]+)'(?![^\W\d_])")
_STATES = re.compile(r"\bu\.\s?s\.(?:\s?a\.?)?(?!\w)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_SAME = representatives()
_PHRASES = {phrase: tuple(_SAME.get(word, word) for word in meant) for phrase, meant in phrases().items()}
_LENGTHS = lengths(_PHRASES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A prompt as the rules compare it.

    Attributes:
        spelled: its words in lower case, contractions written out, without marks that carry no meaning.
        tokens: of its meaning: base forms, one for each group of synonyms or phrases, without articles and fillers.
        quotes: what stands in quotation marks.
    """

    spelled: tuple[str, ...]
    tokens: tuple[str, ...]
    quotes: tuple[str, ...]


def read(text: str, *, by_case: bool = False) -> Reading:
    """Read a prompt. Linear in its length; the caller bounds that.

    Args:
        text: the prompt.
        by_case: words that capitals make another word stay as they are written.
    """
    plain = without_accents(plain_glyphs(text))
    plain = _STATES.sub("usa", fold_case(plain) if by_case else plain.lower())
    spelled = _written_out(_TOKEN.findall(_THOUSANDS.sub("", plain)))
    quotes = tuple(" ".join((double or single).split()) for double, single in _QUOTED.findall(plain))
    return Reading(spelled=tuple(spelled), tokens=tuple(_meaning(spelled)), quotes=quotes)


def _written_out(found: list[str]) -> list[str]:
    spelled: list[str] = []
    for word in found:
        if word[-1] == ",":
            word = word[:-1].rstrip()
            if word in words.NEGATIONS or word == "yes":
                word += ","  # "no, stop" is not "no stop"
        spelled += words.written_out(word)
    return spelled


def _meaning(spelled: list[str]) -> list[str]:
    bare = [word for place, word in enumerate(spelled) if not (word in words.ADVERBS or _is_article(spelled, place))]
    bare = impersonal(without_request([words.ALIKE.get(word, word) for word in bare]))
    tokens = [token for token in _phrased(bare) if token not in words.FILLERS]
    return arranged(tokens)


def _is_article(spelled: list[str], place: int) -> bool:
    word = spelled[place]
    if word not in words.ARTICLES:
        return False
    after = spelled[place + 1] if place + 1 < len(spelled) else ""
    return after.isalnum() and after not in words.JOINTS


def _phrased(bare: list[str]) -> list[str]:
    tokens: list[str] = []
    place = 0
    while place < len(bare):
        for length in _LENGTHS.get(bare[place], ()):
            meant = _PHRASES.get(tuple(bare[place : place + length]))
            if meant is not None:
                tokens += meant
                place += length
                break
        else:
            tokens += _token(bare[place])
            place += 1
    return tokens


def _token(word: str) -> tuple[str, ...]:
    adjective = superlative(word)
    if adjective:
        meant = _SAME.get(adjective, adjective)
        return ("best",) if meant == "good" else ("most", meant)
    base = base_form(word)
    return (_SAME.get(base, base),)
