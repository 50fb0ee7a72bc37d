"""Prompts that share a long text and differ in a part: only that part is compared, and only its surface may differ."""

from __future__ import annotations

import re

LONG_SHARE = 12
"""Shared words at both ends together from which two prompts count as one template, where they are the larger part."""

_WORK = (
    r"translat\w*|rewrit\w*|rephras\w*|paraphras\w*|summari[sz]\w*|proofread|correct|spell|pronounce|repeat|classif\w*|"
    r"extract|label|convert|transcribe|shorten|simplify|conjugate|rhyme\w*|synonyms?|antonyms?|anagram\w*|"
    r"(?:how|what) (?:do|does|would|can|should) (?:you|i|one|we) (?:say|write|call)|in (?:french|spanish|german|italian|"
    r"japanese|chinese|hindi|arabic|latin|russian|portuguese|korean)"
)
_MENTION = re.compile(rf"^\W*(?:(?:please|can you|could you|would you)\s+)*(?:{_WORK})\b", re.IGNORECASE)
_STRUCTURE = re.compile(r"[\n:\"“”;]|[.?!]\s+\S")


def is_mention(text: str) -> bool:
    """Whether the prompt works on words rather than with them: other words of the same meaning need another answer."""
    return _MENTION.search(text) is not None or "\n" in text.strip()


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


def is_structured(asked: str, stored: str) -> bool:
    """Whether either has more than one sentence, a colon or a quotation: an instruction and what it is about."""
    return _STRUCTURE.search(asked) is not None or _STRUCTURE.search(stored) is not None
