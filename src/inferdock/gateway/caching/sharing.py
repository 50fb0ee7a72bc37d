"""A flight that may be another process's: lead it, or follow whoever leads, until the answer is there.

What a leader of a stream publishes: first a :class:`Beginning`, then each event as it comes. Of a body nothing is
published: whoever follows finds it in the store. A leader that dies is noticed, and whoever is first leads instead; its
generation begins anew, and riders get what they lack (``cache.follow``).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Protocol

import msgspec

from inferdock.gateway.caching.flight import Flight, Leading

MAX_LEADERS = 5
"""So many leaders are followed in turn; then the flight generates for itself."""

_ENCODE = msgspec.json.Encoder().encode


class Beginning(msgspec.Struct):
    """First piece of a stream.

    Attributes:
        revision: that answers.
    """

    revision: str


_DECODE = msgspec.json.Decoder(Beginning).decode


class SharedLead(Leading, Protocol):
    """See ``redis_lead.Lead``."""

    shared: bool


class Flights(Protocol):
    """Leads and follows (``redis_flights.RedisFlights``)."""

    async def try_lead(self, key: bytes) -> SharedLead | None: ...
    def follow(self, key: bytes) -> AsyncGenerator[bytes, None]: ...


class Announced:
    """A lead that says who answers before the first event."""

    def __init__(self, lead: Leading, flight: Flight) -> None:
        self._lead = lead
        self._flight = flight
        self._begun = False

    def publish(self, piece: bytes) -> None:
        """The next event."""
        if not self._begun:
            self._begun = True
            exchange = self._flight.exchange
            self._lead.publish(_ENCODE(Beginning(exchange.revision if exchange is not None else "")))
        self._lead.publish(piece)

    def done(self, ok: bool) -> None:
        """The answer is complete, or lost."""
        self._lead.done(ok)


async def generate_shared(
    flight: Flight,
    flights: Flights,
    *,
    lost: type[Exception],
    found: Callable[[], Awaitable[bool]],
) -> None:
    """See the module's first lines.

    Args:
        flight: has found nothing so far.
        flights: of all processes.
        lost: what :meth:`Flights.follow` raises when there is no leader any more.
        found: looks into the store again, and serves what it finds; whether it did.
    """
    key = flight.plan.key if flight.stream else hashlib.sha256(b"body" + flight.plan.key).digest()
    for _ in range(MAX_LEADERS):
        lead = await flights.try_lead(key)
        if lead is not None:
            if lead.shared and flight.untouched and await found():
                lead.done(False)
                return
            flight.generate(Announced(lead, flight))
            return
        try:
            async with contextlib.aclosing(flights.follow(key)) as pieces:
                await _follow(flight, pieces)
        except (lost, msgspec.MsgspecError):
            if not flight.lost():
                return
            if not flight.untouched:
                continue
        if flight.over or (flight.untouched and await found()):
            return
    flight.generate()


async def _follow(flight: Flight, pieces: AsyncGenerator[bytes, None]) -> None:
    """Hand a leader's pieces on, to their end."""
    begun = False
    async for piece in pieces:
        if begun:
            flight.follow_event(piece)
        else:
            begun = True
            flight.follow(_DECODE(piece).revision)
        if flight.over:
            return
    if begun:
        flight.followed()
