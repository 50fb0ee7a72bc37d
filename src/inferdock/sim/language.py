"""A tokenizer and a "model" small enough to read: text is a pure function of the tokens before it.

The next token depends on nothing but the token ids so far (and on the seed when the temperature is above 0), as in
a real engine at temperature 0. So another replica that gets prompt plus answer so far continues the same answer,
which is what stream resume is tested with.
"""

from __future__ import annotations

from collections.abc import Sequence

BOS, EOS = 0, 1
ROLE_IDS = {"system": 2, "user": 3, "assistant": 4, "tool": 5}
_FIRST_BYTE = 8
_FIRST_WORD = _FIRST_BYTE + 256
_TEXT = """
a the and of to in on with from for by at as it is are was were be has have not no yes one two three four five
six seven eight nine ten red green blue black white small large early late north south east west river hill
house garden door window road bridge stone water light night day morning evening summer winter wind rain snow
tree leaf bird horse fish ship sail harbour market bread salt honey apple paper letter word story song voice
hand foot head heart name time hour year week old new good quiet bright slow quick open closed near far under
over before after again always never often here there where when while until because so but or if then walks
runs sings reads writes finds keeps gives takes opens turns waits sees hears makes carries brings
"""
_WORDS = tuple(f" {word}" for word in _TEXT.split())
VOCABULARY_SIZE = _FIRST_WORD + len(_WORDS)
_WORD_IDS = {word: _FIRST_WORD + index for index, word in enumerate(_WORDS)}
_LONGEST_WORD = max(len(word) for word in _WORDS)
_MASK = (1 << 64) - 1


def encode(text: str) -> list[int]:
    """Token ids of a text: known words (with their leading space) are one token, everything else one per byte."""
    ids: list[int] = []
    place = 0
    while place < len(text):
        end = place + 1
        if text[place] == " ":
            while end < len(text) and text[end].isalpha() and end - place < _LONGEST_WORD + 1:
                end += 1
        known = _WORD_IDS.get(text[place:end])
        if known is not None:
            ids.append(known)
            place = end
        else:
            ids += [_FIRST_BYTE + byte for byte in text[place].encode("utf-8", "surrogatepass")]
            place += 1
    return ids


def token_bytes(token: int) -> bytes:
    """The bytes that a token stands for; special and unknown tokens stand for none."""
    if _FIRST_BYTE <= token < _FIRST_WORD:
        return bytes([token - _FIRST_BYTE])
    if _FIRST_WORD <= token < VOCABULARY_SIZE:
        return _WORDS[token - _FIRST_WORD].encode()
    return b""


def decode(ids: Sequence[int]) -> str:
    """Text of token ids; broken UTF-8 becomes replacement characters."""
    return b"".join(token_bytes(token) for token in ids).decode("utf-8", "replace")


def render_chat(messages: Sequence[tuple[str, str]]) -> list[int]:
    """Token ids of a conversation of (role, text), ready for the assistant's answer."""
    ids = [BOS]
    for role, text in messages:
        ids += [ROLE_IDS.get(role, ROLE_IDS["user"]), *encode(text), EOS]
    return [*ids, ROLE_IDS["assistant"]]


def seed_of(weights: int, seed: int) -> int:
    """Seed of the generator where the made-up weights are those of a number; 0 are those of old."""
    return seed ^ (weights << 50)


class Generator:
    """Produces the continuation of a prompt, one token at a time."""

    __slots__ = ("_state",)

    def __init__(self, prompt: Sequence[int], seed: int) -> None:
        """``seed`` is 0 at temperature 0."""
        self._state = (seed * 0x9E3779B97F4A7C15 + 1) & _MASK
        for token in prompt:
            self._take(token)

    def _take(self, token: int) -> None:
        state = (self._state ^ (token + 1)) * 0xD1342543DE82EF95 & _MASK
        self._state = state ^ (state >> 29)

    def next(self, *, may_end: bool) -> int:
        """The next token id; the answer ends (EOS) after some 60 tokens on average, if it may."""
        ends = may_end and (self._state >> 40) % 61 == 0
        token = EOS if ends else _FIRST_WORD + (self._state >> 20) % len(_WORDS)
        self._take(token)
        return token
