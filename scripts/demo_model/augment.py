"""Varies training questions the way people do: politeness, case, punctuation, synonyms, typing errors, lost words.

The point is that the model learns which words matter. A variant that equals a held-out question is thrown away.
"""

from __future__ import annotations

import random
import re
import string

from scripts.demo_model.intents import normalise

OPENINGS = (
    "Please tell me: ", "Hello, ", "Hi! ", "Quick question: ", "I would like to know: ", "Sorry, but ", "Hey, ",
    "One more thing: ", "Now, ", "OK, ", "Please, ", "Well, ", "And ", "So, ",
)  # fmt: skip
CLOSINGS = (" please", " thanks", " exactly", " in Inferdock", " here", " again", " today", " now")
SYNONYMS = {
    "how do i": ("how can i", "how could i", "how should i", "what do i do to", "how does one", "how to"),
    "how can i": ("how do i", "how to", "is there a way to"),
    "what is": ("what's", "tell me what is", "do you know what is", "explain", "what exactly is", "describe"),
    "what does": ("tell me what does", "what exactly does"),
    "explain": ("describe", "tell me about", "please explain", "can you tell me about", "what is"),
    "define": ("what is", "explain"),
    "which command": ("what command", "which inferdock command"),
    "which": ("what",),
    "start": ("run", "launch", "begin"),
    "run": ("start", "launch"),
    "replicas": ("servers", "model servers"),
    "version": ("revision", "release"),
    "previous": ("last", "earlier", "old"),
    "go back": ("return", "switch back", "get back"),
    "does it": ("does inferdock", "does the platform", "does this"),
    "can i": ("may i", "is it possible to", "could i"),
    "see": ("look at", "check", "show"),
    "model": ("llm", "weights"),
}
_LETTERS = string.ascii_lowercase


def variant(question: str, rng: random.Random, forbidden: set[str]) -> str:
    """Return a random variant of a question, never one whose normal form is in ``forbidden``."""
    for _ in range(8):
        text = _vary(question, rng)
        if normalise(text) and normalise(text) not in forbidden:
            return text
    return question


def _vary(text: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        text = _synonym(text, rng)
    if rng.random() < 0.25 and len(text.split()) > 3:
        text = _lose_word(text, rng)
    if rng.random() < 0.2:
        opening = rng.choice(OPENINGS)
        text = opening + text[0].lower() + text[1:]
    if rng.random() < 0.12:
        text = text.rstrip("?.!") + rng.choice(CLOSINGS) + text[len(text.rstrip("?.!")) :]
    if rng.random() < 0.15:
        text = _typing_error(text, rng)
    return _finish(text, rng)


def _synonym(text: str, rng: random.Random) -> str:
    lower = text.lower()
    found = [phrase for phrase in SYNONYMS if re.search(rf"\b{re.escape(phrase)}\b", lower)]
    if not found:
        return text
    phrase = rng.choice(found)
    changed = re.sub(rf"\b{re.escape(phrase)}\b", rng.choice(SYNONYMS[phrase]), lower, count=1)
    return changed[0].upper() + changed[1:]


def _lose_word(text: str, rng: random.Random) -> str:
    words = text.split()
    small = [i for i, word in enumerate(words) if len(word) <= 4]
    del words[rng.choice(small) if small else rng.randrange(len(words))]
    return " ".join(words)


def _typing_error(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(text))
    kind = rng.randrange(3)
    if kind == 0:
        return text[:place] + text[place + 1 :]
    if kind == 1:
        return text[:place] + rng.choice(_LETTERS) + text[place:]
    return text[:place] + text[place : place + 2][::-1] + text[place + 2 :]


def _finish(text: str, rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.25:
        text = text.lower()
    elif roll < 0.3:
        text = text.upper()
    if rng.random() < 0.25:
        text = text.rstrip("?.!")
    elif rng.random() < 0.1:
        text = text.rstrip("?.!") + rng.choice(("!", "??", ".", " ?"))
    return text
