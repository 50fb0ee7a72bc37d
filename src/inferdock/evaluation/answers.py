"""What an engine answered, read from its JSON with nothing believed. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

MAX_TEXT: Final = 100_000
"""Characters of an answer that are kept; scores of longer ones would take minutes."""

_Id = Annotated[int, msgspec.Meta(ge=0, le=1 << 32)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One side's answer to one task.

    Attributes:
        text: what it said, at most :data:`MAX_TEXT` characters.
        finish: the engine's reason for the end, "" if it gave none.
        output_tokens: length by the engine's count, None if it did not say.
        prompt_ids, ids: token ids of prompt and answer, empty where the engine does not give them.
        revision: of the gateway's header, "" from a bare engine.
        seconds: from the request to the end of the answer, without the tries that failed; None where nobody measured.
        error: why there is no answer, "" if there is one.
    """

    text: str = ""
    finish: str = ""
    output_tokens: int | None = None
    prompt_ids: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()
    revision: str = ""
    seconds: float | None = None
    error: str = ""


class MalformedAnswerError(Exception):
    """The engine answered 200 with something that is no answer."""


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    token_ids: tuple[_Id, ...] | None = None
    prompt_token_ids: tuple[_Id, ...] | None = None


class _Usage(msgspec.Struct):
    completion_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None


class _Body(msgspec.Struct):
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: _Usage | None = None
    prompt_token_ids: tuple[_Id, ...] | None = None


_DECODER = msgspec.json.Decoder(_Body)


def read_answer(body: bytes, *, chat: bool, revision: str = "", seconds: float | None = None) -> Answer:
    """Read the body of a chat completion, or of a completion.

    Raises:
        MalformedAnswerError: it is none.
    """
    try:
        whole = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise MalformedAnswerError(f"the answer is not OpenAI's: {exc}") from exc
    choice = whole.choices[0]
    if (choice.message if chat else choice.text) is None:
        raise MalformedAnswerError(f"the answer has no {'message' if chat else 'text'}")
    text = (choice.message.content if choice.message else None) if chat else choice.text
    return Answer(
        text=(text or "")[:MAX_TEXT],
        finish=choice.finish_reason or "",
        output_tokens=whole.usage.completion_tokens if whole.usage else None,
        prompt_ids=whole.prompt_token_ids or choice.prompt_token_ids or (),
        ids=choice.token_ids or (),
        revision=revision,
        seconds=seconds,
    )
