"""What stands in front of a question or a task and asks for it: "could you please tell me", "I would like to know"."""

from __future__ import annotations

from inferdock.cache.guard.words import listed

_TASKS = listed(
    """
    help tell explain suggest recommend translate give show list share provide find solve write describe
    define name  advise answer make create send check review summarize compare calculate generate fix
    clarify draft
    """
)
_ASKS = listed("what how why where who when whose")
_SOMEBODY = listed("you someone somebody anyone anybody")
_LIKE_TO_KNOW = (
    ("i", "want", "to", "know"),
    ("i", "need", "to", "know"),
    ("i", "would", "like", "to", "know"),
    ("let", "me", "know"),
)
_WANT_YOU = (("i", "want", "you", "to"), ("i", "need", "you", "to"), ("i", "would", "like", "you", "to"))


def without_request(words: list[str]) -> list[str]:
    """The words without the request before them, or an "or not" behind; "can you swim" is no request."""
    rest = [word for word in words[:3] if word != "please"] + words[3:]
    if rest[-2:] == ["or", "not"]:
        del rest[-2:]
    if len(rest) > 3 and rest[0] in {"can", "will", "would"} and rest[1] in _SOMEBODY:
        task = rest[3:] if rest[2] == "please" else rest[2:]
        if task[0] in _TASKS:
            rest = task
    rest = next(
        (rest[len(start) :] for start in _WANT_YOU if tuple(rest[: len(start)]) == start and _is_task(rest, start)),
        rest,
    )
    return _without_opinion(_without_tell_me(rest))


def _is_task(words: list[str], start: tuple[str, ...]) -> bool:
    return len(words) > len(start) and words[len(start)] in _TASKS


def _without_tell_me(words: list[str]) -> list[str]:
    if len(words) > 3 and words[0] in {"tell", "show"} and words[1] in {"me", "us"} and words[2] in _ASKS:
        return words[2:]
    if (
        len(words) > 4
        and words[0] == "do"
        and words[1] in {"you", "anyone"}
        and words[2] == "know"
        and words[3] in _ASKS
    ):
        return words[3:]
    if len(words) > 4 and words[:2] == ["does", "anyone"] and words[2] == "know" and words[3] in _ASKS:
        return words[3:]
    for start in _LIKE_TO_KNOW:
        if tuple(words[: len(start)]) == start and len(words) > len(start) + 1 and words[len(start)] in _ASKS:
            return words[len(start) :]
    return words


def _without_opinion(words: list[str]) -> list[str]:
    """ "Who do you think will win" is "who will win"; "in what ways" is "how"."""
    if words[:2] == ["in", "what"] and words[2:3] in (["way"], ["ways"]):
        return ["how", *words[3:]]
    if (
        words[:1] in (["what"], ["who"], ["where"], ["when"])
        and words[1:4] == ["do", "you", "think"]
        and len(words) > 5
    ):
        return words if words[4] in {"about", "of", "on"} else [words[0], *words[4:]]
    return words
