"""The surface form: two texts of one form may share an answer without any embedding.

Folded: white space, glyphs, case, the mark that ends a text, a line or a quotation, "please" at either end of these
and "hey," in front. Kept: all other punctuation ("C#", "-5", commas), marks after digits that may be arithmetic
("5!"), words that capitals make another word, and everything in code.
"""

from __future__ import annotations

import re

from inferdock.cache.guard.glyphs import plain_glyphs
from inferdock.cache.guard.letters import fold_case

MAX_CHARACTERS = 32_768
"""Longer texts have only their own form: the work on one is bounded."""

_CODE = re.compile(
    r"```|`[^`\n]+`|[;{}]\s*\n|=>|->|==|!=|&&|\|\||</|/>|\bdef \w+\(|#include|\$\w+\s*=|\n {4,}\S|(?:^|\n)\t+\S"
    r"|\b(?:SELECT|INSERT|UPDATE|DELETE)\b[^\n]{1,200}\b(?:FROM|INTO|SET)\b|\\[a-zA-Z]|\w\[\w*\]|^\s*[\[{]"
)
_ASKED_OF_CODE = re.compile(r"(?<=[a-z]{3})(?<!`) ?\?\Z")
_SPACES = re.compile(r"[^\S\n]+")
_LINES = re.compile(r" ?\n\s*")
_INSIDE_QUOTE = re.compile(r"(?:(?<=^)|(?<=[\s:(,]))([\"'])\s+(?=\S)")
_BEFORE_QUOTE = re.compile(r"(?<=\S)\s+([\"'])(?=[\s.,;:?!)]|$)")
_BEFORE_MARK = re.compile(r"(?<=\S)[^\S\n]+(?=[,.?!;:]+(?:\s|[\"']|$))")
_END = r"(?=[^\S\n]*(?:$|\n|[\"'](?:[\s.,;:?!)]|$)))"
_LAST_MARK = re.compile(rf"(?:(?<=[^\s.?!\d])[.?!]+|(?<=\d)[.?]+){_END}")
_PLEASE_LAST = re.compile(rf"(?<=[\w?!.)%\"'])(?:[^\S\n]*,?[^\S\n]+please){{1,4}}(?=[.?!]*){_END}")
_MENTIONS = re.compile(r"\b(?:say|says|saying|said|spell|words?|word is|write|means?|of|the|to)\s*$")
_START = r"(?:^|(?<=\n)|(?<=: )|(?<=[\s:(][\"'])|(?<=^[\"'])|(?<=[?!.] ))"
_GREETING = re.compile(
    rf"{_START}(?:(?:(?:hey|hi|hello)\s*,|please\s*,?)[^\S\n]+){{1,4}}(?=\w)(?!(?:jude|world|dolly)\b)"
)


def looks_like_code(text: str) -> bool:
    """Case, white space and every mark may matter."""
    return _CODE.search(text) is not None


def surface_form(text: str) -> str:
    """Normal form of a prompt. Equal only for texts that ask the same; any str will do, lone surrogates stay in it."""
    whole = text.strip()
    if len(whole) > MAX_CHARACTERS:
        return f"\0{whole}"
    if looks_like_code(whole):
        return f"\0{_ASKED_OF_CODE.sub('', whole)}"
    return _folded(fold_case(_spaced(plain_glyphs(whole)))) or whole


def _spaced(text: str) -> str:
    text = _LINES.sub("\n", _SPACES.sub(" ", text.replace("\r", "\n"))).strip()
    text = _BEFORE_QUOTE.sub(r"\1", _INSIDE_QUOTE.sub(r"\1", text))
    return _BEFORE_MARK.sub("", text)


def _folded(text: str) -> str:
    text = _GREETING.sub("", text)
    text = _LAST_MARK.sub("", text)
    text = _PLEASE_LAST.sub(_unless_mentioned, text)
    return _LAST_MARK.sub("", text).strip()


def _unless_mentioned(found: re.Match[str]) -> str:
    return found[0] if _MENTIONS.search(found.string, max(found.start() - 12, 0), found.start()) else ""
