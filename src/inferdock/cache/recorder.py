"""Makes a :class:`StoredAnswer` of what a replica sent, be it a stream or one body. Never raises, whatever comes.

Only what can be replayed whole is recorded: one complete choice of text (and reasoning), which ended by itself or at
its token limit, and whose usage is known. All else gives None: cut streams, errors, tool calls, log-probabilities, and
any field with a value that nobody here knows. Shapes: vLLM 0.32 (``tests/contract/engine``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from inferdock.cache.entry import Kind, StoredAnswer
from inferdock.wire.sse import EventSplitter, SseError

REASONING_FIELDS: Final = ("reasoning", "reasoning_content")
COMPLETE: Final = ("stop", "length")
"""Finish reasons of whole answers of text."""

_DONE = b"[DONE]"
_EVENT_OVERHEAD = 64 * 1024
"""What an event may have besides text: token ids of a prompt, for one."""

_HEAD = frozenset({"id", "object", "created", "model", "choices", "usage", "system_fingerprint", "metrics"})
_IDS = frozenset({"prompt_token_ids", "token_ids"})
"""Asked for by the gateway itself, for resuming; a request that asks for them is not cached."""
_ANSWER_FIELDS = _HEAD | _IDS
_CHOICE_FIELDS = {
    "delta": frozenset({"index", "delta", "finish_reason", "stop_reason"}) | _IDS,
    "message": frozenset({"index", "message", "finish_reason", "stop_reason"}) | _IDS,
    "text": frozenset({"index", "text", "finish_reason", "stop_reason"}) | _IDS,
}
_MESSAGE_FIELDS = frozenset({"role", "content", *REASONING_FIELDS})
_OBJECTS: Final[dict[Kind, tuple[str, str]]] = {
    "chat": ("chat.completion.chunk", "chat.completion"),
    "completion": ("text_completion", "text_completion"),
}
_DECODE = msgspec.json.Decoder().decode


class Unfit(Exception):
    """What came cannot be stored; the text says why."""


class _Draft:
    """An answer in the making.

    Attributes:
        text, reasoning: pieces so far.
        size: of both, in characters.
    """

    __slots__ = (
        "_kind",
        "_limit",
        "fingerprint",
        "finish_reason",
        "model",
        "reasoning",
        "reasoning_field",
        "size",
        "stop_reason",
        "text",
        "usage",
    )

    def __init__(self, kind: Kind, limit: int) -> None:
        self._kind = kind
        self._limit = limit
        self.model: str | None = None
        self.fingerprint: str | None = None
        self.finish_reason: str | None = None
        self.stop_reason: str | int | None = None
        self.usage: tuple[int, int] | None = None
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.reasoning_field: str | None = None
        self.size = 0

    def take(self, event: object, *, streamed: bool) -> None:
        """Take one event of a stream, or a whole body.

        Raises:
            Unfit: it cannot be stored.
        """
        if type(event) is not dict or event.get("error") is not None:
            raise Unfit("an error")
        _nothing_else(event, _ANSWER_FIELDS)
        if event.get("object") != _OBJECTS[self._kind][0 if streamed else 1]:
            raise Unfit("an object of another kind")
        self._take_head(event)
        choices = event.get("choices")
        if type(choices) is not list or len(choices) > 1 or not (choices or streamed):
            raise Unfit("not one choice")
        for choice in choices:
            self._take_choice(choice, "text" if self._kind == "completion" else "delta" if streamed else "message")
        usage = event.get("usage")
        if usage is not None:
            self.usage = _counts(usage)

    def _take_head(self, event: Mapping[str, Any]) -> None:
        model, fingerprint = event.get("model"), event.get("system_fingerprint")
        if type(model) is not str or self.model not in (None, model):
            raise Unfit("no model, or two")
        self.model = model
        if fingerprint is not None:
            if type(fingerprint) is not str:
                raise Unfit("an unknown fingerprint")
            self.fingerprint = fingerprint

    def _take_choice(self, choice: object, field: str) -> None:
        if type(choice) is not dict or choice.get("index") != 0 or self.finish_reason is not None:
            raise Unfit("another choice than the first, or more after its end")
        _nothing_else(choice, _CHOICE_FIELDS[field])
        if field == "text":
            self._add(choice.get("text", b""), self.text)
        else:
            self._take_message(choice.get(field), whole=field == "message")
        finish, stop = choice.get("finish_reason"), choice.get("stop_reason")
        if finish is not None:
            if finish not in COMPLETE or type(stop) not in (str, int, type(None)):
                raise Unfit("not ended well")
            self.finish_reason, self.stop_reason = finish, stop

    def _take_message(self, message: object, *, whole: bool) -> None:
        if type(message) is not dict:
            raise Unfit("no message")
        role = message.get("role")
        if role != "assistant" and (whole or role is not None):
            raise Unfit("another role")
        if whole and "content" not in message:
            raise Unfit("no content")
        _nothing_else(message, _MESSAGE_FIELDS)
        for name in REASONING_FIELDS:
            if message.get(name) is not None:
                self._take_reasoning(message[name], name)
        self._add(message.get("content"), self.text)

    def _take_reasoning(self, piece: object, name: str) -> None:
        """Reasoning is replayed before the text and under one name, so it must have come like that."""
        if self.reasoning_field not in (None, name) or (piece and any(self.text)):
            raise Unfit("reasoning in another place or under two names")
        self.reasoning_field = name
        self._add(piece, self.reasoning)

    def _add(self, piece: object, pieces: list[str]) -> None:
        if piece is None:
            return
        if type(piece) is not str:
            raise Unfit("text of another type")
        self.size += len(piece)
        if self.size > self._limit:
            raise Unfit("too large")
        pieces.append(piece)

    def answer(self) -> StoredAnswer:
        """The answer, now that all has come.

        Raises:
            Unfit: something is missing.
        """
        if self.model is None or self.finish_reason is None or self.usage is None:
            raise Unfit("not complete")
        text, reasoning = "".join(self.text), "".join(self.reasoning)
        if len(text) * 4 + len(reasoning) * 4 > self._limit and len((text + reasoning).encode()) > self._limit:
            raise Unfit("too large")
        return StoredAnswer(
            kind=self._kind,
            model=self.model,
            text=text,
            finish_reason=self.finish_reason,
            prompt_tokens=self.usage[0],
            output_tokens=self.usage[1],
            reasoning=None if self.reasoning_field is None else reasoning,
            reasoning_field=self.reasoning_field or REASONING_FIELDS[0],
            stop_reason=self.stop_reason,
            system_fingerprint=self.fingerprint,
        )


def _nothing_else(fields: Mapping[str, Any], known: frozenset[str]) -> None:
    """An unknown field bars the answer, unless it says nothing (engines add such fields with each release)."""
    for name, value in fields.items():
        if name not in known and value is not None and value != [] and value != {}:
            raise Unfit(f"the field {name[:40]}")


def _counts(usage: object) -> tuple[int, int]:
    if type(usage) is dict:
        prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if type(prompt) is int and type(output) is int and prompt >= 0 and output >= 0:
            return prompt, output
    raise Unfit("usage that cannot be read")


class StreamRecorder:
    """Follows one stream. It must get the replica's own bytes, with the usage event, which the client may not get.

    Attributes:
        unfit: why the answer will not be stored, "" while it may be.
        complete: all of it has come.
    """

    __slots__ = ("_draft", "_events", "_finished", "unfit")

    def __init__(self, kind: Kind, *, max_bytes: int = 256 * 1024) -> None:
        """``max_bytes``: largest answer that is recorded, text and reasoning in UTF-8."""
        self._draft = _Draft(kind, max_bytes)
        self._events = EventSplitter(max_bytes * 6 + _EVENT_OVERHEAD)  # a control character takes 6 bytes in JSON
        self._finished = False
        self.unfit = ""

    @property
    def complete(self) -> bool:
        return self._finished and not self.unfit

    @property
    def text(self) -> str:
        """What the model wrote so far."""
        return "".join(self._draft.text)

    @property
    def reasoning(self) -> str:
        """What it thought so far."""
        return "".join(self._draft.reasoning)

    def feed(self, data: bytes) -> None:
        """Take payload bytes of the stream, cut anywhere."""
        if self.unfit:
            return
        try:
            payloads = self._events.feed(data)
        except SseError as exc:
            self._give_up(str(exc))
            return
        for payload in payloads:
            self.take(payload)

    def take(self, payload: bytes) -> None:
        """Take the payload of one event, for callers who split the stream anyway."""
        if self.unfit:
            return
        try:
            if self._finished:
                raise Unfit("more after the end")
            if payload == _DONE:
                self._finished = True
            else:
                self._draft.take(_DECODE(payload), streamed=True)
        except Unfit as exc:
            self._give_up(str(exc))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self._give_up("an event that cannot be read")

    def _give_up(self, reason: str) -> None:
        self.unfit = reason
        self._draft.text.clear()
        self._draft.reasoning.clear()

    def answer(self) -> StoredAnswer | None:
        """The whole answer; None unless the stream is complete and can be replayed as it was."""
        if not self.complete:
            return None
        try:
            return self._draft.answer()
        except (Unfit, UnicodeEncodeError):
            return None


def record_body(kind: Kind, body: bytes, *, max_bytes: int = 256 * 1024) -> StoredAnswer | None:
    """The answer in a JSON body; None where it is not complete or cannot be replayed as it was."""
    draft = _Draft(kind, max_bytes)
    try:
        draft.take(_DECODE(body), streamed=False)
        return draft.answer()
    except (Unfit, msgspec.MsgspecError, ValueError, RecursionError):
        return None
