"""What a request asks, free of how it was written: the bytes that its cache keys are made of. Pure.

Two bodies with equal :attr:`CanonicalRequest.exact` get the same answer from the same model. Keys are sorted at all
levels; of repeated keys the last counts, as for the engine; escapes and white space are gone. Fields that nobody here
knows stay in, because they may change the answer.

Numbers: ``0`` and ``0.0`` are one value in a field of the body itself and in ``logit_bias``. Deeper ones stay as they
were written: a chat template prints ``1.0`` otherwise than ``1``, and a JSON schema's constant may come out as either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from inferdock.cache.entry import Kind
from inferdock.wire.openai import CHAT, COMPLETIONS

KINDS: Final[dict[bytes, Kind]] = {CHAT: "chat", COMPLETIONS: "completion"}

ALIASES: Final = frozenset({"cache", "no_cache", "no_store", "max_age"})
"""Fields of the body that speak to this cache, not to the engine."""

LEFT_OUT: Final = ALIASES | {"stream", "stream_options", "priority", "request_id"}
"""Fields that change how or when an answer comes, and never what it says."""

REFUSALS: Final = ("path", "json", "fields")

_STREAM_OPTIONS = frozenset({"include_usage", "continuous_usage_stats", "include_obfuscation"})
_PLACEHOLDER: Final = msgspec.Raw(b"#")
"""Stands for the last user text in ``rest``. It is no JSON, so no body can hold it: outside of strings there is no
``#``, and in them it has quotes around it."""

_EXACT_FLOATS = 2.0**53
_DECODE = msgspec.json.Decoder().decode
_ENCODE = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True, kw_only=True)
class CanonicalRequest:
    """One request. Its texts are kept out of ``repr``, so that none gets into a log.

    Attributes:
        kind: of which route.
        exact: canonical JSON of the body without :data:`LEFT_OUT`.
        rest: the same without the last user text (and so no JSON); None where ``text`` is.
        text: the last user text, as it came; None when there is no single one that says something: the last message
            is not the user's, has several parts, is blank, or a prompt came as tokens or as a list.
        messages: how many; 0 for a completion.
        max_tokens: most output tokens that were asked for; None when not said.
        stream, include_usage, continuous_usage: in which form the answer is wanted.
        request_id: the client's own, which the engine would put into the answer's ``id``.
        aliased: the body holds one of :data:`ALIASES`.
        body: the decoded body, for :mod:`inferdock.cache.policy`; not to be changed.
    """

    kind: Kind
    exact: bytes = field(repr=False)
    rest: bytes | None = field(repr=False)
    text: str | None = field(repr=False)
    messages: int
    max_tokens: int | None
    stream: bool
    include_usage: bool
    continuous_usage: bool
    request_id: str | None
    aliased: bool
    body: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a body has no canonical form; one of :data:`REFUSALS`. The engine may say more about it."""

    reason: str


def read(body: bytes, path: bytes) -> CanonicalRequest | Refusal:
    """The canonical form of a request's body; never raises.

    Args:
        body: as the client sent it.
        path: of the request, without its query.
    """
    kind = KINDS.get(path)
    if kind is None:
        return Refusal("path")
    try:
        fields = _DECODE(body)
        return _read(fields, kind) if type(fields) is dict else Refusal("json")
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Refusal("json")


def _read(fields: dict[str, Any], kind: Kind) -> CanonicalRequest | Refusal:
    get = fields.get
    stream, options = get("stream"), get("stream_options")
    if not _well_typed(fields, stream, options):
        return Refusal("fields")
    kept = {name: _plain(value) for name, value in fields.items() if name not in LEFT_OUT}
    bias = kept.get("logit_bias")
    if type(bias) is dict:
        kept["logit_bias"] = {token: _plain(value) for token, value in bias.items()}
    exact = _ENCODE(kept)
    rest, text = _without_text(kept, kind)
    messages, limit = get("messages"), get("max_completion_tokens")
    options = options or {}
    return CanonicalRequest(
        kind=kind,
        exact=exact,
        rest=rest,
        text=text,
        messages=len(messages) if kind == "chat" and type(messages) is list else 0,
        max_tokens=_count(limit if limit is not None else get("max_tokens")),
        stream=stream is True,
        include_usage=options.get("include_usage") is True,
        continuous_usage=options.get("continuous_usage_stats") is True,
        request_id=get("request_id"),
        aliased=not ALIASES.isdisjoint(fields),
        body=fields,
    )


def _well_typed(fields: dict[str, Any], stream: object, options: object) -> bool:
    """Whether the fields that are left out are such as the engine takes: an answer must not hide its error."""
    if stream is not None and type(stream) is not bool:
        return False
    if options is not None:
        if type(options) is not dict or stream is not True or not options.keys() <= _STREAM_OPTIONS:
            return False
        if any(value is not None and type(value) is not bool for value in options.values()):
            return False
    priority, request_id = fields.get("priority", 0), fields.get("request_id", "")
    return type(priority) is int and type(request_id) is str


def _plain(value: Any) -> Any:
    """One spelling for equal numbers; beyond 2**53 floats and integers are no longer the same values."""
    if type(value) is float and -_EXACT_FLOATS < value < _EXACT_FLOATS and value.is_integer():
        return int(value)
    return value


def _count(value: object) -> int | None:
    plain = _plain(value)
    return plain if type(plain) is int else None


def _without_text(kept: dict[str, Any], kind: Kind) -> tuple[bytes | None, str | None]:
    """The body without the last user text, and that text; two None where there is no single one."""
    place = _place_of_text(kept, kind)
    if place is None:
        return None, None
    holder, name = place
    text: str = holder[name]
    if not text or text.isspace():
        return None, None
    holder[name] = _PLACEHOLDER
    try:
        return _ENCODE(kept), text
    finally:
        holder[name] = text


def _place_of_text(kept: dict[str, Any], kind: Kind) -> tuple[dict[str, Any], str] | None:
    if kind == "completion":
        return (kept, "prompt") if type(kept.get("prompt")) is str else None
    messages = kept.get("messages")
    last = messages[-1] if type(messages) is list and messages else None
    if type(last) is not dict or last.get("role") != "user":
        return None
    content = last.get("content")
    if type(content) is str:
        return last, "content"
    part = content[0] if type(content) is list and len(content) == 1 else None
    if type(part) is dict and part.get("type") == "text" and type(part.get("text")) is str:
        return part, "text"
    return None
