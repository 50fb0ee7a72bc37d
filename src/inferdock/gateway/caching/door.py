"""Where a request meets the cache: bypass, hit, flight under way, or a flight of its own.

The pipeline asks :meth:`Door.plan` while it still may refuse, and calls :meth:`Door.enter` once the request is
admitted. The door belongs to one process; what processes share is behind the ``ResponseCache``.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from inferdock.balance.endpoints import Endpoint, EndpointSet
from inferdock.cache.entry import Entry, StoredAnswer
from inferdock.cache.match import Found, Question
from inferdock.cache.response_cache import ResponseCache
from inferdock.cache.scope import exact_key, partition
from inferdock.domain.errors import RequestError, unavailable
from inferdock.gateway.ask import Ask
from inferdock.gateway.caching.background import Background
from inferdock.gateway.caching.flight import Flight
from inferdock.gateway.caching.metrics import CacheMetrics
from inferdock.gateway.caching.operations import Operations
from inferdock.gateway.caching.plan import Bypass, Plan
from inferdock.gateway.caching.planning import Planner, identity_of
from inferdock.gateway.caching.rider import Rider
from inferdock.gateway.caching.sharing import generate_shared
from inferdock.gateway.exchange import Exchange
from inferdock.gateway.waiting_room import WaitingRoom
from inferdock.telemetry.logs import EventLog

if TYPE_CHECKING:
    from inferdock.config.settings import CacheSettings, GatewaySettings

CHORES_S = 1.0


class Gate(Protocol):
    """What the door uses of the pipeline."""

    endpoints: EndpointSet
    room: WaitingRoom

    def now(self) -> float:
        """Seconds on a monotonic clock."""

    def generate(self, ask: Ask, flight: Flight) -> Exchange:
        """Begin an exchange whose answer goes to the flight's broadcast."""

    def pass_on(self, ask: Ask) -> None:
        """Answer without the cache; the request is counted as in flight already."""

    def closed(self, rider: Rider) -> None:
        """A request has ended: books, and one less in flight."""


class Door:
    """See the module's first lines."""

    def __init__(
        self,
        *,
        gate: Gate,
        cache: ResponseCache,
        settings: CacheSettings,
        gateway: GatewaySettings,
        metrics: CacheMetrics,
        log: EventLog,
        loop: asyncio.AbstractEventLoop,
        wall_clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """``chance`` gives numbers from 0 to 1: for jitter, sampling, and the look at a canary's entries."""
        self._gate = gate
        self.cache = cache
        self.metrics = metrics
        self._log = log
        self.loop = loop
        self.wall = wall_clock
        self._chance = chance
        self._flights: dict[tuple[bytes, bool], Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._background = Background(self, metrics=metrics, log=log, chance=chance)
        self._planner = Planner(endpoints=gate.endpoints, cache=cache, chance=chance)
        self.plan = self._planner.plan
        self.configure(settings, gateway)

    def configure(self, settings: CacheSettings, gateway: GatewaySettings) -> None:
        """Use these from now on."""
        self.settings = settings
        self._planner.configure(settings, gateway)

    # -- After admission -------------------------------------------------------------------------------------

    def enter(self, ask: Ask, plan: Plan | Bypass) -> None:
        """Answer an admitted request."""
        if isinstance(plan, Bypass):
            self.metrics.bypassed(ask.model, plan.reason)
            ask.request.body = plan.body
            ask.answer.extra = [*ask.answer.extra, *_bypass_headers(plan.reason)]
            self._gate.pass_on(ask)
            return
        ask.request.body = plan.body
        rider = Rider(self, ask)
        if self._serve_known(rider, plan):
            return
        question = plan.question(ask.model)
        if plan.directives.only_if_cached and not self.cache.must_look(question):
            self._refuse_uncached(rider)
            return
        flight = None if plan.directives.no_cache else self._under_way(plan, rider.stream)
        if flight is not None:
            flight.join(rider)
            return
        self._take_off(Flight(self, plan, ask), rider, question)

    def _serve_known(self, rider: Rider, plan: Plan) -> bool:
        began = self._gate.now()
        entry = None if plan.directives.no_cache else self.cache.get(plan.key)
        self.metrics.looked("exact", self._gate.now() - began)
        if entry is None or not self._acceptable(entry, plan):
            return False
        self._serve(rider, plan, Found(entry=entry, tier="exact", score=1.0))
        return True

    def _acceptable(self, entry: Entry, plan: Plan) -> bool:
        return plan.directives.may_serve(
            created_at=entry.created_at, expires_at=entry.expires_at, now=self.wall()
        ) and entry.epoch == self.cache.epoch(entry.tenant, entry.model)

    def _serve(self, rider: Rider, plan: Plan, found: Found) -> None:
        entry = found.entry
        assert entry is not None
        rider.cache = "hit"
        answer = entry.answer
        self.metrics.hit(rider.model, found.tier, answer, entry.duration_s)
        age_s = max(0, int(self.wall() - entry.created_at))
        lines = b"x-inferdock-cache: hit\r\nx-inferdock-cache-tier: %b\r\nx-inferdock-cache-score: %.4f\r\nage: %d\r\n"
        rider.replay(
            answer,
            entry.revision,
            lines % (found.tier.encode(), found.score, age_s),
            self.settings.replay_tokens_per_s,
        )
        if found.tier == "semantic":
            self._background.served(rider.ask, plan, found)

    def _refuse_uncached(self, rider: Rider) -> None:
        rider.refuse(
            RequestError(504, "There is no stored answer, and the request asks for no other.", code="not_cached")
        )

    # -- Flights ---------------------------------------------------------------------------------------------

    def _under_way(self, plan: Plan, stream: bool) -> Flight | None:
        """A flight that can serve the request: a stream serves both kinds of clients, a body only those who want it."""
        for streams in (True,) if stream else (True, False):
            flight = self._flights.get((plan.key, streams))
            if flight is not None and flight.joinable:
                return flight
        return None

    def _take_off(self, flight: Flight, rider: Rider, question: Question) -> None:
        plan = flight.plan
        flight.join(rider)
        if not plan.directives.no_cache and rider.ask.deadline == math.inf:  # a hurry of one's own is not for others
            self._flights[plan.key, flight.stream] = flight
        if plan.directives.no_cache or not self.cache.must_look(question):
            flight.generate()
            return
        flight.task = self._go_on(self._look(flight, question))

    def _go_on(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _look(self, flight: Flight, question: Question) -> None:
        """Redis, then the semantic tier; whatever goes wrong there is a miss."""
        plan = flight.plan
        try:
            found = await self.cache.find(question)
        except Exception as exc:
            self._log.event("error", "cache look-up failed", reason=repr(exc)[:500])
            found = Found()
        flight.vector = found.vector
        if found.entry is not None and self._acceptable(found.entry, plan):
            flight.resolve(lambda rider: self._serve(rider, plan, found))
        elif plan.directives.only_if_cached:
            flight.resolve(self._refuse_uncached)
        else:
            self._background.missed(flight.ask, plan, found)
            await self._generate(flight)

    async def _generate(self, flight: Flight) -> None:
        """Here, or by whichever process was asked the same before."""
        flights = self.cache.flights
        if flights is None:
            flight.generate()
            return
        try:
            await generate_shared(flight, flights, lost=self.cache.leader_lost, found=lambda: self._found_late(flight))
        except Exception as exc:
            self._log.event("error", "generation not shared", reason=repr(exc)[:500])
            flight.generate()

    async def _found_late(self, flight: Flight) -> bool:
        """The answer may have been stored while we were asking who generates it."""
        entry = await self.cache.fetch(flight.plan.key)
        if entry is None or not self._acceptable(entry, flight.plan):
            return False
        found = Found(entry, "exact", 1.0)
        flight.resolve(lambda rider: self._serve(rider, flight.plan, found))
        return True

    def depart(self, flight: Flight, ask: Ask) -> Exchange:
        """Begin the generation of a flight."""
        return self._gate.generate(ask, flight)

    def land(self, flight: Flight, answer: StoredAnswer | None) -> asyncio.Task[None] | None:
        """A flight is over; returns what gives its answer to Redis."""
        place = (flight.plan.key, flight.stream)
        if self._flights.get(place) is flight:
            del self._flights[place]
        if answer is None or flight.plan.directives.no_store:
            return None
        return self.store(flight, answer)

    def store(self, flight: Flight, answer: StoredAnswer) -> asyncio.Task[None] | None:
        """Keep the answer of a flight, if it is known what gave it; returns what gives it to Redis."""
        plan, exchange = flight.plan, flight.exchange
        endpoint = exchange.endpoint if exchange is not None else None
        if endpoint is None:
            return None
        identity = identity_of(endpoint.spec)
        moved = identity != plan.identity
        now = self.wall()
        ttl_s = min(plan.terms.ttl_s, plan.directives.ttl_s or plan.terms.ttl_s)
        key = exact_key(plan.tenant, identity, plan.request) if moved else plan.key
        where = partition(plan.tenant, identity, plan.request, self.cache.fingerprint) if moved else plan.partition
        entry = Entry(
            key=key,
            partition=where,
            text=plan.text,
            answer=answer,
            tenant=plan.tenant,
            model=endpoint.spec.model,
            revision=endpoint.spec.revision,
            epoch=plan.epoch,
            created_at=now,
            expires_at=now + ttl_s * (1 - plan.terms.ttl_jitter * self._chance()),
            duration_s=self._gate.now() - flight.began_at,
        )
        self.metrics.stored.cell(entry.model).value += 1
        return self.cache.put(entry, flight.vector)

    def go_alone(self, rider: Rider) -> None:
        """The shared answer is of no use to this client."""
        self._gate.pass_on(rider.ask)

    # -- Surroundings of background work ---------------------------------------------------------------------

    def endpoints_of(self, model: str) -> list[Endpoint]:
        """All endpoints of a model."""
        return list(self._gate.endpoints.of_model(model))

    def waiting(self, model: str) -> int:
        """Requests that wait for a replica."""
        return self._gate.room.all_waiting().get(model, 0)

    def under_way(self, plan: Plan) -> bool:
        """The same is being generated for somebody."""
        return any((plan.key, streams) in self._flights for streams in (True, False))

    # -- Owner of riders -------------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds on a monotonic clock."""
        return self._gate.now()

    def closed(self, rider: Rider) -> None:
        """A request has ended."""
        self.metrics.closed(rider)
        self._gate.closed(rider)

    def _turn_late_away(self) -> None:
        """Who rides on somebody else's flight may have less patience."""
        now = self._gate.now()
        for flight in list(self._flights.values()):
            for rider in [rider for rider in flight.riders if rider.ask.deadline < now and not rider.first_byte_at]:
                rider.refuse(
                    unavailable(f"No answer of `{rider.model}` began in time.", code="queue_timeout", retry_after_s=1)
                )
                flight.left(rider)

    def turn_all_away(self) -> None:
        """The drain's deadline has passed: nobody waits for a look-up any longer."""
        error = unavailable("This gateway has shut down.", code="draining", retry_after_s=1)
        for flight in list(self._flights.values()):
            flight.refuse(error)

    def start(self) -> None:
        """Begin what goes on in the background; requests do not wait for it."""
        self.cache.looked = self.metrics.looked
        self.metrics.read_size = self.cache.size
        if self.cache.shared is not None:
            news = self.cache.shared.news
            self.metrics.read_connected = lambda: [((), float(news.connected))]
        self.cache.start()
        self._go_on(self._background.run())
        self._go_on(self._chores())

    async def _chores(self) -> None:
        """Once a second: memory of what is void is given back, and figures that others count are taken over."""
        while True:
            self.cache.memory.sweep()
            self._turn_late_away()
            self.metrics.take_over(self.cache.memory.evictions.items(), self.cache.store_failures())
            await asyncio.sleep(CHORES_S)

    async def operate(self, name: str, body: bytes) -> bytes:
        """Answer a question of ``inferdock cache``; see :class:`Operations` for what it raises."""
        return await Operations(self).answer(name, body)

    async def close(self) -> None:
        """End what goes on in the background."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.cache.close()


def _bypass_headers(reason: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-inferdock-cache", b"bypass"), (b"x-inferdock-cache-reason", reason.encode())]
