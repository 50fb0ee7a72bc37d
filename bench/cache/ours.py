"""Inferdock's cache as the gateway uses it, in a process of its own: an event loop, the semantic tier in its thread.

Requests and answers are JSON, one a line. One tier holds a partition for each size, so that only the partition differs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

import msgspec
import uvloop

from bench.cache.accuracy_vectors import Vectors
from bench.cache.texts import fillers, workload
from inferdock.cache.assembly import build_tier
from inferdock.cache.canonical import CanonicalRequest, read
from inferdock.cache.embedder import DEFAULT_FAST_TOKENS, Embedder, EmbeddingError
from inferdock.cache.entry import Entry, StoredAnswer
from inferdock.cache.epochs import Epochs
from inferdock.cache.index import BORDER
from inferdock.cache.match import Limits
from inferdock.cache.memory_store import MemoryStore
from inferdock.cache.packing import pack
from inferdock.cache.scope import exact_key, partition
from inferdock.cache.semantic_cache import SemanticCache
from inferdock.config.settings import CacheSettings
from inferdock.wire.openai import CHAT

PACKAGES = ("onnxruntime", "tokenizers", "numpy", "usearch", "msgspec", "uvloop")
LIFE_S = 86_400.0
INSERTS = 256

Answer = dict[str, Any]


class Ours:
    """All that is measured of Inferdock."""

    def __init__(self) -> None:
        self._embedder = Embedder.load()
        self._calibrated = self._embedder.calibrate()
        self._embedder.fast_tokens = DEFAULT_FAST_TOKENS  # the same for every run: what it would be here is reported
        self._tier = build_tier(CacheSettings(), load=lambda: self._embedder)
        self._tier.start_now()
        self._filling: tuple[int, list[tuple[str, bytes]]] = 0, []
        self._memory = MemoryStore(max_bytes=2**30, max_entries=200_000, clock=time.time, epochs=Epochs())
        self._cache: SemanticCache | None = None

    async def about(self) -> Answer:
        return {
            "python": platform.python_version(),
            "versions": {name: version(name) for name in PACKAGES},
            "threshold": CacheSettings().threshold,
            "max_tokens": self._embedder.fast_tokens,
            "calibrated_tokens": self._calibrated,
            "threads": "one for the event loop, one for the tier, on one core",
            "embedding": "all-MiniLM-L6-v2, ONNX Runtime int8 per channel, one thread",
            "index": f"exact up to {BORDER} entries, then a graph",
            "fingerprint": self._embedder.fingerprint,
        }

    async def tokens(self, prompts: list[str]) -> Answer:
        """Of each prompt; those that get no vector have a million."""
        return {"tokens": [self._tokens(prompt) for prompt in prompts]}

    def _tokens(self, prompt: str) -> int:
        try:
            return self._embedder.token_count(prompt)
        except EmbeddingError:
            return 1_000_000

    async def fill(self, size: int, most: int) -> Answer:
        """A partition of that size: the workload's stored prompts, then fillers, the same ones for all sizes; 0: none.

        Stored prompts that are too long for the tier are not in it.
        """
        stored = list(enumerate(workload().stored))
        inserts: list[tuple[int, str, bytes | None]] = [
            (number, text, None) for number, text in stored if self._tokens(text) <= self._embedder.fast_tokens
        ]
        for number, (text, vector) in enumerate(self._fillers(most), len(stored)):
            if len(inserts) < size:
                inserts.append((number, text, vector))
        began = time.perf_counter()
        for number, text, vector in inserts:
            await self._insert(size, number, text, vector)
        await self._arrived(size, inserts[-1])
        match = await self._tier.look(_place(size), "What is it?", Limits(1.0))
        return {"seconds": time.perf_counter() - began, "entries": match.entries}

    def _fillers(self, count: int) -> list[tuple[str, bytes]]:
        """Texts with their vectors; where no earlier run has made these, it takes 2 ms each."""
        if self._filling[0] != count:
            asked = workload()
            texts = fillers(count, [*asked.stored, *(one.prompt for one in asked.lookups)])
            rows = Vectors().of(texts) if texts else []
            self._filling = count, [(text, pack(row)) for text, row in zip(texts, rows, strict=True) if row.any()]
        return self._filling[1]

    async def _arrived(self, size: int, last: tuple[int, str, bytes | None]) -> None:
        """Wait until the last insert is found: of texts of one surface form, the last one is."""
        number, text, _ = last

        async def there() -> bool:
            return (await self._tier.look(_place(size), text, Limits(0.5))).key == _key(size, number)

        while not await there():  # noqa: ASYNC110 - the tier's thread knows no event loop
            await asyncio.sleep(0.01)

    async def _insert(self, size: int, number: int, text: str, vector: bytes | None) -> None:
        self._tier.insert(_place(size), _key(size, number), text, vector, time.time() + LIFE_S)
        if number % INSERTS == 0:
            await self._tier.room()

    async def look(self, size: int, prompts: list[str], threshold: float | None = None) -> Answer:
        """Look-ups by meaning, one after the other, as the gateway makes them."""
        limits = Limits(CacheSettings().threshold if threshold is None else threshold)
        place = _place(size)

        async def one(prompt: str) -> int | None:
            match = await self._tier.look(place, prompt, limits)
            return None if match.key is None else int.from_bytes(match.key[8:], "big")

        return await _timed(one, prompts)

    async def remember(self, prompts: list[str], entries: int) -> Answer:
        """Entries to be found by equality."""
        for number in range(entries):
            prompt = prompts[number] if number < len(prompts) else f"{prompts[number % len(prompts)]} {number}"
            request = _request(prompt)
            self._memory.put(_entry(request, prompt, number))
        return {"entries": len(self._memory)}

    async def equal(self, prompts: list[str]) -> Answer:
        """Look-ups of equal requests, from the bytes of the request to the entry."""
        bodies = [_body(prompt) for prompt in prompts]

        async def one(body: bytes) -> int | None:
            request = read(body, CHAT)
            assert isinstance(request, CanonicalRequest)
            entry = self._memory.get(exact_key("tenant", "revision", request))
            return None if entry is None else int(entry.answer.text)

        return await _timed(one, bodies)

    async def keep(self, prompts: list[str]) -> Answer:
        """Entries for the class that does without a gateway."""
        self._cache = SemanticCache()
        for number, prompt in enumerate(prompts):
            self._cache.set(prompt, str(number))
        return {}

    async def get(self, prompts: list[str]) -> Answer:
        """Look-ups with that class."""
        cache = self._cache
        assert cache is not None

        async def one(prompt: str) -> int | None:
            answer = cache.get(prompt)
            return None if answer is None else int(answer)

        return await _timed(one, prompts)


async def _timed(work: Callable[[Any], Awaitable[int | None]], items: list[Any]) -> Answer:
    wall, cpu, served = [], [], []
    for item in items:
        spent, began = time.process_time(), time.perf_counter()
        served.append(await work(item))
        wall.append(1000 * (time.perf_counter() - began))
        cpu.append(1000 * (time.process_time() - spent))
    return {"wall_ms": wall, "cpu_ms": cpu, "served": served}


def _place(size: int) -> bytes:
    return hashlib.sha256(size.to_bytes(8, "big")).digest()


def _key(size: int, number: int) -> bytes:
    return size.to_bytes(8, "big") + number.to_bytes(24, "big")


def _body(prompt: str) -> bytes:
    messages = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": prompt}]
    return msgspec.json.encode(
        {"model": "m", "messages": messages, "temperature": 0, "max_tokens": 256, "stream": True}
    )


def _request(prompt: str) -> CanonicalRequest:
    request = read(_body(prompt), CHAT)
    assert isinstance(request, CanonicalRequest)
    return request


def _entry(request: CanonicalRequest, prompt: str, number: int) -> Entry:
    answer = StoredAnswer(
        kind="chat", model="m", text=str(number), finish_reason="stop", prompt_tokens=1, output_tokens=1
    )
    return Entry(
        key=exact_key("tenant", "revision", request),
        partition=partition("tenant", "revision", request, ""),
        text=prompt,
        answer=answer,
        tenant="tenant",
        model="m",
        revision="revision",
        epoch="0",
        created_at=time.time(),
        expires_at=time.time() + LIFE_S,
        duration_s=1.0,
    )


def main() -> None:
    """Answer until the other side closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        ours = Ours()
        for line in sys.stdin:
            request = json.loads(line)
            answer = runner.run(getattr(ours, request.pop("do"))(**request))
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
