"""What an answer says, read from its bytes, and how two answers to the same request differ. Pure.

Kinds, the first that applies:

* ``status``: one was refused, the other was not.
* ``unreadable``: the copy's answer is no answer of the OpenAI API.
* ``tool_call``: other tools are called, or with other arguments.
* ``refusal``: one refuses, the other does not.
* ``length``: one is the beginning of the other, or less than half as long.
* ``text``: anything else.
* ``equal``: they say the same, byte for byte.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import msgspec

from inferdock.domain.refusals import refuses
from inferdock.wire.sse import EventSplitter, SseError

EQUAL: Final = "equal"
NOT_COMPARED: Final = "not_compared"
KINDS: Final = (EQUAL, "status", "unreadable", "tool_call", "refusal", "length", "text", NOT_COMPARED)
_MAX_CHOICES: Final = 128
_DONE: Final = b"[DONE]"


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: int | None = None
    function: _Function | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    text: str | None = None
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None


class _Part(msgspec.Struct):
    choices: list[_Choice] = []
    error: Any = None


_DECODE = msgspec.json.Decoder(_Part).decode


class Choice:
    """One of an answer's texts, as far as it is known."""

    __slots__ = ("_pieces", "_refusal", "_thoughts", "calls", "finished")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._thoughts: list[str] = []
        self._refusal: list[str] = []
        self.calls: dict[int, list[str]] = {}
        self.finished = False

    def add(self, part: _Choice) -> None:
        """Take what one event, or a whole answer, says."""
        self.finished = self.finished or part.finish_reason is not None
        self._pieces.append(part.text or "")
        message = part.message or part.delta
        if message is None:
            return
        self._pieces.append(message.content or "")
        self._thoughts.append(message.reasoning_content or message.reasoning or "")
        self._refusal.append(message.refusal or "")
        for place, call in enumerate(message.tool_calls or ()):
            said = self.calls.setdefault(call.index if call.index is not None else place, ["", ""])
            if call.function is not None:
                said[0] += call.function.name or ""
                said[1] += call.function.arguments or ""

    @property
    def text(self) -> str:
        """What was thought and said."""
        return "".join((*self._thoughts, *self._pieces))

    @property
    def refuses(self) -> bool:
        """It says so, or it reads so."""
        return any(self._refusal) or refuses("".join(self._pieces))


class Said:
    """Reads one answer, in pieces of any size.

    Attributes:
        choices: by index.
        events: of a stream that carried something.
        problem: why it is no whole answer; "" while nothing is wrong with it.
    """

    __slots__ = ("_body", "_splitter", "choices", "events", "problem")

    def __init__(self, *, stream: bool) -> None:
        self._splitter = EventSplitter() if stream else None
        self._body = bytearray()
        self.choices: dict[int, Choice] = {}
        self.events = 0
        self.problem = ""

    def feed(self, data: bytes) -> None:
        """Take bytes of the body, without framing."""
        if self._splitter is None:
            self._body += data
            return
        try:
            for payload in self._splitter.feed(data):
                if payload != _DONE:
                    self._take(payload)
        except SseError as exc:
            self.problem = str(exc)

    def end(self) -> None:
        """There is no more."""
        if self._splitter is None:
            self._take(bytes(self._body))
        if not self.problem and not (self.choices and all(choice.finished for choice in self.choices.values())):
            self.problem = "it has no end"

    def _take(self, payload: bytes) -> None:
        try:
            part = _DECODE(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            self.problem = self.problem or f"it is no answer: {type(exc).__name__}"
            return
        if part.error is not None:
            self.problem = "it holds an error"
        self.events += bool(part.choices)
        for choice in part.choices:
            if len(self.choices) < _MAX_CHOICES or choice.index in self.choices:
                self.choices.setdefault(choice.index, Choice()).add(choice)


class Answered(Protocol):
    """An answer with its status."""

    status: int
    said: Said


def difference(client: Answered, copy: Answered, *, comparable: bool) -> str:
    """How the copy's answer differs from the client's.

    Args:
        client: what the client got.
        copy: what the other revision answered.
        comparable: the same model would have answered the same again.
    """
    if (client.status >= 400) is not (copy.status >= 400):
        return "status"
    if client.status >= 400 or not comparable or client.said.problem:
        return NOT_COMPARED
    if copy.said.problem:
        return "unreadable"
    mine, theirs = client.said.choices, copy.said.choices
    if mine.keys() != theirs.keys():
        return "length"
    kinds = [_between(mine[index], theirs[index]) for index in mine]
    return min(kinds, key=KINDS[1:].index) if (kinds := [kind for kind in kinds if kind != EQUAL]) else EQUAL


def _between(mine: Choice, theirs: Choice) -> str:
    if _calls(mine) != _calls(theirs):
        return "tool_call"
    a, b = mine.text, theirs.text
    if a == b and mine.refuses is theirs.refuses:
        return EQUAL
    if mine.refuses is not theirs.refuses:
        return "refusal"
    short, long = sorted((a, b), key=len)
    return "length" if long.startswith(short) or 2 * len(short) < len(long) else "text"


def _calls(choice: Choice) -> list[tuple[str, Any]]:
    return [(name, _arguments(text)) for _, (name, text) in sorted(choice.calls.items())]


def _arguments(text: str) -> Any:
    """Spelling is no difference."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return text
