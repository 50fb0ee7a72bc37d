"""What the cache lets a model do when nobody waits: answer semantic hits again, to count the wrong ones, and judge.

One job at a time, at the end of every queue, and only while no request waits for a replica of that model. Jobs that
find no quiet moment within :data:`MAX_AGE_S` are dropped: a sample, not a promise.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from inferdock.balance.endpoints import Endpoint, State
from inferdock.balance.wanted import ANY
from inferdock.cache.audit import size_class
from inferdock.cache.compare import Outcome, compare
from inferdock.cache.entry import StoredAnswer
from inferdock.cache.match import Found
from inferdock.cache.response_cache import ResponseCache
from inferdock.gateway.ask import Ask
from inferdock.gateway.caching.flight import Flight
from inferdock.gateway.caching.judging import judge_ask, judge_plan, same_answer_body, same_question_body, says_yes
from inferdock.gateway.caching.metrics import CacheMetrics
from inferdock.gateway.caching.plan import Plan
from inferdock.gateway.caching.rider import Rider
from inferdock.gateway.exchange import Exchange
from inferdock.gateway.waiting_room import LAST
from inferdock.telemetry.logs import EventLog

if TYPE_CHECKING:
    from inferdock.config.settings import CacheSettings

MAX_JOBS = 64
MAX_AGE_S = 300.0
LOOK_S = 0.25
PATIENCE_S = 120.0
"""Longest time of one generation."""


class Surroundings(Protocol):
    """What background work uses of the door and of the pipeline behind it."""

    cache: ResponseCache
    settings: CacheSettings

    def now(self) -> float:
        """Seconds on a monotonic clock."""

    def endpoints_of(self, model: str) -> list[Endpoint]:
        """All endpoints of a model."""

    def waiting(self, model: str) -> int:
        """Requests that wait for a replica."""

    def under_way(self, plan: Plan) -> bool:
        """The same is being generated for somebody."""

    def depart(self, flight: Flight, ask: Ask) -> Exchange:
        """Begin a generation."""

    def store(self, flight: Flight, answer: StoredAnswer) -> asyncio.Task[None] | None:
        """Keep its answer."""


@dataclass(frozen=True, slots=True)
class Job:
    """A semantic hit to be checked, or a near miss to be judged.

    Attributes:
        ask, plan, found: of the request.
        since: when it happened.
        hit: it was served.
    """

    ask: Ask
    plan: Plan
    found: Found
    since: float
    hit: bool


class Background:
    """Does the jobs. ``Pilot`` of its own flights, on which nobody rides."""

    def __init__(
        self, around: Surroundings, *, metrics: CacheMetrics, log: EventLog, chance: Callable[[], float]
    ) -> None:
        self._around = around
        self._metrics = metrics
        self._log = log
        self._chance = chance
        self._jobs: deque[Job] = deque(maxlen=MAX_JOBS)
        self._more = asyncio.Event()
        self._answers: dict[int, asyncio.Future[StoredAnswer | None]] = {}

    # -- Jobs ------------------------------------------------------------------------------------------------

    def served(self, ask: Ask, plan: Plan, found: Found) -> None:
        """A request was answered from the cache; a sample of the semantic hits is checked."""
        if found.tier == "semantic" and self._chance() < self._around.settings.audit_ratio:
            self._add(Job(ask, plan, found, self._around.now(), hit=True))

    def missed(self, ask: Ask, plan: Plan, found: Found) -> None:
        """Nothing would do; where a judge might see it otherwise, it is asked."""
        match = found.match
        if match is not None and match.grey and match.candidate is not None and self._around.settings.judge_model:
            self._add(Job(ask, plan, found, self._around.now(), hit=False))

    def _add(self, job: Job) -> None:
        self._jobs.append(job)
        self._more.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._more.wait()
            if not self._jobs:
                self._more.clear()
                continue
            job = self._jobs.popleft()
            try:
                await self._do(job)
            except Exception as exc:  # a defect of ours must not end all checks to come
                self._log.event("error", "cache check failed", reason=repr(exc)[:500])

    async def _do(self, job: Job) -> None:
        if not await self._quiet(job.ask.model, job.since + MAX_AGE_S):
            return
        if job.hit:
            await self._check(job)
        else:
            await self._judge_near_miss(job)

    async def _quiet(self, model: str, until: float) -> bool:
        """Wait for a moment in which nobody waits for the model; False when there was none."""
        around = self._around
        while around.now() < until:
            ready = [endpoint for endpoint in around.endpoints_of(model) if endpoint.state is State.READY]
            if ready and not around.waiting(model) and not any(endpoint.waiting for endpoint in ready):
                return True
            await asyncio.sleep(LOOK_S)
        return False

    # -- Hits ------------------------------------------------------------------------------------------------

    async def _check(self, job: Job) -> None:
        """Generate again and compare; the fresh answer becomes an entry of its own."""
        match, served = job.found.match, job.found.entry
        assert match is not None
        assert served is not None
        flight = self._flight(job.ask, job.plan)
        fresh = await self._generated(flight)
        if fresh is None or flight.exchange is None or flight.exchange.revision != served.revision:
            return
        self._around.store(flight, fresh)
        verdict = await self._compare(job, served.answer.text, fresh.text)
        klass = size_class(match.entries)
        audit = self._around.cache.audit(job.plan.terms.wrong_bound)
        before = audit.action(job.ask.model, klass, job.plan.partition, self._around.now())
        audit.record(job.ask.model, klass, job.plan.partition, verdict, self._around.now())
        after = audit.action(job.ask.model, klass, job.plan.partition, self._around.now())
        self._metrics.audits.cell(job.ask.model, klass, verdict).value += 1
        if (after.kind, after.tighten) != (before.kind, before.tighten):
            self._log.event(
                "warning", "cache strictness changed", model=job.ask.model, now=after.kind, reason=after.reason
            )

    async def _compare(self, job: Job, stored: str, fresh: str) -> Outcome:
        verdict = compare(stored, fresh, None)
        tier = self._around.cache.tier
        if verdict == "unsure" and tier is not None:
            verdict = compare(stored, fresh, await tier.similarity(stored, fresh))
        if verdict == "unsure" and self._around.settings.judge_model:
            said = await self._ask_judge(job, same_answer_body(self._around.settings.judge_model, stored, fresh))
            verdict = verdict if said is None else "same" if said else "different"
        return verdict

    # -- Near misses -----------------------------------------------------------------------------------------

    async def _judge_near_miss(self, job: Job) -> None:
        """Where the judge says that one answer serves both, the next such request gets it.

        A request that was answered has an entry of its own by now, and nobody is asked. This is for those whose answer
        could not be stored: too long, cut, or given up by the client.
        """
        until = self._around.now() + PATIENCE_S
        while self._around.under_way(job.plan) and self._around.now() < until:  # noqa: ASYNC110 - it ends in many ways
            await asyncio.sleep(LOOK_S)
        if self._around.cache.get(job.plan.key) is not None:
            return
        match, judge = job.found.match, self._around.settings.judge_model
        assert match is not None
        assert match.candidate is not None
        entry = self._around.cache.get(match.candidate)
        if entry is None or entry.text is None or job.plan.text is None or judge is None:
            return
        if await self._ask_judge(job, same_question_body(judge, job.plan.text, entry.text)):
            promoted = msgspec.structs.replace(entry, key=job.plan.key, text=job.plan.text)
            self._around.cache.put(promoted, match.vector)
            self._metrics.promoted(job.ask.model)

    async def _ask_judge(self, job: Job, body: bytes) -> bool | None:
        """YES, NO, or None when it says neither, is not there, or has no quiet moment."""
        judge = self._around.settings.judge_model
        assert judge is not None
        now = self._around.now()
        if not await self._quiet(judge, now + PATIENCE_S):
            return None
        ask = judge_ask(judge, body, job.ask.answer, now)
        answer = await self._generated(self._flight(ask, judge_plan(body)))
        return says_yes(answer.text) if answer is not None else None

    # -- Pilot -----------------------------------------------------------------------------------------------

    def _flight(self, ask: Ask, plan: Plan) -> Flight:
        quiet = Ask(
            request=ask.request,
            answer=ask.answer,
            request_id=ask.request_id + b"-check",
            route=ask.route,
            model=ask.model,
            fields=ask.fields,
            key=ask.key,
            admission=ask.admission,
            wanted=ANY,
            priority=LAST,
            deadline=float("inf"),
            trace=None,
        )
        return Flight(self, plan, quiet)

    async def _generated(self, flight: Flight) -> StoredAnswer | None:
        done: asyncio.Future[StoredAnswer | None] = asyncio.get_running_loop().create_future()
        self._answers[id(flight)] = done
        try:
            flight.generate()
            async with asyncio.timeout(PATIENCE_S):
                return await done
        except TimeoutError:
            return None
        finally:
            del self._answers[id(flight)]
            if not done.done() or done.cancelled():
                flight.broadcast.leave()

    def now(self) -> float:
        """Seconds on a monotonic clock."""
        return self._around.now()

    def depart(self, flight: Flight, ask: Ask) -> Exchange:
        """Begin the generation."""
        return self._around.depart(flight, ask)

    def land(self, flight: Flight, answer: StoredAnswer | None) -> None:
        """It is over; nobody else hears of it."""
        done = self._answers.get(id(flight))
        if done is not None and not done.done():
            done.set_result(answer)

    def go_alone(self, rider: Rider) -> None:
        """Nobody rides here."""
        raise AssertionError("a rider on a flight of nobody")
