"""Reads the folder ``data``: what the demo model is taught and measured on. Format: its README."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

DATA = Path(__file__).with_name("data")
INTENT_FILES = ("about", "smalltalk", "running", "releases", "serving", "operations")
OFF_TOPIC = "off_topic"
SEPARATOR = " | "


@dataclass(frozen=True)
class Intent:
    """One thing the model knows.

    Attributes:
        name: identifier.
        answer: the one right answer.
        topics: what "What is ...?" is asked about.
        deeds: what "How do I ...?" is asked about.
        possibilities: what "Can Inferdock ...?" is asked about.
        questions: whole questions.
        held_out: questions that it is only measured on.
    """

    name: str
    answer: str
    topics: tuple[str, ...] = ()
    deeds: tuple[str, ...] = ()
    possibilities: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Corpus:
    """Everything in the folder.

    Attributes:
        intents: in the order of the files.
        off_topic_frames: questions about anything else with the place ``WORD``.
        off_topic_words: what stands in that place.
        system_prompts: come before some conversations.
        completions: plain text.
    """

    intents: tuple[Intent, ...]
    off_topic_frames: tuple[str, ...]
    off_topic_words: tuple[str, ...]
    system_prompts: tuple[str, ...]
    completions: tuple[str, ...]


@dataclass
class _Draft:
    name: str
    answer: str = ""
    lists: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in "TDPQH"})

    def finish(self, file: str) -> Intent:
        texts = {kind: tuple(entries) for kind, entries in self.lists.items()}
        if not self.answer or not texts["H"] or not (texts["Q"] or texts["T"] or texts["D"]):
            raise ValueError(f"{file}: [{self.name}] lacks an answer, a question or a held-out question")
        return Intent(self.name, self.answer, texts["T"], texts["D"], texts["P"], texts["Q"], texts["H"])


def read_corpus(folder: Path = DATA) -> Corpus:
    """Read all files.

    Raises:
        ValueError: a line has no known form, an intent is incomplete or occurs twice; names file and line.
        OSError: a file cannot be read.
    """
    intents = [intent for name in INTENT_FILES for intent in _read_intents(folder / f"{name}.txt")]
    names = [intent.name for intent in intents]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"defined twice: {', '.join(twice)}")
    return Corpus(
        intents=tuple(intents),
        off_topic_frames=tuple(_lines(folder / "off_topic_frames.txt")),
        off_topic_words=tuple(
            w for line in _lines(folder / "off_topic_words.txt") for w in line.split(SEPARATOR)
        ),
        system_prompts=tuple(_lines(folder / "system_prompts.txt")),
        completions=tuple(_lines(folder / "completions.txt")),
    )


def _read_intents(path: Path) -> list[Intent]:
    drafts: list[_Draft] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("[") and text.endswith("]"):
            drafts.append(_Draft(text[1:-1]))
            continue
        kind, _, value = text.partition(": ")
        if not drafts or kind not in ("A", *"TDPQH") or not value:
            raise ValueError(
                f"{path.name}, line {number}: expected `[name]` or one of A, T, D, P, Q, H with `: `"
            )
        if kind == "A":
            drafts[-1].answer = value
        else:
            drafts[-1].lists[kind] += value.split(SEPARATOR)
    return [draft.finish(path.name) for draft in drafts]


def _lines(path: Path) -> list[str]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]
