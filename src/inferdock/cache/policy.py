"""Which requests may be answered from the cache at all. Pure.

What is refused here are requests whose answers are not the same each time, that carry more than text, or that want
something in the answer that is not stored. All else, known or not, is allowed, because it is part of the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from inferdock.cache.canonical import REFUSALS, CanonicalRequest

REASONS: Final = (
    *REFUSALS,
    "temperature",
    "choices",
    "tools",
    "media",
    "logprobs",
    "token-ids",
    "prompt-text",
    "echo",
    "continuation",
    "transfer",
    "side-effects",
    "usage",
    "messages",
    "prompt",
    "size",
)
"""All words that say why a request is not cached: labels of a metric and values of a header."""

_NEUTRAL: Final[dict[str, tuple[str, tuple[object, ...]]]] = {
    "n": ("choices", (1,)),
    "best_of": ("choices", (1,)),
    "use_beam_search": ("choices", (False,)),
    "tools": ("tools", ([],)),
    "functions": ("tools", ([],)),
    "tool_choice": ("tools", ("none",)),
    "function_call": ("tools", ("none",)),
    "audio": ("media", ()),
    "modalities": ("media", (["text"],)),
    "prompt_embeds": ("media", ()),
    "logprobs": ("logprobs", (False,)),
    "top_logprobs": ("logprobs", (0,)),
    "prompt_logprobs": ("logprobs", ()),
    "logprob_token_ids": ("logprobs", ([],)),
    "return_token_ids": ("token-ids", (False,)),
    "return_tokens_as_token_ids": ("token-ids", (False,)),
    "return_prompt_text": ("prompt-text", (False,)),
    "echo": ("echo", (False,)),
    "continue_final_message": ("continuation", (False,)),
    "kv_transfer_params": ("transfer", ()),
    "ec_transfer_params": ("transfer", ()),
    "store": ("side-effects", (False,)),
    "web_search_options": ("side-effects", ()),
}
"""Field to the reason why it bars a request, and the values besides null with which it does not."""

_MESSAGE_BARS: Final = {"tool_calls": "tools", "function_call": "tools", "audio": "media"}
_TOOL_ROLES: Final = ("tool", "function")


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """What one model or route may cache.

    Attributes:
        any_temperature: sampled answers too, temperature above 0 or not given.
        semantic: also answer from entries whose last user text only means the same.
        max_messages: longest conversation.
        max_prompt_bytes: largest canonical body.
        max_answer_bytes: largest answer, text and reasoning in UTF-8.
    """

    any_temperature: bool = False
    semantic: bool = True
    max_messages: int = 16
    max_prompt_bytes: int = 64 * 1024
    max_answer_bytes: int = 256 * 1024


def why_not(request: CanonicalRequest, policy: CachePolicy) -> str:
    """Why the cache has nothing to do with this request, one of :data:`REASONS`; "" when it may be cached."""
    if len(request.exact) > policy.max_prompt_bytes:
        return "size"
    body = request.body
    if not policy.any_temperature and not _is_zero(body.get("temperature")):
        return "temperature"
    if request.continuous_usage:
        return "usage"
    return _barring_field(body) or (_chat(body, policy) if request.kind == "chat" else _prompt(body.get("prompt")))


def _is_zero(value: object) -> bool:
    """Exactly 0; no temperature means the engine's default, which samples, and ``false`` is no number."""
    return type(value) in (int, float) and value == 0


def _barring_field(body: Mapping[str, Any]) -> str:
    for name, value in body.items():
        bar = _NEUTRAL.get(name)
        if bar is not None and value is not None and not any(_same(value, neutral) for neutral in bar[1]):
            return bar[0]
    return ""


def _same(value: object, other: object) -> bool:
    """Equal, where ``false`` is not 0: ``logprobs: 0`` wants log-probabilities, ``logprobs: false`` does not."""
    return value == other and (type(value) is bool) is (type(other) is bool)


def _chat(body: Mapping[str, Any], policy: CachePolicy) -> str:
    messages = body.get("messages")
    if type(messages) is not list or not 0 < len(messages) <= policy.max_messages:
        return "messages"
    for message in messages:
        reason = _message(message)
        if reason:
            return reason
    return ""


def _message(message: object) -> str:
    if type(message) is not dict:
        return "messages"
    for name, reason in _MESSAGE_BARS.items():
        if message.get(name):
            return reason
    if message.get("role") in _TOOL_ROLES:
        return "tools"
    content = message.get("content")
    if type(content) is list:
        return "" if all(map(_is_text, content)) else "media"
    return "" if content is None or type(content) is str else "messages"


def _is_text(part: object) -> bool:
    return type(part) is str or (type(part) is dict and part.get("type") == "text" and type(part.get("text")) is str)


def _prompt(prompt: object) -> str:
    """One prompt: a string, its tokens, or a list with one of these."""
    if type(prompt) is list and len(prompt) == 1 and type(prompt[0]) in (str, list):
        prompt = prompt[0]
    if type(prompt) is str:
        return ""
    tokens = type(prompt) is list and bool(prompt) and all(type(token) is int for token in prompt)
    return "" if tokens else "prompt"
