"""Writes a stored answer as vLLM 0.32 would: as one JSON body, or as the events of a stream. Pure.

One entry serves both. Only ``usage`` tells that it comes from the cache: ``response_cached`` is true, and all tokens of
the prompt count as cached.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from inferdock.cache.entry import StoredAnswer

DONE: Final = b"data: [DONE]\n\n"

MAX_PIECE: Final = 8192
"""Characters of text in one event: with the worst escapes it stays below 64 KiB, a common limit of lines at clients."""

_WORD = re.compile(r"\s*\S{1,24}\s*|\s+")
"""A word, or 24 characters of a longer one: scripts without spaces have nothing else where they may be cut."""
_ENCODE = msgspec.json.Encoder().encode


def json_body(answer: StoredAnswer, *, request_id: bytes, created: int) -> bytes:
    """The answer as one body.

    Args:
        answer: what is in the cache.
        request_id: of the request that gets it; the answer's ``id`` is made of it.
        created: seconds since 1970.
    """
    head = _head(answer, request_id, created, streamed=False)
    tail = {
        "service_tier": None,
        "system_fingerprint": answer.system_fingerprint,
        "usage": _usage(answer, whole=True),
    }
    end = {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None}
    if answer.kind == "chat":
        end = {"prompt_logprobs": None, "prompt_token_ids": None, "prompt_text": None} | end
    return _ENCODE(head | {"choices": [_whole_choice(answer)]} | tail | end)


def events(answer: StoredAnswer, *, request_id: bytes, created: int, include_usage: bool) -> list[bytes]:
    """The answer as a stream, in as few events as there can be.

    Args:
        answer, request_id, created: as in :func:`json_body`.
        include_usage: with the event that tells the usage.
    """
    return _stream(answer, request_id, created, MAX_PIECE, include_usage=include_usage)


def paced(
    answer: StoredAnswer, *, request_id: bytes, created: int, include_usage: bool, pieces: int | None = None
) -> list[bytes]:
    """The answer as a stream of many events, cut between words, for a caller that sends them one after the other.

    ``pieces``: about how many of them carry text; default: as many as the answer has tokens. Other arguments as in
    :func:`events`.
    """
    size = len(answer.text) + len(answer.reasoning or "")
    per_piece = size / max(1, answer.output_tokens if pieces is None else pieces)
    return _stream(answer, request_id, created, max(1, min(MAX_PIECE, round(per_piece))), include_usage=include_usage)


def _head(answer: StoredAnswer, request_id: bytes, created: int, *, streamed: bool) -> dict[str, Any]:
    chat = answer.kind == "chat"
    kind = "text_completion" if not chat else "chat.completion.chunk" if streamed else "chat.completion"
    name = request_id.decode("ascii", "replace")
    return {
        "id": f"{'chatcmpl' if chat else 'cmpl'}-{name}",
        "object": kind,
        "created": created,
        "model": answer.model,
    }


def _usage(answer: StoredAnswer, *, whole: bool) -> dict[str, Any]:
    details = {"completion_tokens_details": None} if whole else {}
    return {
        "prompt_tokens": answer.prompt_tokens,
        "total_tokens": answer.prompt_tokens + answer.output_tokens,
        "completion_tokens": answer.output_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.prompt_tokens},
        **details,
        "response_cached": True,
    }


def _whole_choice(answer: StoredAnswer) -> dict[str, Any]:
    end = {"logprobs": None, "finish_reason": answer.finish_reason, "stop_reason": answer.stop_reason}
    end["token_ids"] = None
    if answer.kind == "completion":
        ids = {"prompt_logprobs": None, "prompt_token_ids": None, "routed_experts": None}
        return {"index": 0, "text": answer.text} | end | ids
    message = {
        "role": "assistant",
        "content": answer.text,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        answer.reasoning_field: answer.reasoning,
    }
    return {"index": 0, "message": message} | end | {"routed_experts": None}


# -- Streams -------------------------------------------------------------------------------------------------------


def _stream(answer: StoredAnswer, request_id: bytes, created: int, size: int, *, include_usage: bool) -> list[bytes]:
    head = _head(answer, request_id, created, streamed=True)
    fingerprint = {} if answer.system_fingerprint is None else {"system_fingerprint": answer.system_fingerprint}
    out: list[bytes] = []
    if answer.kind == "chat":
        first = _choice(answer, {"role": "assistant", "content": ""})
        del first["token_ids"]
        out.append(_event(head | {"choices": [first], "prompt_token_ids": None, "prompt_text": None}))
    out += [_event(head | {"choices": [_choice(answer, delta)]}) for delta in _deltas(answer, size)]
    end = head | {"choices": [_choice(answer, {"content": ""}, ended=True)]}
    out.append(_event(end if include_usage else end | fingerprint))
    if include_usage:
        out.append(_event(head | {"choices": [], "usage": _usage(answer, whole=False)} | fingerprint))
    out.append(DONE)
    return out


def _deltas(answer: StoredAnswer, size: int) -> list[dict[str, str]]:
    """Reasoning, then text, in pieces of about ``size`` characters."""
    deltas = [{"content": piece} for piece in _pieces(answer.text, size)]
    if answer.kind == "completion" or answer.reasoning is None:
        return deltas
    return [{answer.reasoning_field: piece} for piece in _pieces(answer.reasoning, size) or [""]] + deltas


def _choice(answer: StoredAnswer, delta: dict[str, str], *, ended: bool = False) -> dict[str, Any]:
    """One choice of one event, its fields in the engine's order."""
    choice: dict[str, Any] = {"index": 0}
    choice |= {"delta": delta} if answer.kind == "chat" else {"text": delta["content"]}
    choice |= {"logprobs": None, "finish_reason": answer.finish_reason if ended else None}
    if ended or answer.kind == "completion":
        choice["stop_reason"] = answer.stop_reason if ended else None
    if answer.kind == "completion":
        choice["prompt_token_ids"] = None
    choice["token_ids"] = None
    return choice


def _event(event: dict[str, Any]) -> bytes:
    return b"data: " + _ENCODE(event) + b"\n\n"


def _pieces(text: str, size: int) -> list[str]:
    """Cut into pieces of about ``size`` characters, between words where that can be."""
    if len(text) <= size:
        return [text] if text else []
    return list(_gathered(text, size))


def _gathered(text: str, size: int) -> Iterator[str]:
    """Words until there is enough of them; a piece is never longer than ``MAX_PIECE``."""
    start = end = 0
    for word in _WORD.finditer(text):
        if end > start and (end - start >= size or word.end() - start > MAX_PIECE):
            yield text[start:end]
            start = end
        end = word.end()
        while end - start > MAX_PIECE:  # white space without end
            yield text[start : start + MAX_PIECE]
            start += MAX_PIECE
    if end > start:
        yield text[start:end]
