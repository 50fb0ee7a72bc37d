"""A client that shared the answer of a generation which died: it goes on with a second one, from where it was. Pure.

The second generation begins anew. What the client has already is taken out of its events, and their ``id``, time and
model become those of the first. At temperature 0 both say the same, but for ties between tokens; where they part, the
client cannot go on.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from inferdock.cache.entry import Kind
from inferdock.cache.recorder import REASONING_FIELDS

_SHARED: Final = ("id", "object", "created", "model")
_DECODE = msgspec.json.Decoder().decode
_ENCODE = msgspec.json.Encoder().encode


class Differs(Exception):
    """The second generation does not begin with what the client has."""


class Skipping:
    """The second generation, as one client gets it."""

    __slots__ = ("_head", "_kind", "_reasoning", "_text")

    def __init__(self, kind: Kind, *, first: bytes, text: str, reasoning: str = "") -> None:
        """What the client has.

        Args:
            kind: of the answer.
            first: payload of the first event that it got; empty when it got none.
            text, reasoning: all that the events so far said.

        Raises:
            Differs: the first event cannot be read.
        """
        self._kind = kind
        self._text = text
        self._reasoning = reasoning
        head = _read(first) if first else {}
        self._head = {name: head[name] for name in _SHARED if name in head}

    @property
    def behind(self) -> bool:
        """The generation has not yet come to where the client is."""
        return bool(self._text or self._reasoning)

    def take(self, payload: bytes) -> bytes:
        """Take the payload of the next event; return that of the one that the client gets, empty for none.

        Raises:
            Differs: see the class.
        """
        if not self._head:
            return payload
        if payload == b"[DONE]":
            self._must_be_there()
            return payload
        event = _read(payload)
        if event.get("error") is not None:
            return payload
        choices = event.get("choices")
        if choices:
            if type(choices) is not list or len(choices) > 1 or type(choices[0]) is not dict:
                raise Differs("the second answer has another form")
            if not self._trim(choices[0]):
                return b""
        return _ENCODE(event | self._head)

    def _trim(self, choice: dict[str, Any]) -> bool:
        """Take out what the client has; whether anything is left to say."""
        holder = choice.get("delta") if self._kind == "chat" else choice
        if type(holder) is not dict:
            raise Differs("the second answer has another form")
        holder.pop("role", None)
        for name in REASONING_FIELDS:
            if holder.get(name):
                holder[name], self._reasoning = _rest(holder[name], self._reasoning)
        name = "content" if self._kind == "chat" else "text"
        if holder.get(name):
            if self._reasoning:
                raise Differs("the second answer has less reasoning")
            holder[name], self._text = _rest(holder[name], self._text)
        if choice.get("finish_reason") is not None:
            self._must_be_there()
            return True
        return any(holder.get(field) for field in (name, *REASONING_FIELDS, "tool_calls"))

    def _must_be_there(self) -> None:
        if self.behind:
            raise Differs("the second answer is shorter")


def _rest(piece: object, known: str) -> tuple[str, str]:
    """What of a piece is new, and what of the known text is still to come."""
    if type(piece) is not str:
        raise Differs("the second answer has another form")
    shared = min(len(piece), len(known))
    if piece[:shared] != known[:shared]:
        raise Differs("the second answer has other words")
    return piece[shared:], known[shared:]


def _read(payload: bytes) -> dict[str, Any]:
    try:
        event = _DECODE(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise Differs("an event cannot be read") from exc
    if type(event) is not dict:
        raise Differs("an event cannot be read")
    return event
