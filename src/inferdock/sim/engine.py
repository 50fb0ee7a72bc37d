"""The simulated scheduler: a batch limit, a KV cache, a first-come queue, and one step for all running sequences.

Time passes in steps, as in a real engine: streams that run together fall into step after their first token, so a
thousand of them cost a handful of timers per token, not a thousand.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from inferdock.sim.language import EOS, Generator
from inferdock.sim.metrics import SimMetrics
from inferdock.sim.options import SimOptions
from inferdock.sim.structured import Script
from inferdock.sim.text import TextStream

_PHASES = 4
"""Steps per inter-token latency; later tokens of every stream fall on one of these."""
_SHORTEST_PAUSE_S = 0.0005


class Sequence:
    """One answer that is being generated.

    Attributes:
        prompt: token ids.
        output: token ids so far; EOS is the last of them if the answer ended by itself, as in vLLM.
        pieces: the text that each token of ``output`` added.
        stop_reason: the stop string that ended it.
        finish_reason: ``stop``, ``length`` or ``abort`` once it has ended.
        slow: factor on all times (a fault).
    """

    __slots__ = (
        "_changed",
        "arrived_at",
        "finish_reason",
        "first_at",
        "generator",
        "ignore_eos",
        "last_at",
        "max_tokens",
        "min_tokens",
        "next_at",
        "output",
        "pieces",
        "prompt",
        "slow",
        "started_at",
        "text",
    )

    def __init__(
        self,
        prompt: list[int],
        *,
        max_tokens: int,
        min_tokens: int = 0,
        ignore_eos: bool = False,
        seed: int = 0,
        stop: list[str] | None = None,
        keep_stop: bool = False,
        slow: float = 1.0,
        script: str | None = None,
    ) -> None:
        self.prompt = prompt
        self.generator = Generator(prompt, seed) if script is None else Script(script)
        self.max_tokens = max_tokens
        self.min_tokens = min_tokens
        self.ignore_eos = ignore_eos
        self.slow = slow
        self.output: list[int] = []
        self.pieces: list[str] = []
        self.text = TextStream(stop or (), keep_stop=keep_stop)
        self.finish_reason: str | None = None
        self.arrived_at = self.started_at = self.first_at = self.last_at = self.next_at = 0.0
        self._changed = asyncio.Event()

    @property
    def stop_reason(self) -> str | None:
        """The stop string that ended it."""
        return self.text.stopped_by

    def step(self) -> None:
        """Generate one token."""
        may_end = not self.ignore_eos and len(self.output) >= self.min_tokens
        token = self.generator.next(may_end=may_end)
        self.output.append(token)
        piece = self.text.feed(token, may_stop=len(self.output) > self.min_tokens)
        if token == EOS or self.text.stopped_by is not None:
            self.finish_reason = "stop"
        elif len(self.output) >= self.max_tokens:
            self.finish_reason = "length"
        if self.finish_reason is not None and self.text.stopped_by is None:
            piece += self.text.rest()
        self.pieces.append(piece)
        self._changed.set()

    def end(self, reason: str) -> None:
        """Stop it from outside."""
        self.finish_reason = self.finish_reason or reason
        self._changed.set()

    async def wait(self, known: int) -> None:
        """Wait until there are more than ``known`` tokens, or the sequence has ended."""
        while len(self.output) <= known and self.finish_reason is None:
            self._changed.clear()
            await self._changed.wait()

    async def ended(self) -> None:
        """Wait until the sequence has ended."""
        while self.finish_reason is None:
            await self.wait(len(self.output))


class SimEngine:
    """Runs sequences."""

    def __init__(self, options: SimOptions, metrics: SimMetrics, clock: Callable[[], float]) -> None:
        self._options = options
        self._metrics = metrics
        self._clock = clock
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._used_tokens = 0
        self._work = asyncio.Event()
        metrics.watch(
            running=lambda: len(self._running),
            waiting=lambda: len(self._waiting),
            kv_usage=lambda: min(1.0, self._used_tokens / options.kv_cache_tokens),
        )

    @property
    def unfinished(self) -> int:
        """Sequences that run or wait."""
        return len(self._running) + len(self._waiting)

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence; it runs when the batch and the KV cache have room."""
        sequence.arrived_at = self._clock()
        self._waiting.append(sequence)
        self._work.set()

    def abort(self, sequence: Sequence) -> None:
        """Its client has gone; nothing happens if it has ended already."""
        if sequence.finish_reason is not None:
            return
        sequence.end("abort")
        if sequence in self._waiting:
            self._waiting.remove(sequence)
            self._metrics.finished(sequence, self._clock())
        self._work.set()

    def abort_all(self) -> None:
        """The replica stops: what runs or waits ends with the reason ``abort``, as in vLLM."""
        for sequence in (*self._running, *self._waiting):
            self.abort(sequence)

    async def run(self) -> None:
        """Step until cancelled."""
        while True:
            await self._pause()
            self.step(self._clock())

    def step(self, now: float) -> None:
        """Admit what fits, then give a token to every sequence that is due at ``now`` (seconds of the clock)."""
        self._admit(now)
        self._generate(now)
        self._preempt()

    async def _pause(self) -> None:
        """Sleep until a sequence is due, one comes or one is aborted."""
        self._work.clear()
        timer: asyncio.TimerHandle | None = None
        if self.unfinished:
            now = self._clock()
            soonest = min((s.next_at for s in self._running), default=now)
            delay = max(soonest - now, _SHORTEST_PAUSE_S)
            timer = asyncio.get_running_loop().call_later(delay, self._work.set)
        try:
            await self._work.wait()
        finally:
            if timer is not None:
                timer.cancel()

    def _admit(self, now: float) -> None:
        options = self._options
        while self._waiting and len(self._running) < options.max_num_seqs:
            sequence = self._waiting[0]
            need = len(sequence.prompt) + len(sequence.output)
            if self._running and self._used_tokens + need + 1 > options.kv_cache_tokens:
                return
            self._waiting.popleft()
            self._used_tokens += need
            self._running.append(sequence)
            sequence.started_at = sequence.started_at or now
            sequence.next_at = now + options.ttft_s * sequence.slow

    def _generate(self, now: float) -> None:
        ended: list[Sequence] = []
        for sequence in self._running:
            if sequence.finish_reason is None and sequence.next_at <= now + 1e-4:
                before = len(sequence.output)
                sequence.step()
                self._used_tokens += 1
                sequence.next_at = self._due(sequence, now)
                self._metrics.token(sequence, now, first=before == 0)
            if sequence.finish_reason is not None:
                ended.append(sequence)
        if ended:
            gone = set(map(id, ended))
            self._running = [s for s in self._running if id(s) not in gone]
            for sequence in ended:
                self._used_tokens -= len(sequence.prompt) + len(sequence.output)
                self._metrics.finished(sequence, now)

    def _due(self, sequence: Sequence, now: float) -> float:
        """When its next token comes; a late step delays what follows, it is not caught up."""
        gap = self._options.itl_s * sequence.slow
        if len(sequence.output) == 1 and gap > 0:
            phase = gap / _PHASES
            return round((now + gap) / phase) * phase
        return sequence.next_at + gap if now - sequence.next_at < gap else now + gap

    def _preempt(self) -> None:
        """The cache is over-full: the youngest goes back to the queue and keeps its tokens, as in vLLM."""
        while self._used_tokens > self._options.kv_cache_tokens and len(self._running) > 1:
            sequence = self._running.pop()
            self._used_tokens -= len(sequence.prompt) + len(sequence.output)
            self._waiting.appendleft(sequence)
            self._metrics.preempted()
