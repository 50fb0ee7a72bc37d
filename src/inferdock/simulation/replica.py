"""One replica: sequences that run together share its speed, others wait in line.

All running sequences get the same number of tokens in the same time. So one number, the tokens that a sequence which
had run from the beginning would have, tells when each is done: a request that joins at ``v`` and needs ``w`` tokens is
done when the number is ``v + w``. A change of how many run changes how fast the number grows, and nothing else.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from math import inf

from inferdock.simulation.profile import Profile


class Engine:
    """What all replicas of one profile share.

    Attributes:
        rates: tokens per second of each sequence, by the number that run.
        prompt_work: of a prompt token, in output tokens.
        overhead_work: before the first token, in output tokens.
        kv_short: a request had to wait for room in the KV cache.
    """

    __slots__ = ("kv_cache_tokens", "kv_short", "max_num_seqs", "overhead_work", "prompt_work", "rates")

    def __init__(self, profile: Profile) -> None:
        self.rates = profile.table()
        self.prompt_work = profile.prompt_work()
        self.overhead_work = profile.overhead_s / profile.step_s(1)
        self.max_num_seqs = profile.max_num_seqs
        self.kv_cache_tokens = profile.kv_cache_tokens
        self.kv_short = False


class Job:
    """One request on its way.

    Attributes:
        at: when it was sent.
        prompt, output: tokens.
        first: when its first token came; ``inf`` before.
        done: output tokens that came on earlier replicas.
        began: the replica's number when it joined.
        user: of a closed loop; -1 in an open one.
    """

    __slots__ = ("at", "began", "done", "first", "output", "prompt", "user")

    def __init__(self, at: float, prompt: int, output: int, user: int = -1) -> None:
        self.at = at
        self.prompt = prompt
        self.output = output
        self.first = inf
        self.done = 0
        self.began = 0.0
        self.user = user

    @property
    def tokens(self) -> int:
        """Places in the KV cache."""
        return self.prompt + self.output


class Replica:
    """One replica.

    Attributes:
        ready_at: from when on it takes requests.
        since: when it was asked for: from then on it costs.
        draining: it takes no new requests.
        ends_at: when it is taken away whatever it holds; ``inf``: never.
        load: requests on it, running and waiting.
        stamp: changes whenever its next event does.
    """

    __slots__ = (
        "_at",
        "_due",
        "_engine",
        "_order",
        "_rate",
        "_v",
        "draining",
        "ends_at",
        "kv_used",
        "load",
        "name",
        "ready_at",
        "running",
        "since",
        "stamp",
        "waiting",
    )

    def __init__(self, name: int, engine: Engine, since: float, ready_at: float) -> None:
        self.name = name
        self.since = since
        self.ready_at = ready_at
        self.draining = False
        self.ends_at = inf
        self.load = 0
        self.running = 0
        self.kv_used = 0
        self.stamp = 0
        self.waiting: deque[Job] = deque()
        self._engine = engine
        self._due: list[tuple[float, int, Job, bool]] = []
        self._order = 0
        self._v = 0.0
        self._at = since
        self._rate = engine.rates[0]

    def take(self, job: Job, now: float) -> None:
        """A request comes."""
        self.load += 1
        if self.waiting or not self._fits(job):
            self.waiting.append(job)
            return
        self._advance(now)
        self._run(job)
        self._changed()

    def next_at(self) -> float:
        """When something happens here next."""
        return self._at + (self._due[0][0] - self._v) / self._rate if self._due else inf

    def step(self, now: float) -> tuple[Job, bool]:
        """Let that happen: a request has its first token, or (True) its last."""
        self._advance(now)
        due, _, job, last = heappop(self._due)
        self._v = max(self._v, due)
        if not last and job.output - job.done > 1:
            heappush(self._due, (due + job.output - job.done - 1, self._next(), job, True))
            self.stamp += 1
            return job, False
        self._leave(job)
        while self.waiting and self._fits(self.waiting[0]):
            self._run(self.waiting.popleft())
        self._changed()
        return job, True

    def evict(self, now: float) -> list[Job]:
        """Take everything away; what was answered so far counts as part of the prompt elsewhere."""
        self._advance(now)
        jobs = [job for _, _, job, _ in sorted(self._due, key=lambda entry: entry[1])]
        for job in jobs:
            came = self._v - job.began - self._work_before_first(job)
            job.done = min(job.output - 1, job.done + max(0, int(came)))
        jobs += self.waiting
        self._due.clear()
        self.waiting.clear()
        self.load = self.running = self.kv_used = 0
        self._changed()
        return jobs

    def _fits(self, job: Job) -> bool:
        # A request that would never fit runs alone: the engine would have refused it, and nothing may hang here.
        engine = self._engine
        if self.running == 0:
            return True
        if self.running >= engine.max_num_seqs:
            return False
        if self.kv_used + job.tokens <= engine.kv_cache_tokens:
            return True
        engine.kv_short = True
        return False

    def _run(self, job: Job) -> None:
        self.running += 1
        self.kv_used += job.tokens
        job.began = self._v
        heappush(self._due, (self._v + self._work_before_first(job) + 1, self._next(), job, False))

    def _work_before_first(self, job: Job) -> float:
        return self._engine.overhead_work + self._engine.prompt_work * (job.prompt + job.done)

    def _leave(self, job: Job) -> None:
        self.running -= 1
        self.load -= 1
        self.kv_used -= job.tokens

    def _next(self) -> int:
        self._order += 1
        return self._order

    def _advance(self, now: float) -> None:
        if self.running:
            self._v += (now - self._at) * self._rate
        self._at = now

    def _changed(self) -> None:
        self._rate = self._engine.rates[self.running]
        self.stamp += 1
