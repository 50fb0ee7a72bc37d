"""Questions about anybody: "how can I" and "how do you" ask for the same as "how to"; likewise "where should we"."""

from __future__ import annotations

_FORMS = {
    "i": {"i": "one", "me": "one", "myself": "oneself", "my": ""},
    "you": {"you": "one", "yourself": "oneself", "your": ""},
    "we": {"we": "one", "us": "one", "ourselves": "oneself", "our": ""},
    "one": {"one's": "", "ones": ""},
}
_OWN = frozenset({"my", "your", "our"})
_ASKS = frozenset({"how", "where", "when", "what"})
_DOES = {"how": ("do", "would"), "where": ("do",)}
_MAY = frozenset({"can", "should", "might", "may", "must", "will"})


def impersonal(words: list[str]) -> list[str]:
    """The same words with "one" for the person who asks, where the question is about anybody; otherwise as they are."""
    subject = _subject(words)
    if subject == "to":
        return [word for word in words if word not in _OWN]
    if subject is None:
        return words
    forms = _FORMS[subject]
    return [changed for word in words if (changed := forms.get(word, word))]


def _subject(words: list[str]) -> str | None:
    for place, word in enumerate(words[:-2]):
        first, second = words[place + 1], words[place + 2]
        if word in _ASKS and second in _FORMS and (first in _MAY or first in _DOES.get(word, ())):
            return second
        if place < 6 and words[0] in _ASKS and first in _MAY and second in _FORMS:
            return second  # "how much milk should I"
        if word == "how" and first == "to":
            return "to"
        if word == "how" and first in _FORMS and second in _MAY:
            return first
        if word in {"way", "ways", "possible"} and first in {"to", "of", "for"}:
            return "to"
    if len(words) > 2 and words[1] in {"i", "we"} and words[0] in {"can", "should"}:
        return words[1]
    return None
