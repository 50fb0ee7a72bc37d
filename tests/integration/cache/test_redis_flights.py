"""Generations that several gateways share, over a real Redis."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Callable

import pytest

from inferdock.cache import redis_lead
from inferdock.cache.redis_flights import LeaderLost
from inferdock.cache.redis_names import Names
from inferdock.cache.redis_store import NAMESPACE
from inferdock.cache.sealer import Sealer
from tests.integration.cache.parts import Gateway, until
from tests.support.cache_values import digest
from tests.support.redis_server import RedisServer

Make = Callable[..., Gateway]
NAMES = Names(NAMESPACE)
KEY = digest("zinc")
PIECES = [b"piece %d" % number for number in range(200)]


async def _all(gateway: Gateway, key: bytes = KEY) -> list[bytes]:
    return [piece async for piece in gateway.flights.follow(key)]


@pytest.fixture
def pair(gateways: Make) -> tuple[Gateway, Gateway]:
    return gateways(budget_s=2.0), gateways(budget_s=2.0)


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
async def test_a_follower_gets_every_piece_in_order(gateways: Make, sealed: bool) -> None:
    options = {"seal": Sealer([bytes(32)])} if sealed else {}
    one, two = gateways(budget_s=2.0, **options), gateways(budget_s=2.0, **options)
    lead = await one.flights.try_lead(KEY)
    assert lead is not None
    assert lead.shared
    following = asyncio.ensure_future(_all(two))
    for piece in PIECES:
        lead.publish(piece)
        await asyncio.sleep(0.002)
    lead.done(True)
    assert await following == PIECES


async def test_pieces_come_while_the_leader_goes_on(pair: tuple[Gateway, Gateway]) -> None:
    one, two = pair
    lead = await one.flights.try_lead(KEY)
    assert lead is not None
    lead.publish(b"first")
    pieces = two.flights.follow(KEY)
    began = time.monotonic()
    assert await anext(pieces) == b"first"
    assert time.monotonic() - began < 1.0
    lead.publish(b"second")
    assert await anext(pieces) == b"second"
    lead.done(True)
    with pytest.raises(StopAsyncIteration):
        await anext(pieces)


async def test_only_one_leads(gateways: Make) -> None:
    many = [gateways(budget_s=2.0) for _ in range(5)]
    leads = await asyncio.gather(*(gateway.flights.try_lead(KEY) for gateway in many))
    assert sum(lead is not None for lead in leads) == 1
    other = await many[0].flights.try_lead(digest("another"))
    assert other is not None


async def test_one_who_comes_late_gets_the_beginning_too(pair: tuple[Gateway, Gateway]) -> None:
    one, two = pair
    lead = await one.flights.try_lead(KEY)
    assert lead is not None
    for piece in PIECES[:100]:
        lead.publish(piece)
    first = asyncio.ensure_future(_all(two))
    await asyncio.sleep(0.6)
    second = asyncio.ensure_future(_all(two))
    for piece in PIECES[100:]:
        lead.publish(piece)
    lead.done(True)
    assert await first == PIECES
    assert await second == PIECES


async def test_one_who_follows_at_the_last_moment_gets_everything(pair: tuple[Gateway, Gateway]) -> None:
    one, two = pair
    lead = await one.flights.try_lead(KEY)
    assert lead is not None
    lead.publish(b"all of it")
    pieces = two.flights.follow(KEY)
    first = asyncio.ensure_future(anext(pieces))
    await until(lambda: two.flights.counts["followed"] == 1)
    lead.done(True)
    assert await first == b"all of it"


async def test_an_answer_that_nobody_follows_costs_no_stream(pair: tuple[Gateway, Gateway]) -> None:
    one, _ = pair
    lead = await one.flights.try_lead(KEY)
    assert lead is not None
    for piece in PIECES:
        lead.publish(piece)
    lead.done(True)
    await lead.settled()
    assert await one.link.run(lambda client: client.execute("KEYS", "*")) == []


async def test_after_the_end_there_is_nobody_to_follow_and_one_may_lead(pair: tuple[Gateway, Gateway]) -> None:
    one, two = pair
    lead = await one.flights.try_lead(KEY)
    assert lead is not None
    lead.done(True)
    await lead.settled()
    with pytest.raises(LeaderLost):
        await _all(two)
    assert await two.flights.try_lead(KEY) is not None


async def test_a_leader_that_fails_says_so(pair: tuple[Gateway, Gateway]) -> None:
    one, two = pair
    lead = await one.flights.try_lead(KEY)
    assert lead is not None
    following = asyncio.ensure_future(_all(two))
    await until(lambda: two.flights.counts["followed"] == 1)
    lead.publish(b"half")
    lead.done(False)
    with pytest.raises(LeaderLost, match="failed"):
        await following


async def test_a_lease_is_renewed_as_long_as_the_answer_takes(pair: tuple[Gateway, Gateway]) -> None:
    one, two = pair
    lead = await one.flights.try_lead(KEY)
    assert lead is not None
    following = asyncio.ensure_future(_all(two))
    await asyncio.sleep(redis_lead.LEASE_S + 1.0)  # a long prompt: not a piece for long
    assert await two.flights.try_lead(KEY) is None
    lead.publish(b"at last")
    lead.done(True)
    assert await following == [b"at last"]


def _lead_until_killed(url: str, ready: object) -> None:
    async def lead() -> None:
        gateway = Gateway(url, budget_s=2.0)
        led = await gateway.flights.try_lead(KEY)
        assert led is not None
        number = 0
        while True:
            led.publish(b"%d" % number)
            number += 1
            ready.set()  # type: ignore[attr-defined]
            await asyncio.sleep(0.02)

    asyncio.run(lead())


async def test_a_leader_that_is_killed_is_noticed_within_three_seconds_and_succeeded(
    server: RedisServer, gateways: Make
) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_lead_until_killed, args=(server.url, ready), daemon=True)
    process.start()
    try:
        assert await asyncio.get_running_loop().run_in_executor(None, ready.wait, 30)
        two, got = gateways(budget_s=2.0), list[bytes]()

        async def follow() -> None:
            async for piece in two.flights.follow(KEY):
                got.append(piece)

        following = asyncio.ensure_future(follow())
        await until(lambda: len(got) > 20)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        killed = time.monotonic()
        with pytest.raises(LeaderLost):
            await following
        assert time.monotonic() - killed < 4.0
        assert got == [b"%d" % number for number in range(len(got))]
        lead = await two.flights.try_lead(KEY)
        assert lead is not None
        assert lead.shared
    finally:
        process.kill()
        process.join(10)


async def test_a_leader_that_lost_its_lease_does_not_disturb_the_next(pair: tuple[Gateway, Gateway]) -> None:
    one, two = pair
    old = await one.flights.try_lead(KEY)
    assert old is not None
    await two.link.run(lambda client: client.execute("DEL", NAMES.lease(KEY)))  # as if it had slept too long
    new = await two.flights.try_lead(KEY)
    assert new is not None
    following = asyncio.ensure_future(_all(one))
    old.publish(b"old")
    old.done(True)
    await old.settled()
    new.publish(b"new")
    new.done(True)
    assert await following == [b"new"]
    assert not old.shared


async def test_when_redis_dies_the_leader_goes_on_alone_and_followers_hear_of_it(
    pair: tuple[Gateway, Gateway], server: RedisServer
) -> None:
    one, two = pair
    lead = await one.flights.try_lead(KEY)
    assert lead is not None
    following = asyncio.ensure_future(_all(two))
    lead.publish(b"first")
    await until(lambda: two.flights.counts["followed"] == 1)
    server.kill()
    for _ in range(400):
        lead.publish(b"more")
        await asyncio.sleep(0.01)
    lead.done(True)
    await lead.settled()
    with pytest.raises(LeaderLost):
        await following
    assert not lead.shared
    alone = await one.flights.try_lead(digest("another"))
    assert alone is not None
    assert not alone.shared
    alone.publish(b"x")
    alone.done(True)


async def test_a_frozen_redis_holds_up_neither_side(pair: tuple[Gateway, Gateway], server: RedisServer) -> None:
    one, two = pair
    lead = await one.flights.try_lead(KEY)
    assert lead is not None
    following = asyncio.ensure_future(_all(two))
    await until(lambda: two.flights.counts["followed"] == 1)
    server.freeze()
    try:
        began = time.perf_counter()
        for piece in PIECES:
            lead.publish(piece)
        lead.done(True)
        assert time.perf_counter() - began < 0.1
        with pytest.raises(LeaderLost):
            await following
        assert time.perf_counter() - began < 6.0
    finally:
        server.thaw()


async def test_a_lease_that_comes_too_late_is_given_back(server: RedisServer, gateways: Make) -> None:
    one, two = gateways(), gateways(budget_s=2.0)
    await one.store.get(digest("opens a connection"))
    server.freeze()
    lead = await one.flights.try_lead(KEY)
    server.thaw()
    assert lead is not None
    assert not lead.shared
    await asyncio.sleep(0.3)
    assert await two.flights.try_lead(KEY) is not None  # well before a lease would have ended


async def test_followers_may_leave(pair: tuple[Gateway, Gateway]) -> None:
    one, two = pair
    lead = await one.flights.try_lead(KEY)
    assert lead is not None
    leaving = [asyncio.ensure_future(_all(two)) for _ in range(10)]
    staying = asyncio.ensure_future(_all(two))
    await until(lambda: two.flights.counts["followed"] == 11)
    lead.publish(b"first")
    await asyncio.sleep(0.4)
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    lead.publish(b"second")
    lead.done(True)
    assert await staying == [b"first", b"second"]


async def test_an_answer_that_is_too_large_is_not_shared_to_its_end(pair: tuple[Gateway, Gateway]) -> None:
    one, two = pair
    lead = await one.flights.try_lead(KEY)
    assert lead is not None
    following = asyncio.ensure_future(_all(two))
    await until(lambda: two.flights.counts["followed"] == 1)
    for _ in range(redis_lead.MAX_FLIGHT_BYTES // 65536 + 1):
        lead.publish(bytes(65536))
    with pytest.raises(LeaderLost):
        await following


async def test_large_answers_go_through_in_portions(pair: tuple[Gateway, Gateway]) -> None:
    one, two = pair
    lead = await one.flights.try_lead(KEY)
    assert lead is not None
    sent = [bytes([number]) * 50_000 for number in range(30)]
    for piece in sent:
        lead.publish(piece)
    following = asyncio.ensure_future(_all(two))
    await until(lambda: two.flights.counts["followed"] == 1)
    lead.done(True)
    assert await following == sent


@pytest.mark.parametrize(
    "poison", [("n", "0"), ("x", "y"), ("n", "5", "p", "x"), ("n", "0", "p", b"\x92\x01")], ids=str
)
async def test_poisoned_pieces_end_the_following(pair: tuple[Gateway, Gateway], poison: tuple[str, ...]) -> None:
    one, two = pair
    lead = await one.flights.try_lead(KEY)
    assert lead is not None
    name = NAMES.flight(KEY, lead.token)
    await one.link.run(lambda client: client.execute("XADD", name, "*", *poison))
    with pytest.raises(LeaderLost):
        await _all(two)


async def test_pieces_lie_sealed_in_redis(gateways: Make) -> None:
    gateway = gateways(budget_s=2.0, seal=Sealer([bytes(32)]))
    lead = await gateway.flights.try_lead(KEY)
    assert lead is not None
    lead.wanted()
    lead.publish(b"a very secret piece")
    await lead.settled()
    name = NAMES.flight(KEY, lead.token)
    stream = await gateway.link.run(lambda client: client.execute("XRANGE", name, "-", "+"))
    assert stream
    assert "secret" not in repr(stream)
