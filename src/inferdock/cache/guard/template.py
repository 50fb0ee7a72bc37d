"""Where other words of one meaning need another answer: prompts about words, and one instruction for many texts."""

from __future__ import annotations

import re

from inferdock.cache.guard.inflection import base_form
from inferdock.cache.guard.language import SMALL
from inferdock.cache.guard.words import FILLERS

LONG_SHARE = 12
"""Shared words at both ends from which two prompts are of one template, where they are half of the longer one."""

_WORK = (
    r"translat\w*|rewrit\w*|rephras\w*|paraphras\w*|reword\w*|summari[sz]\w*|proofread|correct|spell|pronounce|repeat|"
    r"classif\w*|extract|label|convert|transcribe|shorten|simplify|conjugate|parse|tokeni[sz]e|"
    r"(?:how|what) (?:do|does|would|can|should) (?:you|i|one|we) (?:say|write|call|spell|pronounce)"
)
_TASK = re.compile(rf"^\W*(?:(?:please|can you|could you|would you)\s+)*(?:{_WORK})\b", re.IGNORECASE)
_ABOUT_WORDS = re.compile(
    r"\b(?:synonyms?|antonyms?|rhym\w+|anagrams?|acronyms?|palindromes?|plural|nouns?|verbs?|"
    r"adjectives?|adverbs?|syllables?|past tense|participle|opposite of|word for|"
    r"translat(?:e|ed|ion|ions)|pronounced?|pronunciation|spell(?:ed|ing|t)?|etymology|"
    r"in (?:french|spanish|german|italian|japanese|chinese|hindi|arabic|latin|russian|portuguese|korean|english))\b",
    re.IGNORECASE,
)
_DEFINES = re.compile(
    r"\b(?:(?:do|does|did)\b.{0,200}\bmeans?\b|mean by|meant by|meaning|defin\w+|terms?|word|"
    r"phrase|idiom|stands? for)\b",
    re.IGNORECASE,
)
_STRUCTURE = re.compile(r"[\n:\"“”;]|[.?!]\s+\S")
_FRAME = frozenset({"mean", "means", "meant", "meaning", "define", "definition", "term", "word", "exact", "please"})


_UNNAMED = SMALL | _FRAME | FILLERS


def is_mention(text: str) -> bool:
    """Whether the prompt works on words rather than with them."""
    return _TASK.search(text) is not None or "\n" in text.strip() or _ABOUT_WORDS.search(text) is not None


def defines_other(asked: str, stored: str, left: tuple[str, ...], right: tuple[str, ...]) -> bool:
    """Whether the prompts ask what words mean, and not of the same words."""
    if _DEFINES.search(asked) is None and _DEFINES.search(stored) is None:
        return False
    return _named(left) != _named(right)


def _named(words: tuple[str, ...]) -> list[str]:
    return sorted(base_form(word) for word in words if word not in _UNNAMED)


def is_structured(asked: str, stored: str) -> bool:
    """Whether either has more than one sentence, a colon or a quotation: an instruction and what it is about."""
    return _STRUCTURE.search(asked) is not None or _STRUCTURE.search(stored) is not None


def is_template(asked: tuple[str, ...], stored: tuple[str, ...]) -> bool:
    """Whether the prompts share a long beginning or end."""
    short, long = sorted((len(asked), len(stored)))
    start = 0
    while start < short and asked[start] == stored[start]:
        start += 1
    end = 0
    while end < short - start and asked[-1 - end] == stored[-1 - end]:
        end += 1
    shared = start + end
    return shared >= LONG_SHARE and shared * 2 >= long
