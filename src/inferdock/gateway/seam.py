"""What text a stream's token ids stand for, asked of a replica.

An engine that looks for stop strings holds text back, so the client's text ends before the ids do. Decoding ids alone
may lose a leading space (SentencePiece), so the end of the prompt is decoded with them and taken off again.
"""

from __future__ import annotations

import msgspec

from inferdock.balance.endpoints import Endpoint
from inferdock.gateway.fetch import FetchError, fetch
from inferdock.gateway.upstream import UpstreamPool
from inferdock.wire.continuation import NotResumable
from inferdock.wire.stream_tracker import StreamTracker

TIMEOUT_S = 10.0
_PROMPT_TAIL = 8
_LONGEST_CHARACTER = 4
"""Tokens that one character may take at most (bytes of UTF-8)."""


class _Text(msgspec.Struct):
    prompt: str


async def text_of_ids(pool: UpstreamPool, endpoint: Endpoint, tracker: StreamTracker, model: str) -> str:
    """Text of the output ids; ids at the end that make no whole character are dropped from the tracker.

    Raises:
        NotResumable: the replica cannot say.
    """
    prompt = (tracker.prompt_ids or b"").split(b",")[-_PROMPT_TAIL:]
    before = await _decode(pool, endpoint, prompt, model)
    for _ in range(_LONGEST_CHARACTER):
        ids = bytes(tracker.ids).strip(b",").split(b",") if tracker.count else []
        text = await _decode(pool, endpoint, [*prompt, *ids], model)
        if not text.startswith(before):
            raise NotResumable("the text of the token ids is not known")
        if not text.endswith("\ufffd") or not ids:
            return text[len(before) :]
        tracker.drop_last()
    return text[len(before) :]


async def _decode(pool: UpstreamPool, endpoint: Endpoint, ids: list[bytes], model: str) -> str:
    body = b'{"model":' + msgspec.json.encode(model) + b',"tokens":[' + b",".join(ids) + b"]}"
    try:
        status, answer = await fetch(pool, endpoint, b"/detokenize", timeout_s=TIMEOUT_S, body=body)
        if status != 200:
            raise NotResumable(f"the replica cannot turn token ids into text (it answers {status})")
        return msgspec.json.decode(answer, type=_Text).prompt
    except (FetchError, msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise NotResumable("the replica cannot turn token ids into text") from exc
