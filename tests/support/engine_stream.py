"""An engine without a socket: a request in, the events of its stream out, token by token, shaped as vLLM's.

Its "model" is a function of the token ids so far, and one character in five takes several tokens, so that cuts fall
into the middle of characters too.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from inferdock.sim.text import TextStream

FIRST_BYTE = 8  # as in inferdock.sim.language: one token per byte
EOS = 1
_PIECES = ["a", "b", " ", "é", "日", "🙂", "ab", ".", "\n", '"', "\\"]
VOCABULARY = [piece.encode() for piece in _PIECES]


def next_token(ids: list[int]) -> int:
    """The continuation of the ids; an unfinished character is always finished."""
    pending = _unfinished(ids)
    if pending is not None:
        return FIRST_BYTE + pending
    draw = zlib.crc32(repr(ids).encode())
    if draw % 23 == 0:
        return EOS
    return FIRST_BYTE + VOCABULARY[draw % len(VOCABULARY)][0]


def _unfinished(ids: list[int]) -> int | None:
    """The byte that the last character still needs."""
    tail = bytes(token - FIRST_BYTE for token in ids[-4:] if FIRST_BYTE <= token < FIRST_BYTE + 256)
    for piece in VOCABULARY:
        for length in range(1, len(piece)):
            if tail.endswith(piece[:length]) and (len(piece) > 1):
                return piece[length]
    return None


@dataclass
class Engine:
    """One replica; ``prompt_ids`` is what chat requests render to."""

    prompt_ids: list[int]
    name: str = "one"

    def stream(self, path: bytes, body: bytes) -> Iterator[bytes]:
        """Events of the answer, the end mark included."""
        request = json.loads(body)
        chat = path == b"/v1/chat/completions"
        prompt = self.prompt_ids if chat or isinstance(request["prompt"], str) else request["prompt"]
        head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{self.name}",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": len(self.name),
            "model": "m",
        }
        shown = request.get("return_token_ids") is True
        if chat:
            choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
            yield _event(head | {"choices": [choice], "prompt_token_ids": prompt if shown else None})
        stops = request.get("stop") or []
        keep_stop = request.get("include_stop_str_in_output") is True
        text = TextStream([stops] if isinstance(stops, str) else stops, keep_stop=keep_stop)
        output: list[int] = []
        finish, stop_reason = None, None
        while finish is None:
            token = next_token([*prompt, *output])
            output.append(token)
            piece = text.feed(token, may_stop=len(output) > request.get("min_tokens", 0)) if token != EOS else ""
            if text.stopped_by is not None:
                finish, stop_reason = "stop", text.stopped_by
            elif token == EOS:
                finish = "stop"
            elif len(output) >= request["max_tokens"]:
                finish = "length"
            if finish is not None and stop_reason is None:
                piece += text.rest()
            choice = {"index": 0} | ({"delta": {"content": piece}} if chat else {"text": piece})
            choice |= {"logprobs": None, "finish_reason": finish}
            if not chat:
                choice |= {
                    "stop_reason": stop_reason,
                    "prompt_token_ids": prompt if len(output) == 1 and shown else None,
                }
            elif finish is not None:
                choice["stop_reason"] = stop_reason
            yield _event(head | {"choices": [choice | {"token_ids": [token] if shown else None}]})
        if (request.get("stream_options") or {}).get("include_usage"):
            counts = {"prompt_tokens": len(prompt), "completion_tokens": len(output)}
            yield _event(head | {"choices": [], "usage": counts | {"total_tokens": len(prompt) + len(output)}})
        yield b"data: [DONE]\n\n"

    def text_of(self, ids: list[int]) -> str:
        """What ``/detokenize`` says."""
        return b"".join(bytes([i - FIRST_BYTE]) for i in ids if FIRST_BYTE <= i < FIRST_BYTE + 256).decode(
            "utf-8", "replace"
        )


def _event(event: dict) -> bytes:
    return b"data: " + json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


@dataclass
class Reading:
    """What a client makes of a stream."""

    text: str
    finish: str | None
    stop: str | int | None
    usage: dict | None
    done: bool
    identities: set
    ids: list


def read(payload: bytes) -> Reading:
    """Read a stream as a client does."""
    reading = Reading("", None, None, None, False, set(), [])
    for block in payload.split(b"\n\n"):
        if not block.startswith(b"data: "):
            assert not block or block.startswith(b":"), block
            continue
        if block == b"data: [DONE]":
            reading.done = True
            continue
        event = json.loads(block[6:])
        reading.identities.add((event["id"], event["created"], event["model"], event["object"]))
        if event.get("usage"):
            reading.usage = event["usage"]
        for choice in event["choices"]:
            reading.ids += choice.get("token_ids") or []
            reading.text += choice["delta"].get("content") or "" if "delta" in choice else choice["text"]
            if choice["finish_reason"] is not None:
                assert reading.finish is None, "two finish reasons"
                reading.finish, reading.stop = choice["finish_reason"], choice.get("stop_reason")
    return reading
