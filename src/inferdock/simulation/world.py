"""The simulation itself: one clock, and whatever happens next.

Three queues of events: requests that come, what happens on replicas, and everything rare (looks of the autoscaler,
replicas that get ready, interruptions, samples). The earliest of the three is next. A replica's event may be outdated
when its turn comes (another request joined meanwhile): its stamp tells.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from itertools import count
from math import inf

from inferdock.autoscale.decide import Memory, Seen, decide
from inferdock.autoscale.figures import KV_CACHE, REQUESTS
from inferdock.simulation.replica import Engine, Job, Replica
from inferdock.simulation.scenario import HOUR_S, Action, Result, Sample, Scenario, Spot
from inferdock.simulation.traffic import Asked, Users

LINGER_S = 86_400.0
"""So long after the last request the simulation ends, whatever is left."""
USERS_S = 1.0
"""Between two looks at how many users there are."""


def simulate(scenario: Scenario, traffic: Iterable[Asked] = (), users: Users | None = None) -> Result:
    """Play it through.

    Args:
        scenario: fleet and rules.
        traffic: open, in order of time.
        users: a closed loop beside it.
    """
    return _World(scenario, iter(traffic), users).run()


class _World:
    def __init__(self, scenario: Scenario, traffic: Iterator[Asked], users: Users | None) -> None:
        self._scenario = scenario
        self._engine = Engine(scenario.profile)
        self._traffic = traffic
        self._users = users
        self._rng = random.Random(scenario.seed)
        self._now = 0.0
        self._last_asked = 0.0
        self._result = Result()
        self._replicas: list[Replica] = []
        self._leaving: list[Replica] = []
        self._open: list[Replica] = []  # takes requests
        self._spot: set[Replica] = set()
        self._held: deque[Job] = deque()
        self._in_flight = 0
        self._names = count()
        self._order = count()
        self._events: list[tuple[float, int, int, Replica]] = []
        self._coming: list[tuple[float, int, Job]] = []  # closed loop
        self._rare: list[tuple[float, int, Callable[[], None]]] = []
        self._active: set[int] = set()
        self._memory = Memory()
        self._figures: deque[tuple[float, dict[str, float]]] = deque()

    def run(self) -> Result:
        """Until nothing is left to happen."""
        for _ in range(self._scenario.replicas):
            self._add(0.0)
        if self._scenario.spot is not None:
            for seconds in self._scenario.spot.at:
                self._at(seconds, self._take_one_away)
        self._every(self._scenario.sample_s, self._sample, at_once=True)
        if self._scenario.policy is not None:
            self._every(self._scenario.sync_s, self._look, at_once=False)
        if self._users is not None:
            self._every(USERS_S, self._count_users, at_once=True)
        self._loop()
        self._settle()
        self._result.kv_short = self._engine.kv_short
        return self._result

    def _loop(self) -> None:
        upcoming = next(self._traffic, None)
        while True:
            asked_at = upcoming.at if upcoming is not None else inf
            if self._coming and self._coming[0][0] < asked_at:
                asked_at = self._coming[0][0]
            event_at = self._events[0][0] if self._events else inf
            rare_at = self._rare[0][0]
            if asked_at == inf and self._finished(rare_at):
                return
            if event_at <= asked_at and event_at <= rare_at:
                self._happen()
            elif asked_at <= rare_at:
                if upcoming is not None and upcoming.at == asked_at:
                    self._now = asked_at
                    self._ask(Job(asked_at, upcoming.prompt, upcoming.output))
                    upcoming = next(self._traffic, None)
                else:
                    self._now, _, job = heappop(self._coming)
                    self._ask(job)
            else:
                self._now, _, act = heappop(self._rare)
                act()

    def _finished(self, rare_at: float) -> bool:
        users_left = self._users is not None and self._now < self._users.counts[-1][0]
        return (self._in_flight == 0 and not users_left) or rare_at > self._last_asked + LINGER_S

    # -- Requests --------------------------------------------------------------------------------------------

    def _ask(self, job: Job) -> None:
        self._result.asked += 1
        self._in_flight += 1
        self._last_asked = self._now
        self._place(job)

    def _place(self, job: Job) -> None:
        """To the replica with the fewest requests."""
        if not self._open:
            self._held.append(job)
            return
        least, chosen = 1 << 60, self._open[0]
        for replica in self._open:
            if replica.load < least:
                least, chosen = replica.load, replica
                if least == 0:
                    break
        chosen.take(job, self._now)
        self._expect(chosen)

    def _expect(self, replica: Replica) -> None:
        at = replica.next_at()
        if at < inf:
            heappush(self._events, (at, replica.name, replica.stamp, replica))

    def _happen(self) -> None:
        at, _, stamp, replica = heappop(self._events)
        if stamp != replica.stamp:
            return
        self._now = max(self._now, at)
        job, last = replica.step(self._now)
        if job.first == inf:
            job.first = self._now
        if last:
            self._answered(job)
            if replica.draining and replica.load == 0:
                self._gone(replica)
        self._expect(replica)

    def _answered(self, job: Job) -> None:
        self._in_flight -= 1
        result, scenario = self._result, self._scenario
        ttft = job.first - job.at
        good = ttft <= scenario.ttft_slo_s
        result.answered += 1
        result.ttft.append(ttft)
        result.prompt_tokens += job.prompt
        result.output_tokens += job.output
        if job.output > 1:
            tpot = (self._now - job.first) / (job.output - 1)
            result.tpot.append(tpot)
            good = good and tpot <= scenario.tpot_slo_s
        result.good += good
        if job.user >= 0 and self._users is not None:
            self._again(job.user)

    # -- Users -----------------------------------------------------------------------------------------------

    def _count_users(self) -> None:
        assert self._users is not None
        wanted = self._users.at(self._now)
        for user in range(wanted):
            if user not in self._active:
                self._active.add(user)
                self._again(user)

    def _again(self, user: int) -> None:
        """A user thinks, then asks; who is no longer wanted leaves."""
        users = self._users
        assert users is not None
        if user >= users.at(self._now) or self._now >= users.counts[-1][0]:
            self._active.discard(user)
            return
        asked = users.lengths.draw(self._now + self._rng.uniform(*users.think_s), self._rng)
        heappush(self._coming, (asked.at, next(self._order), Job(asked.at, asked.prompt, asked.output, user)))

    # -- Replicas --------------------------------------------------------------------------------------------

    def _add(self, startup_s: float) -> None:
        replica = Replica(next(self._names), self._engine, self._now, self._now + startup_s)
        self._replicas.append(replica)
        if startup_s:
            self._at(replica.ready_at, lambda: self._ready(replica))
        else:
            self._ready(replica)
        spot = self._scenario.spot
        if spot is not None and len(self._replicas) - len(self._spot) > spot.on_demand:
            self._spot.add(replica)
            if spot.per_hour > 0:
                after = self._rng.expovariate(spot.per_hour / HOUR_S)
                self._at(self._now + after, lambda: self._interrupted(replica, spot))

    def _ready(self, replica: Replica) -> None:
        if replica.draining:
            return
        self._open.append(replica)
        held, self._held = self._held, deque()
        for job in held:
            self._place(job)

    def _take_one_away(self) -> None:
        """The spot machine that has served longest; nothing where none is there."""
        spot = self._scenario.spot
        serving = [replica for replica in self._open if replica in self._spot]
        if spot is not None and serving:
            self._interrupted(serving[0], spot)

    def _interrupted(self, replica: Replica, spot: Spot) -> None:
        if replica in self._replicas:
            self._result.actions.append(Action(self._now, len(self._replicas), "A spot machine is taken away."))
            self._drain(replica, spot.notice_s)
            self._add(self._scenario.profile.startup_s)

    def _drain(self, replica: Replica, deadline_s: float) -> None:
        """No new requests; what it has not finished at the deadline goes on elsewhere."""
        self._replicas.remove(replica)
        replica.draining = True
        if replica in self._open:
            self._open.remove(replica)
        if replica.load == 0:
            self._pay(replica)
            return
        self._leaving.append(replica)
        self._at(self._now + deadline_s, lambda: self._cut(replica))

    def _cut(self, replica: Replica) -> None:
        if replica in self._leaving:
            jobs = replica.evict(self._now)
            self._gone(replica)
            self._result.moved += len(jobs)
            for job in jobs:
                self._place(job)

    def _gone(self, replica: Replica) -> None:
        self._leaving.remove(replica)
        self._pay(replica)

    def _pay(self, replica: Replica) -> None:
        seconds = self._now - replica.since
        price = self._scenario.price_per_hour / HOUR_S
        self._result.replica_s += seconds
        if replica in self._spot and self._scenario.spot is not None:
            self._spot.discard(replica)
            self._result.spot_s += seconds
            price *= self._scenario.spot.price_share
        self._result.cost += seconds * price

    def _settle(self) -> None:
        self._result.duration_s = self._now
        for replica in [*self._replicas, *self._leaving]:
            self._pay(replica)

    # -- The autoscaler --------------------------------------------------------------------------------------

    def _look(self) -> None:
        policy = self._scenario.policy
        assert policy is not None
        self._figures.append((self._now, self._measured()))
        while len(self._figures) > 1 and self._figures[1][0] <= self._now - self._scenario.figures_age_s:
            self._figures.popleft()
        seen = Seen(now=self._now, replicas=len(self._replicas), ready=len(self._open), figures=self._figures[0][1])
        decision = decide(policy, seen, self._memory)
        self._memory = decision.memory
        if decision.replicas != len(self._replicas):
            self._result.actions.append(Action(self._now, decision.replicas, decision.reason))
            self._scale(decision.replicas)

    def _measured(self) -> dict[str, float]:
        figures = {REQUESTS: float(self._in_flight)}
        if self._open:
            used = sum(replica.kv_used for replica in self._open)
            figures[KV_CACHE] = used / (self._engine.kv_cache_tokens * len(self._open))
        elif not self._replicas:
            figures[KV_CACHE] = 0.0
        return figures

    def _scale(self, wanted: int) -> None:
        while len(self._replicas) < wanted:
            self._add(self._scenario.profile.startup_s)
        going = sorted(self._replicas, key=lambda one: (one in self._open, one not in self._spot, one.load, -one.name))
        for replica in going[: len(self._replicas) - wanted]:
            self._drain(replica, self._scenario.drain_timeout_s)

    # -- Rare events -----------------------------------------------------------------------------------------

    def _at(self, at: float, act: Callable[[], None]) -> None:
        heappush(self._rare, (at, next(self._order), act))

    def _every(self, period_s: float, act: Callable[[], None], *, at_once: bool) -> None:
        def again() -> None:
            act()
            self._at(self._now + period_s, again)

        self._at(self._now if at_once else self._now + period_s, again)

    def _sample(self) -> None:
        everyone = [*self._replicas, *self._leaving]
        running = sum(replica.running for replica in everyone)
        waiting = sum(len(replica.waiting) for replica in everyone)
        self._result.history.append(
            Sample(self._now, len(self._replicas), len(self._open), running, waiting, len(self._held))
        )
