"""What the cache keeps: one answer, and the request that it belongs to. Pure values, shared by all of the room.

There are many of them and they hold no cycles, so the garbage collector does not look at them (``gc=False``): a full
collection over a hundred thousand would stop the event loop for a fifth of a second.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["chat", "completion"]


class StoredAnswer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One whole answer, free of the form in which it was sent: it is replayed as JSON or as a stream.

    Attributes:
        kind: of ``/v1/chat/completions`` or of ``/v1/completions``.
        model: as the answer named it.
        text: what the model wrote.
        reasoning: what it thought before, None where it gave none.
        reasoning_field: how the engine called that (``reasoning`` or ``reasoning_content``).
        finish_reason: ``stop`` or ``length``.
        stop_reason: vLLM's, a stop string or a token id, None for the end-of-sequence token.
        prompt_tokens, output_tokens: as the engine counted them.
        system_fingerprint: as the engine gave it.
    """

    kind: Kind
    model: str
    text: str
    finish_reason: str
    prompt_tokens: int
    output_tokens: int
    reasoning: str | None = None
    reasoning_field: str = "reasoning"
    stop_reason: str | int | None = None
    system_fingerprint: str | None = None


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An answer in the cache.

    Attributes:
        key: SHA-256 of tenant, revision and canonical body; 32 bytes.
        partition: SHA-256 of all of that but the last user text, and of the embedder; 32 bytes. Never matched by
            similarity.
        text: the last user text, which the guard compares; None where only equal requests may get the answer.
        answer: the answer.
        tenant, model, revision: whose and of what; for statistics and flushes, the keys hold them too.
        epoch: of the flushes, when the answer was begun; another epoch than the present one is a miss.
        created_at, expires_at: seconds since 1970. Never served at or after the second.
        duration_s: how long the engine took.
    """

    key: bytes
    partition: bytes
    text: str | None
    answer: StoredAnswer
    tenant: str
    model: str
    revision: str
    epoch: str
    created_at: float
    expires_at: float
    duration_s: float
