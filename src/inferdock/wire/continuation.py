"""How an answer that lost its replica goes on at another one: which way, and the request that asks for it.

Two ways are exact:

* **continue**: the other replica gets the prompt's token ids followed by the ids that were already answered, as one
  ``/v1/completions`` request. Right for greedy and for unseeded sampling: the model sees what it would have seen.
* **replay**: the other replica gets the same request again, and the text that the client already has is skipped once
  it came out equal. Needed where the engine's state is more than the token ids: a seeded random generator, the
  automaton of structured output, penalties and bans that look at output tokens. Only done where the engine
  reproduces the answer: at temperature 0 or with a seed.

Pure: called by ``gateway.relay`` and tested without a socket.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import msgspec

from inferdock.wire.openai import COMPLETIONS, RequestFields, raw, raw_number
from inferdock.wire.stream_tracker import StreamTracker

COMPLETION_DEFAULT_TOKENS: Final = 16
"""``max_tokens`` of a completion that names none (OpenAI's and vLLM's default)."""

_DROPPED: Final = (
    "messages",
    "prompt",
    "max_completion_tokens",
    "min_tokens",
    "stream_options",
    "echo",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
    "documents",
    "chat_template",
    "chat_template_kwargs",
    "mm_processor_kwargs",
    "media_io_kwargs",
    "reasoning_effort",
    "include_reasoning",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "request_id",
    "truncate_prompt_tokens",
    "response_format",
    "n",
    "best_of",
)
"""Fields of the first request that the continuing one must not repeat: they shaped the prompt, or mean something
else in a completion."""


class ResumeMode(StrEnum):
    """What can be done for a stream whose replica is lost."""

    NONE = "none"
    CONTINUE = "continue"
    REPLAY = "replay"


class NotResumable(Exception):
    """The stream cannot go on exactly; the message says why, in words for the client."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """The request that asks for the rest of an answer.

    Attributes:
        path: route.
        body: JSON.
        ended: nothing is left to ask for; the answer only lacks its end (``body`` is empty).
        replay: the whole answer comes again, from its first token.
    """

    path: bytes
    body: bytes
    ended: bool = False
    replay: bool = False


def resume_mode(fields: RequestFields, path: bytes) -> ResumeMode:
    """Decide, before the first attempt, how a stream of these fields could be resumed."""
    if _shows_more_than_text(fields, path):
        return ResumeMode.NONE
    reproducible = bool(raw(fields.seed)) or raw_number(fields.temperature) == 0
    if _has_hidden_state(fields):
        return ResumeMode.REPLAY if reproducible else ResumeMode.NONE
    if raw(fields.seed) and raw_number(fields.temperature) != 0:
        return ResumeMode.REPLAY
    return ResumeMode.CONTINUE


def _shows_more_than_text(fields: RequestFields, path: bytes) -> bool:
    """Several choices, log-probabilities, tool calls: what a continued text could not carry on."""
    single = (raw(fields.n) or b"1", raw(fields.best_of) or b"1") == (b"1", b"1")
    tools = raw(fields.tools) not in (b"", b"[]") and raw(fields.tool_choice) != b'"none"'
    shown = any(
        raw(field) not in (b"", b"false")
        for field in (fields.logprobs, fields.prompt_logprobs, fields.echo, fields.use_beam_search)
    )
    foreign = any(
        raw(field) not in (b"", b"[]")
        for field in (fields.functions, fields.suffix, fields.prompt_embeds, fields.kv_transfer_params)
    )
    return not single or tools or shown or foreign or (path == COMPLETIONS and _several_prompts(raw(fields.prompt)))


def _several_prompts(prompt: bytes) -> bool:
    return prompt[:1] == b"[" and prompt[1:].lstrip()[:1] in (b'"', b"[")


def _has_hidden_state(fields: RequestFields) -> bool:
    form = raw(fields.response_format).replace(b" ", b"")
    structured = form != b"" and b'"type":"text"' not in form
    guided = (
        fields.structured_outputs,
        fields.guided_json,
        fields.guided_regex,
        fields.guided_choice,
        fields.guided_grammar,
    )
    windows = raw(fields.bad_words) not in (b"", b"[]") or bool(raw(fields.thinking_token_budget))
    penalties = (fields.presence_penalty, fields.frequency_penalty)
    return (
        structured or windows or any(map(raw, guided)) or any(raw_number(field) not in (None, 0) for field in penalties)
    )


def continuation(tracker: StreamTracker, body: bytes, path: bytes, max_model_len: int | None) -> Continuation:
    """Build the request that continues an answer from its token ids; the tracker must be rewound.

    Args:
        tracker: what is known of the answer.
        body: the client's body, as it was sent first.
        path: route that the client used.
        max_model_len: longest prompt plus answer in tokens, None when it is not known.

    Raises:
        NotResumable: it cannot be built.
    """
    if tracker.lost:
        raise NotResumable(tracker.lost)
    if tracker.prompt_ids is None:
        raise NotResumable("the replica gives no token ids")
    request = _decode(body)
    _refuse_media(request)
    left = _tokens_left(request, tracker, path, max_model_len)
    if left is not None and left <= 0:
        return Continuation(COMPLETIONS, b"", ended=True)
    minimum = request.get("min_tokens")
    for name in _DROPPED:
        request.pop(name, None)
    request |= {"stream": True, "return_token_ids": True, "stream_options": {"include_usage": True}}
    if left is not None:
        request["max_tokens"] = left
    if request.get("stop"):
        request["include_stop_str_in_output"] = True  # resumed_stream.StopGuard finds them and takes them out
    if isinstance(minimum, int) and minimum > tracker.count:
        request["min_tokens"] = minimum - tracker.count
    ids = b"".join([tracker.prompt_ids, b",", bytes(tracker.ids)]).strip(b",")
    rest = msgspec.json.encode(request)
    return Continuation(COMPLETIONS, b'{"prompt":[' + ids + b"]," + rest[1:])


def _decode(body: bytes) -> dict[str, Any]:
    try:
        request = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:  # it was decoded before, in part
        raise NotResumable("the request could not be read again") from exc
    if not isinstance(request, dict):
        raise NotResumable("the request could not be read again")
    return request


def _refuse_media(request: dict[str, Any]) -> None:
    """Images and sounds are more than the token ids that stand for them."""
    messages = request.get("messages")
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else []:
            if isinstance(part, dict) and part.get("type", "text") not in ("text", "refusal", "input_text"):
                raise NotResumable("prompts with images or sound cannot be continued")


def _tokens_left(request: dict[str, Any], tracker: StreamTracker, path: bytes, max_model_len: int | None) -> int | None:
    """Tokens that the answer may still have; None when only the engine's own limit is there."""
    asked = request.get("max_completion_tokens")
    asked = request.get("max_tokens") if asked is None else asked
    limits = []
    if isinstance(asked, int | float):
        limits.append(int(asked))
    elif path == COMPLETIONS:
        limits.append(COMPLETION_DEFAULT_TOKENS)
    if max_model_len is not None:
        limits.append(max_model_len - tracker.prompt_count)
    if not limits:
        raise NotResumable("how long the answer may become is not known")
    return min(limits) - tracker.count


@dataclass(frozen=True, slots=True)
class Stops:
    """How a request wants its answer to be ended by text.

    Attributes:
        texts: stop strings.
        shown: the answer includes the one that ended it.
        min_tokens: tokens before which nothing ends it.
    """

    texts: list[str]
    shown: bool
    min_tokens: int


def stops_of(body: bytes) -> Stops:
    """Read the stop strings of a request.

    Raises:
        NotResumable: the body cannot be read.
    """
    request = _decode(body)
    stop, minimum = request.get("stop"), request.get("min_tokens")
    texts = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    return Stops(
        [text for text in texts if isinstance(text, str) and text],
        request.get("include_stop_str_in_output") is True,
        minimum if isinstance(minimum, int) else 0,
    )
