"""Questions of one meaning whose words stand in another order: one order is taken for all."""

from __future__ import annotations

from inferdock.cache.guard.words import TIMES

_ASKS_FOR_THINGS = frozenset({"what", "who", "where"})
_SUBJECTS = frozenset({"i", "you", "we", "one", "people", "they"})
_SUPERLATIVES = frozenset({"most", "best", "worst", "favorite"})


def arranged(tokens: list[str]) -> list[str]:
    """The tokens of a prompt in the order, and in the words, that stand for all of its kind."""
    if tokens[-1:] == ["why"] and len(tokens) > 2:
        tokens[-2 if tokens[-2] == "and" else -1 :] = ["andwhy"]  # an answer gives its reasons anyway
    if tokens[:2] == ["howto", "be"]:
        tokens[1] = "become"
    if tokens[:3] == ["howto", "make", "oneself"]:
        tokens[1:3] = ["become"]
    if tokens[:2] == ["can", "one"]:
        tokens[:2] = ["isway"]
    if len(tokens) > 2 and tokens[1] in _SUBJECTS and tokens[2] in TIMES:
        tokens[1:3] = [tokens[2], tokens[1]]  # "why we should"
    if not _SUPERLATIVES.isdisjoint(tokens):
        tokens = _of_experience(tokens)
    tokens = _compared(_asking_what(tokens))
    if tokens[:1] and tokens[0] in _ASKS_FOR_THINGS:
        return _question([*("best" if token == "good" else token for token in tokens[:4]), *tokens[4:]])
    if tokens[:2] == ["howmuch", "do"] and tokens[-1] == "price":
        return ["costof", *tokens[2:-1]]
    return tokens


def _asking_what(tokens: list[str]) -> list[str]:
    """ "When is the best time", "where is the best place" and "who is your favorite" ask what it is."""
    head = tokens[:2]
    if (head == ["when", "be"] and "time" in tokens) or (head == ["where", "be"] and "place" in tokens):
        return ["what", *tokens[1:]]
    return ["what", *tokens[1:]] if head == ["who", "be"] and "favorite" in tokens else tokens


def _compared(tokens: list[str]) -> list[str]:
    """ "How is A different from B" as "what is the difference between A and B"."""
    if tokens[:1] != ["how"] or tokens[1:2] not in (["be"], ["do"]):
        return tokens
    for pair in (["different", "from"], ["differ", "from"], ["different", "than"]):
        for place in range(2, len(tokens) - 2):
            if tokens[place : place + 2] == pair:
                return ["what", "be", "difference", "between", *tokens[2:place], "and", *tokens[place + 2 :]]
    return tokens


def _of_experience(tokens: list[str]) -> list[str]:
    """ "What was the best you have seen" is "what is the best you saw"; what is liked best is always one's own."""
    if "favorite" in tokens:
        tokens = [token for token in tokens if token != "your"]
    if "you" not in tokens:
        return tokens
    tokens = [
        token for place, token in enumerate(tokens) if not (token == "have" and place and tokens[place - 1] == "you")
    ]
    return [*tokens[:1], "be", *tokens[2:]] if tokens[1:2] == ["was"] else tokens


def _question(tokens: list[str]) -> list[str]:
    """ "What X is best" as "what is the best X"; "what does X mean" as "meaning of X"."""
    if tokens[:2] == ["what", "do"] and tokens[-1] == "mean" and len(tokens) > 3:
        return ["meaning", "of", *tokens[2:-1]]
    if tokens[-2:] == ["used", "for"] and tokens[1:2] == ["be"] and len(tokens) > 4:
        return ["what", "be", "use", "of", *tokens[2:-2]]
    if tokens[:3] == ["what", "be", "improve"]:  # "which is better"
        tokens = ["or" if token == "vs" else token for token in tokens]
    if tokens[0] == "where":
        tokens = ["find" if token == "get" else token for token in tokens]
    for place in range(2, min(len(tokens) - 1, 7)):
        if tokens[place : place + 2] == ["be", "best"] and not {"be", "do", "that"}.intersection(tokens[1:place]):
            return [tokens[0], "be", "best", *tokens[1:place], *tokens[place + 2 :]]
    return tokens
