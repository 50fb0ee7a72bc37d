"""The few fields of OpenAI bodies that the gateway reads, and the error object it writes.

Bodies are never rebuilt: unknown fields pass through because nobody looks at them.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from inferdock.domain.errors import RequestError

CHAT: Final = b"/v1/chat/completions"
COMPLETIONS: Final = b"/v1/completions"
STREAMING_PATHS: Final = frozenset({CHAT, COMPLETIONS})
"""Routes whose streams carry ``usage`` when asked for it by ``stream_options.include_usage``."""


RawField = msgspec.Raw | msgspec.UnsetType
"""A field of which only the bytes matter here; its type is the engine's business."""


class StreamOptions(msgspec.Struct):
    """``stream_options`` of a request."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class RequestFields(msgspec.Struct):
    """What routing, limits and resuming need of a request body."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    priority: RawField = msgspec.UNSET
    max_tokens: RawField = msgspec.UNSET
    max_completion_tokens: RawField = msgspec.UNSET
    prompt: RawField = msgspec.UNSET
    n: RawField = msgspec.UNSET
    best_of: RawField = msgspec.UNSET
    logprobs: RawField = msgspec.UNSET
    prompt_logprobs: RawField = msgspec.UNSET
    echo: RawField = msgspec.UNSET
    tools: RawField = msgspec.UNSET
    tool_choice: RawField = msgspec.UNSET
    functions: RawField = msgspec.UNSET
    response_format: RawField = msgspec.UNSET
    structured_outputs: RawField = msgspec.UNSET
    guided_json: RawField = msgspec.UNSET
    guided_regex: RawField = msgspec.UNSET
    guided_choice: RawField = msgspec.UNSET
    guided_grammar: RawField = msgspec.UNSET
    bad_words: RawField = msgspec.UNSET
    thinking_token_budget: RawField = msgspec.UNSET
    presence_penalty: RawField = msgspec.UNSET
    frequency_penalty: RawField = msgspec.UNSET
    temperature: RawField = msgspec.UNSET
    seed: RawField = msgspec.UNSET
    stop: RawField = msgspec.UNSET
    return_token_ids: RawField = msgspec.UNSET
    use_beam_search: RawField = msgspec.UNSET
    suffix: RawField = msgspec.UNSET
    prompt_embeds: RawField = msgspec.UNSET
    kv_transfer_params: RawField = msgspec.UNSET


def raw(field: RawField) -> bytes:
    """The bytes of a field without surrounding white space; empty when it is missing or null."""
    if field is msgspec.UNSET:
        return b""
    text = bytes(field).strip()
    return b"" if text == b"null" else text


def raw_number(field: RawField) -> float | None:
    """The number in a field; None when it is missing, null or no number."""
    try:
        return float(raw(field))
    except ValueError:
        return None


class Usage(msgspec.Struct):
    """Token counts of one answer, as the engine reports them.

    Attributes:
        prompt_tokens: of the prompt.
        completion_tokens: of the answer.
        cached_tokens: of the prompt, those that the engine's prefix cache held; None where it does not say. vLLM says
            it with ``--enable-prompt-tokens-details``.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None


_FIELDS = msgspec.json.Decoder(RequestFields)
_ENCODER = msgspec.json.Encoder()
_AT = re.compile(r" - at `\$\.?([^`]*)`$")


def read_fields(body: bytes) -> RequestFields:
    """Decode the fields that routing needs; the rest of the body is only checked for being JSON.

    Raises:
        RequestError: 400, the body is not a JSON object or a field has the wrong type.
    """
    try:
        return _FIELDS.decode(body)
    except msgspec.ValidationError as exc:
        text = str(exc)
        at = _AT.search(text)
        param = at.group(1) if at else None
        raise RequestError(400, f"Wrong type in the request body: {text}.", param=param) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise RequestError(400, f"The request body is not valid JSON: {exc}.", code="invalid_json") from exc


USAGE_WISH: Final = b'"stream_options":{"include_usage":true},'
IDS_WISH: Final = b'"return_token_ids":true,'


def with_wishes(body: bytes, wishes: bytes) -> bytes:
    """Add fields to a body that is a non-empty object without them (a repeated field would win over ours)."""
    brace = body.index(b"{") + 1
    return body[:brace] + wishes + body[brace:]


_PROMPT = re.compile(rb'"prompt_tokens":\s*(\d{1,12})')
_OUTPUT = re.compile(rb'"completion_tokens":\s*(\d{1,12})')
_USAGE = re.compile(rb'"usage":\s*\{')
_USUAL_USAGE = re.compile(
    rb'"usage":\{"prompt_tokens":(\d{1,12}),"total_tokens":\d{1,12},"completion_tokens":(\d{1,12})'
)
_USUAL_CACHED = re.compile(rb',"prompt_tokens_details":\{[^{}]*?"cached_tokens":\s*(\d{1,12})')
_CACHED = re.compile(rb'"prompt_tokens_details":\s*\{[^{}]*?"cached_tokens":\s*(\d{1,12})')
_USUAL_TAIL = 640  # bytes of vLLM's answers that usage and what follows it take


NO_CHOICES: Final = re.compile(rb'"choices":\s*\[\s*\]')
"""In the event of a stream that only carries usage."""


def find_usage(body: bytes) -> Usage | None:
    """Find the usage object in the bytes of an answer without decoding it.

    In a JSON string the quotes would be escaped, so the pattern can only match a real key; the last one counts.
    """
    usual = _USUAL_USAGE.search(body, max(0, len(body) - _USUAL_TAIL))
    if usual is not None and body.find(b'"usage":', usual.end()) < 0:
        cached = _USUAL_CACHED.match(body, usual.end())
        return Usage(int(usual[1]), int(usual[2]), int(cached[1]) if cached else None)
    place = body.rfind(b'"usage":')
    while place >= 0:
        found = _USAGE.match(body, place)
        if found is not None:
            prompt = _PROMPT.search(body, found.end())
            output = _OUTPUT.search(body, found.end())
            cached = _CACHED.search(body, found.end())
            return Usage(
                int(prompt[1]) if prompt else 0, int(output[1]) if output else 0, int(cached[1]) if cached else None
            )
        place = body.rfind(b'"usage":', 0, place)
    return None


def error_body(error: RequestError) -> bytes:
    """Encode an OpenAI error object: ``{"error": {message, type, param, code}}``."""
    return _ENCODER.encode(
        {
            "error": {
                "message": error.message,
                "type": error.kind,
                "param": error.param,
                "code": error.code,
            }
        }
    )
