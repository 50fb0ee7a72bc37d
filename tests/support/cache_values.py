"""Made-up entries of the response cache, and a clock that tests move."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from inferdock.cache.entry import Entry, StoredAnswer

VECTOR = bytes(range(256)) + bytes(128)


@dataclass
class FakeClock:
    """Seconds since 1970, as the test wants them."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def digest(word: str) -> bytes:
    """32 bytes that stand for a word."""
    return hashlib.sha256(word.encode()).digest()


def answer(text: str = "Zinc melts at 419.5 °C.", **changes: Any) -> StoredAnswer:
    """An answer of a chat."""
    fields: dict[str, Any] = {
        "kind": "chat",
        "model": "m",
        "text": text,
        "finish_reason": "stop",
        "prompt_tokens": 12,
        "output_tokens": 9,
    }
    return StoredAnswer(**(fields | changes))


def entry(word: str = "zinc", *, now: float = 1_700_000_000.0, ttl_s: float = 60.0, **changes: Any) -> Entry:
    """The entry of a word, which decides its key; of the epoch "0" unless said otherwise."""
    fields: dict[str, Any] = {
        "key": digest(word),
        "partition": digest("partition"),
        "text": f"At what temperature does {word} melt?",
        "answer": answer(),
        "tenant": "tenant-one",
        "model": "m",
        "revision": "sha256:1",
        "epoch": "0",
        "created_at": now,
        "expires_at": now + ttl_s,
        "duration_s": 0.5,
    }
    return Entry(**(fields | changes))
