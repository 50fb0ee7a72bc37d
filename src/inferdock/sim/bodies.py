"""The bodies of answers, with vLLM 0.32's fields in vLLM's order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inferdock.sim.language import token_bytes
from inferdock.sim.requests import Generation

FINGERPRINT = "vllm-0.32.0-simulated"
Body = dict[str, Any]


def usage(prompt_tokens: int, output_tokens: int, *, whole: bool) -> Body:
    """The usage object; ``whole`` answers have the details fields too."""
    counts: Body = {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "completion_tokens": output_tokens,
    }
    if whole:
        counts |= {"prompt_tokens_details": None, "completion_tokens_details": None}
    return counts


def running_usage(request: Generation, prompt: list[int], output_tokens: int) -> Body:
    """The usage object of one event (``continuous_usage_stats``); vLLM's chat events have one field more."""
    counts = usage(len(prompt), output_tokens, whole=False)
    return counts | {"completion_tokens_details": None} if request.chat else counts


def _logprob(token: int) -> float:
    """Plausible and repeatable: the simulation has no distribution to take one from."""
    return -0.05 - (token * 2654435761 % 1000) / 1000


def chat_logprobs(request: Generation, tokens: Sequence[int]) -> Body | None:
    """Log-probabilities of a chat answer's tokens."""
    if request.logprobs is None:
        return None
    entries = []
    for token in tokens:
        raw = token_bytes(token)
        entry = {"token": raw.decode("utf-8", "replace"), "logprob": _logprob(token), "bytes": list(raw)}
        entries.append({**entry, "top_logprobs": [entry] * request.logprobs})
    return {"content": entries}


def completion_logprobs(request: Generation, tokens: Sequence[int]) -> Body | None:
    """Log-probabilities of a completion's tokens."""
    if request.logprobs is None:
        return None
    texts = [token_bytes(token).decode("utf-8", "replace") for token in tokens]
    offsets = [sum(map(len, texts[:i])) for i in range(len(texts))]
    values = [_logprob(token) for token in tokens]
    top = [{text: value} for text, value in zip(texts, values, strict=True)]
    return {"text_offset": offsets, "token_logprobs": values, "tokens": texts, "top_logprobs": top}


def whole(request: Generation, head: Body, choices: list[Body], counts: Body) -> Body:
    """A complete answer."""
    body: Body = {
        **head,
        "choices": choices,
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": counts,
    }
    if request.chat:
        body |= {
            "prompt_logprobs": None,
            "prompt_token_ids": request.prompts[0] if request.token_ids else None,
            "prompt_text": None,
        }
    return body | {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None}


def whole_choice(
    request: Generation, index: int, prompt: list[int], text: str, tokens: list[int], reason: str, stop: str | None
) -> Body:
    """One choice of a complete answer."""
    ids = tokens if request.token_ids else None
    if request.chat:
        message = {
            "role": "assistant",
            "content": text,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "reasoning": None,
        }
        return {
            "index": index,
            "message": message,
            "logprobs": chat_logprobs(request, tokens),
            "finish_reason": reason,
            "stop_reason": stop,
            "token_ids": ids,
            "routed_experts": None,
        }
    return {
        "index": index,
        "text": text,
        "logprobs": completion_logprobs(request, tokens),
        "finish_reason": reason,
        "stop_reason": stop,
        "token_ids": ids,
        "prompt_logprobs": None,
        "prompt_token_ids": prompt if request.token_ids else None,
        "routed_experts": None,
    }


def stream_choice(
    request: Generation,
    index: int,
    prompt: list[int] | None,
    text: str,
    tokens: list[int],
    reason: str | None,
    stop: str | None,
) -> Body:
    """One choice of one event; ``prompt`` only in a completion's first event."""
    ids = tokens if request.token_ids else None
    if request.chat:
        choice: Body = {
            "index": index,
            "delta": {"content": text},
            "logprobs": chat_logprobs(request, tokens),
            "finish_reason": reason,
        }
        if reason is not None:
            choice["stop_reason"] = stop
        return choice | {"token_ids": ids}
    return {
        "index": index,
        "text": text,
        "logprobs": completion_logprobs(request, tokens),
        "finish_reason": reason,
        "stop_reason": stop,
        "prompt_token_ids": prompt if request.token_ids else None,
        "token_ids": ids,
    }
