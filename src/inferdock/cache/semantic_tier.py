"""Finds, among the stored messages of one partition, one that means what a new one means.

All of it runs in one thread of its own: tokenising, embedding, searching and the guard. The event loop hands over a
text and gets a :class:`Match`; it never waits. The thread's queue is bounded: a gateway with more look-ups than the
thread can do serves the surplus without them.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import msgspec

from inferdock.cache.embedder import EmbeddingError
from inferdock.cache.match import Limits, Match
from inferdock.cache.scope import surface_key

MAX_WAITING = 16
"""Look-ups that may wait for the thread; at 2 ms each the last one waits for 32 ms."""

MAX_CHANGES_WAITING = 16_384
"""Changes that may wait; inserts beyond are not found by similarity (:meth:`SemanticTier.room` prevents it)."""

SLICE_S = 0.002
"""Changes are made for so long at a time, then look-ups have their turn."""

PAUSE_S = 0.0002
"""And for so long the thread then sleeps: small numpy operations let go of the interpreter and take it back so quickly
that the event loop, which waits for it, would else starve for a fifth of a second (seen with 100,000 inserts)."""


class Embedding(Protocol):
    """Turns texts into vectors (``embedder.Embedder``)."""

    @property
    def fast_tokens(self) -> int: ...
    def token_count(self, text: str) -> int: ...
    def embed(self, text: str) -> Any:
        """Unit vector, float32."""


class Index(Protocol):
    """Vectors by partition and key (``index.IndexSet``)."""

    def add(self, partition: bytes, key: bytes, vector: bytes) -> None:
        """ValueError when it is no vector."""

    def remove(self, partition: bytes, key: bytes) -> bool: ...
    def search(self, partition: bytes, vector: Any, count: int = ...) -> list[tuple[bytes, float]]: ...
    def size(self, partition: bytes) -> int: ...


class Judgement(Protocol):
    """What the guard says (``guard.Verdict``)."""

    @property
    def served(self) -> bool: ...
    @property
    def reason(self) -> str: ...
    @property
    def detail(self) -> str: ...
    @property
    def grey(self) -> bool: ...


class Judge(Protocol):
    """Compares two texts (``guard.Guard``)."""

    def judge(self, asked: str, stored: str, score: float, *, threshold: float) -> Judgement: ...


class _Known(msgspec.Struct, frozen=True, gc=False):
    partition: bytes
    text: str
    expires_at: float


class SemanticTier:
    """See the module's first lines. Everything that begins with ``_do_`` runs in the thread.

    Attributes:
        state: ``loading``, ``ready`` or ``failed``.
        problem: why it failed.
    """

    def __init__(
        self,
        *,
        load: Callable[[], Embedding],
        index: Index,
        guard: Judge,
        surface_form: Callable[[str], str],
        threshold: Callable[[float, int], float],
        pack: Callable[[Any], bytes],
        cosine: Callable[[bytes, bytes], float],
        max_entries: int,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """``load`` takes a second or two and runs in the thread; ``threshold`` follows the size of a partition."""
        self._load = load
        self._index = index
        self._guard = guard
        self._surface_form = surface_form
        self._threshold = threshold
        self._pack = pack
        self._cosine = cosine
        self._max_entries = max_entries
        self._wall = wall_clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cache")
        self._embedder: Embedding | None = None
        self._looking = 0
        self._changes: deque[Callable[[], None]] = deque()
        self._texts: dict[bytes, _Known] = {}
        self._forms: dict[bytes, bytes] = {}
        self._expiries: list[tuple[float, bytes]] = []
        self.state = "loading"
        self.problem = ""

    # -- Life ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the embedding model; until then, and if that fails, every look-up is a miss."""
        loop = asyncio.get_running_loop()
        try:
            self._embedder = await loop.run_in_executor(self._thread, self._load)
            self.state = "ready"
        except Exception as exc:
            self.state, self.problem = "failed", str(exc)
            raise

    def start_now(self) -> None:
        """The same for callers without a loop."""
        self._embedder = self._thread.submit(self._load).result()
        self.state = "ready"

    def close(self) -> None:
        """Forget everything that waits."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    @property
    def ready(self) -> bool:
        """Look-ups can be made."""
        return self._embedder is not None

    @property
    def fast_tokens(self) -> int:
        """Longest text that is looked up, in tokens."""
        return self._embedder.fast_tokens if self._embedder is not None else 0

    def __len__(self) -> int:
        return len(self._texts)

    # -- Look-ups --------------------------------------------------------------------------------------------

    def has(self, partition: bytes) -> bool:
        """The partition holds something to compare with, or soon may."""
        return bool(self._changes) or self._index.size(partition) > 0

    async def look(self, partition: bytes, text: str, limits: Limits) -> Match:
        """Find an entry of the partition whose message means what ``text`` means; never raises for any text."""
        if self._embedder is None:
            return Match(reason=self.state)
        if self._looking >= MAX_WAITING:
            return Match(reason="busy")
        self._looking += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._do_look, partition, text, limits)
        finally:
            self._looking -= 1

    def look_now(self, partition: bytes, text: str, limits: Limits) -> Match:
        """The same for callers without a loop; it sees every change that was asked for before."""
        return self._thread.submit(self._do_look_after_changes, partition, text, limits).result()

    def _do_look_after_changes(self, partition: bytes, text: str, limits: Limits) -> Match:
        for _ in range(len(self._changes)):
            self._do_change()
        return self._do_look(partition, text, limits)

    def _do_look(self, partition: bytes, text: str, limits: Limits) -> Match:
        embedder = self._embedder
        assert embedder is not None
        self._do_expire()
        entries = self._index.size(partition)
        if not entries:
            return Match()
        threshold = limits.tightened(entries, self._threshold(limits.threshold, entries))
        if threshold is None:
            return Match(reason="exact only", entries=entries)
        same = self._forms.get(surface_key(partition, self._surface_form(text)))
        if same is not None:
            stored = self._texts[same].text
            return Match(same, 1.0, "surface", "", same, stored, limits.threshold, entries)
        try:
            if embedder.token_count(text) > embedder.fast_tokens:
                return Match(reason="too long", entries=entries)
            vector = embedder.embed(text)
        except EmbeddingError as exc:
            return Match(reason="not embeddable", detail=str(exc), entries=entries)
        return self._do_compare(partition, text, vector, threshold)

    def _do_compare(self, partition: bytes, text: str, vector: Any, threshold: float) -> Match:
        entries = self._index.size(partition)
        packed = self._pack(vector)
        best = next(iter(self._index.search(partition, vector, 1)), None)
        if best is None:
            return Match(vector=packed)
        key, score = best
        stored = self._texts[key].text
        verdict = self._guard.judge(text, stored, score, threshold=min(threshold, 1.0))
        served = key if verdict.served else None
        return Match(
            served, score, verdict.reason, verdict.detail, key, stored, threshold, entries, verdict.grey, packed
        )

    # -- Entries ---------------------------------------------------------------------------------------------

    def insert(self, partition: bytes, key: bytes, text: str, vector: bytes | None, expires_at: float) -> None:
        """Remember a message, soon; without a vector one is made."""
        if (self._embedder is None and vector is None) or len(self._changes) >= MAX_CHANGES_WAITING:
            return
        self._change(partial(self._do_insert, partition, key, text, vector, expires_at))

    def remove(self, key: bytes) -> None:
        """Forget a message, soon."""
        self._change(partial(self._do_remove, key))

    def clear(self) -> None:
        """Forget all, soon."""
        self._change(self._do_clear)

    def _change(self, change: Callable[[], None]) -> None:
        """Changes happen in the order in which they are asked for; those of one turn wake the thread once."""
        self._changes.append(change)
        if len(self._changes) > 1:
            return
        try:
            asyncio.get_running_loop().call_soon(self._submit_changes)
        except RuntimeError:  # a caller without a loop
            self._submit_changes()

    async def room(self) -> None:
        """Wait until changes are no longer far behind; for whoever has many of them."""
        while len(self._changes) > MAX_CHANGES_WAITING // 2:  # noqa: ASYNC110 - the thread knows no event loop
            await asyncio.sleep(SLICE_S)

    async def vector_of(self, text: str) -> bytes | None:
        """Packed vector of a text, None where it is too long or the thread has too much to do."""
        if self._embedder is None or self._looking >= MAX_WAITING:
            return None
        self._looking += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._do_embed, text)
        finally:
            self._looking -= 1

    async def similarity(self, one: str, other: str) -> float | None:
        """Cosine of two texts, None where one of them is too long to be embedded in time."""
        first, second = await self.vector_of(one), await self.vector_of(other)
        return self._cosine(first, second) if first is not None and second is not None else None

    def _do_embed(self, text: str) -> bytes | None:
        embedder = self._embedder
        assert embedder is not None
        try:
            if embedder.token_count(text) > embedder.fast_tokens:
                return None
            return self._pack(embedder.embed(text))
        except EmbeddingError:
            return None

    def _do_changes(self) -> None:
        """A slice of what waits; the rest comes after the look-ups that have come meanwhile."""
        until = time.perf_counter() + SLICE_S
        while self._changes and time.perf_counter() < until:
            self._do_change()
        if self._changes:
            time.sleep(PAUSE_S)
            self._submit_changes()

    def _do_change(self) -> None:
        try:
            self._changes[0]()
        except Exception as exc:  # a defect of ours with one entry must not keep all others out
            self.problem = repr(exc)[:500]
        self._changes.popleft()

    def _submit_changes(self) -> None:
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            self._thread.submit(self._do_changes)

    def _do_insert(self, partition: bytes, key: bytes, text: str, vector: bytes | None, expires_at: float) -> None:
        self._do_expire()
        if expires_at <= self._wall():
            return
        self._do_remove(key)
        packed = self._do_embed(text) if vector is None else vector
        if packed is None:
            return
        while len(self._texts) >= self._max_entries:
            self._do_remove(next(iter(self._texts)))
        try:
            self._index.add(partition, key, packed)
        except ValueError:  # it came from a store, and is damaged
            return
        self._texts[key] = _Known(partition, text, expires_at)
        self._forms[surface_key(partition, self._surface_form(text))] = key
        heapq.heappush(self._expiries, (expires_at, key))
        if len(self._expiries) > 2 * len(self._texts) + 1024:  # most of them were removed before their time
            self._expiries = [(known.expires_at, key) for key, known in self._texts.items()]
            heapq.heapify(self._expiries)

    def _do_clear(self) -> None:
        for key in list(self._texts):
            self._do_remove(key)

    def _do_remove(self, key: bytes) -> None:
        known = self._texts.pop(key, None)
        if known is None:
            return
        self._index.remove(known.partition, key)
        form = surface_key(known.partition, self._surface_form(known.text))
        if self._forms.get(form) == key:
            del self._forms[form]

    def _do_expire(self) -> None:
        now = self._wall()
        while self._expiries and self._expiries[0][0] <= now:
            _, key = heapq.heappop(self._expiries)
            known = self._texts.get(key)
            if known is not None and known.expires_at <= now:  # it may have been stored anew
                self._do_remove(key)
