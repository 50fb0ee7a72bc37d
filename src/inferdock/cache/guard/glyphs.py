"""Characters that only look different: one text is written as another before anything is compared.

Compatibility forms are folded one by one, but never those that carry meaning: "x²" is not "x2".
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_PLAIN = {
    **dict.fromkeys("‘’‚‛`´ʼ′", "'"),
    **dict.fromkeys("“”„‟«»″", '"'),
    **dict.fromkeys("‐‑‒–—―−", "-"),
    "…": "...",
    "×": "*",
    "÷": "/",
}
_NAMELESS = "\u200b\u2060\ufeff\u00ad"  # zero-width space, word joiner, byte-order mark, soft hyphen
_RAISED = ("<super>", "<sub>", "<fraction>", "<circle>", "<square>")
_FOREIGN = re.compile(r"[^\x00-\x7f]")


@lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    if character in _PLAIN:
        return _PLAIN[character]
    if character in _NAMELESS:
        return ""
    if unicodedata.decomposition(character).startswith(_RAISED):
        return character
    return unicodedata.normalize("NFKC", character)


def plain_glyphs(text: str) -> str:
    """The text with plain quotes, dashes and widths; composed (NFC). White space stays as it is."""
    if text.isascii():
        return text.replace("`", "'")
    return _FOREIGN.sub(lambda found: _plain(found[0]), unicodedata.normalize("NFC", text)).replace("`", "'")


@lru_cache(maxsize=4096)
def _bare(character: str) -> str:
    parts = unicodedata.normalize("NFD", character)
    return parts[0] if parts[0].isascii() and parts[0].isalpha() else character


def without_accents(text: str) -> str:
    """Latin letters without their marks: "Pokémon" is "Pokemon". Other scripts keep theirs."""
    return text if text.isascii() else _FOREIGN.sub(lambda found: _bare(found[0]), text)
