"""Makes many questions out of few: frames, synonyms, polite openings, case, typing errors, lost words.

Questions that differ only by synonyms, openings, closings, case and punctuation have the same canonical
form; without small words it is their skeleton. A variant with the skeleton of a held-out question is thrown
away, so measuring never meets a trained question.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Iterable, Iterator

from scripts.demo_model.intents import OFF_TOPIC, Corpus, Intent

TOPIC_FRAMES = (
    "What is {}?", "What is {}?", "What does {} do?", "What does {} mean?", "Explain {}.",
    "Tell me about {}.", "Can you explain {}?", "Describe {}.", "How does {} work?",
    "What do you mean by {}?", "What is {} for?", "Tell me more about {}.", "What can you tell me about {}?",
    "I have a question about {}.", "Define {}.", "What do I need to know about {}?",
    "I do not understand {}.", "What exactly is {}?", "{}", "{}?", "Could you explain {} to me?",
    "What is meant by {}?", "Why {}?", "What about {}?", "Does Inferdock have {}?",
)  # fmt: skip
DEED_FRAMES = (
    "How do I {}?", "How do I {}?", "How do I {}?", "How can I {}?", "How to {}?", "How should I {}?",
    "How could I {}?", "I want to {}.", "I need to {}.", "I would like to {}.",
    "Which command do I use to {}?", "What do I type to {}?", "What is the command to {}?",
    "Can you tell me how to {}?", "Show me how to {}.", "Is there a way to {}?", "{}", "Can I {}?",
    "Please {}.", "Help me to {}.", "What is the best way to {}?", "What do I have to do to {}?",
    "How would I {}?", "I am trying to {}.", "How does one {}?", "Is it possible to {}?",
    "What are the steps to {}?", "Which command lets me {}?", "What must I run to {}?",
    "Do you know how to {}?", "We have to {}.", "Let me {}.", "How do you {}?",
    "What do I run if I want to {}?", "How do we {}?", "Where do I {}?", "May I {}?",
)  # fmt: skip
POSSIBILITY_FRAMES = (
    "Can it {}?", "Can Inferdock {}?", "Does it {}?", "Does Inferdock {}?", "Is Inferdock able to {}?",
    "Is it possible to {}?", "Will it {}?", "I wonder if it can {}.", "Could it {}?", "Would Inferdock {}?",
    "Do you know if it can {}?", "Does the platform {}?", "Is it true that it can {}?", "Can I make it {}?",
)  # fmt: skip
OPENINGS = (
    "please", "please tell me", "hello", "hi", "hey", "ok", "okay", "so", "well", "sorry", "quick question",
    "and", "now", "also", "excuse me", "one more thing", "I have a question", "another question", "tell me",
    "good morning", "dear model", "my boss wants to know", "a colleague asked", "I am new here",
    "just wondering", "thanks", "great", "alright", "but", "I was asked", "for my team", "I am curious",
    "next question", "I am confused", "sorry to bother you", "in short",
)  # fmt: skip
CLOSINGS = (
    "please", "thanks", "thank you", "in Inferdock", "here", "again", "now", "today", "then", "exactly",
    "with Inferdock", "for me", "in short", "quickly", "by the way", "if I may ask", "on my machine",
    "in production",
)  # fmt: skip
SMALL_WORDS = frozenset(
    ("a", "an", "the", "do", "i", "is", "to", "of", "my", "me", "does", "it", "you", "are")
)
_COMMANDS = (
    "up|status|ask|doctor|model|release|eval|bench|simulate|plan|cost"
    "|keys|render|install|verify|sim|config|demo"
)
# Each line: phrases that may stand for one another. The first is the canonical one.
SYNONYMS = (
    ("what is", "what's", "whats"),
    ("do not", "don't", "dont"),
    ("i would like", "i'd like"),
    ("inferdock", "the platform", "the system", "this platform", "this tool"),
    ("previous", "earlier", "old", "prior", "former"),
    ("start", "launch", "boot"),
    ("stop", "halt"),
    ("show", "display"),
    ("upload", "push"),
    ("create", "generate"),
    ("delete", "remove"),
    ("see", "view", "look at"),
    ("version", "revision"),
    ("versions", "revisions"),
    ("fast", "quick"),
    ("kubernetes", "k8s"),
    ("configuration", "config"),
    ("settings", "options"),
    ("setting", "option"),
    ("laptop", "notebook"),
    ("terminal", "command line", "shell"),
    ("turn off", "switch off", "disable"),
    ("turn on", "switch on", "enable"),
    ("need", "require"),
    ("large", "big"),
    ("happens", "occurs"),
    ("folder", "directory"),
    ("machine", "computer"),
    ("address", "url"),
    ("find out", "learn"),
    ("measure", "determine"),
    ("change", "modify", "alter"),
    ("use", "employ"),
    ("release", "deployment"),
    ("replicas", "model servers"),
    ("answer", "reply", "response"),
    ("answers", "replies", "responses"),
    ("deploy", "roll out"),
    ("new", "newer"),
    ("get", "obtain"),
    ("list", "enumerate"),
    ("check", "inspect"),
)
_CANONICAL = {phrase: group[0] for group in SYNONYMS for phrase in group}
_GROUP_OF = {phrase: group for group in SYNONYMS for phrase in group}
# Not inside a command such as `inferdock release`, a flag or a path.
_PHRASE = re.compile(
    rf"(?<![-`/.\w])({'|'.join(sorted(map(re.escape, _CANONICAL), key=len, reverse=True))})"
    rf"(?![-/\w']|\.\w| (?:{_COMMANDS})\b)",
    re.IGNORECASE,
)
_TRIES = 8


def normalise(question: str) -> str:
    """Lower case, words and digits only."""
    return " ".join(re.findall(r"[a-z0-9']+", question.lower()))


_OPENINGS = tuple(sorted((normalise(o) + " " for o in OPENINGS), key=len, reverse=True))
_CLOSINGS = tuple(sorted((" " + normalise(c) for c in CLOSINGS), key=len, reverse=True))


def canonical(question: str) -> str:
    """The form that all variants without typing errors and lost words share."""
    text = normalise(question)
    while opening := next((o for o in _OPENINGS if text.startswith(o)), ""):
        text = text.removeprefix(opening)
    while closing := next((c for c in _CLOSINGS if text.endswith(c)), ""):
        text = text.removesuffix(closing)
    return _PHRASE.sub(lambda match: _CANONICAL[match[1].lower()], text)


def skeleton(question: str) -> str:
    """The canonical form without small words, which a variant may lose."""
    words = canonical(question).split()
    return " ".join(word for word in words if word not in SMALL_WORDS) or " ".join(words)


def every_question(corpus: Corpus) -> Iterator[tuple[str, str]]:
    """All (intent name, question) that frames, words and whole questions give."""
    for intent in corpus.intents:
        for frames, phrases in _framed(intent):
            yield from ((intent.name, frame.format(phrase)) for phrase in phrases for frame in frames)
        yield from ((intent.name, question) for question in intent.questions)
    for frame in corpus.off_topic_frames:
        yield from ((OFF_TOPIC, frame.replace("WORD", word)) for word in corpus.off_topic_words)


def held_out_skeletons(intents: Iterable[Intent]) -> frozenset[str]:
    """Skeletons that training must never produce."""
    return frozenset(skeleton(question) for intent in intents for question in intent.held_out)


def random_question(corpus: Corpus, intent: Intent, rng: random.Random) -> str:
    """A question that leads to the intent: a whole one, or a phrase in a random frame."""
    if intent.name == OFF_TOPIC and rng.random() < 0.7:
        return rng.choice(corpus.off_topic_frames).replace("WORD", rng.choice(corpus.off_topic_words))
    choices = [(("{}",), intent.questions), *_framed(intent)]
    # A phrase stands for many questions, so it comes up more often than one whole question.
    weights = [len(phrases) * (1.0 if frames == ("{}",) else 1.5) for frames, phrases in choices]
    frames, phrases = rng.choices(choices, weights)[0]
    return rng.choice(frames).replace("{}", rng.choice(phrases))


def variant(question: str, rng: random.Random, forbidden: frozenset[str]) -> str:
    """A random variant of a question, never one whose skeleton is in ``forbidden``."""
    for _ in range(_TRIES):
        text = _mistakes(reworded(question, rng), rng)
        if normalise(text) and skeleton(text) not in forbidden:
            return text
    return question


def reworded(question: str, rng: random.Random) -> str:
    """A random variant with the same canonical form."""
    text = _PHRASE.sub(lambda match: _synonym(match[1], rng), question)
    if rng.random() < 0.25:
        opening = rng.choice(OPENINGS)
        text = opening[0].upper() + opening[1:] + rng.choice((", ", ": ", " ")) + text[0].lower() + text[1:]
    if len(question.split()) > 2 and rng.random() < 0.15:
        text = text.rstrip("?.!") + " " + rng.choice(CLOSINGS) + text[len(text.rstrip("?.!")) :]
    return _dressed(text, rng)


def _framed(intent: Intent) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    pairs = [
        (TOPIC_FRAMES, intent.topics),
        (DEED_FRAMES, intent.deeds),
        (POSSIBILITY_FRAMES, intent.possibilities),
    ]
    return [(frames, phrases) for frames, phrases in pairs if phrases]


def _synonym(phrase: str, rng: random.Random) -> str:
    if rng.random() < 0.6:
        return phrase
    chosen = rng.choice(_GROUP_OF[phrase.lower()])
    return chosen[0].upper() + chosen[1:] if phrase[0].isupper() else chosen


def _dressed(text: str, rng: random.Random) -> str:
    """Other case and other punctuation at the end."""
    roll = rng.random()
    if roll < 0.3:
        text = text.lower()
    elif roll < 0.33:
        text = text.upper()
    elif roll < 0.6:
        text = text[0].upper() + text[1:]
    bare = text.rstrip("?.!")
    roll = rng.random()
    if roll < 0.25:
        return bare
    return bare + rng.choice(("!", "??", ".", " ?", "?", "...")) if roll < 0.4 else text


def _mistakes(text: str, rng: random.Random) -> str:
    """Lost small words and typing errors."""
    if rng.random() < 0.2:
        words = [word for word in text.split() if word.lower() not in SMALL_WORDS or rng.random() < 0.5]
        text = " ".join(words) or text
    for _ in range(rng.choice((0, 0, 0, 0, 0, 1, 1, 2))):
        text = _typing_error(text, rng)
    return text


def _typing_error(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(text)) if text else 0
    kind = rng.randrange(3)
    if kind == 0 and len(text) > 1:
        return text[:place] + text[place + 1 :]
    if kind == 1:
        return text[:place] + rng.choice(string.ascii_lowercase) + text[place:]
    return text[:place] + text[place : place + 2][::-1] + text[place + 2 :]
