"""The log that keeps gateways current: at the start, as it grows, and after all that may happen to Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from inferdock.cache.codec import encode_insert
from inferdock.cache.redis_names import Names
from inferdock.cache.redis_store import NAMESPACE
from inferdock.cache.sealer import Sealer
from inferdock.cache.store import EVERYTHING, Scope
from tests.integration.cache.parts import Gateway, until
from tests.support.cache_values import VECTOR, digest
from tests.support.redis_server import RedisServer, running_redis

Make = Callable[..., Gateway]
NAMES = Names(NAMESPACE)


@pytest.fixture
async def pair(gateways: Make) -> tuple[Gateway, Gateway]:
    """Two gateways that are current."""
    one, two = gateways(budget_s=2.0), gateways(budget_s=2.0)
    await one.start()
    await two.start()
    return one, two


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
async def test_what_one_gateway_stores_another_can_find_within_a_second(gateways: Make, sealed: bool) -> None:
    options = {"seal": Sealer([bytes(32)])} if sealed else {}
    one, two = gateways(budget_s=2.0, **options), gateways(budget_s=2.0, **options)
    await one.start()
    await two.start()
    stored = one.entry()
    began = time.monotonic()
    await one.store.put(stored, VECTOR)
    await until(lambda: stored.key in two.heard.inserts)
    assert time.monotonic() - began < 1.0
    insert = two.heard.inserts[stored.key]
    assert (insert.vector, insert.text, insert.partition) == (VECTOR, stored.text, stored.partition)
    assert await two.store.get(stored.key) == stored


async def test_a_gateway_does_not_hear_its_own_news(pair: tuple[Gateway, Gateway]) -> None:
    one, two = pair
    await one.store.put(one.entry(), VECTOR)
    await one.store.remove(digest("zinc"))
    await until(lambda: ("removed", digest("zinc")) in two.heard.told)
    await until(lambda: one.sync.counts["own"] == 2)
    assert not one.heard.inserts
    assert ("removed", digest("zinc")) not in one.heard.told


async def test_an_entry_without_a_vector_is_no_news(pair: tuple[Gateway, Gateway]) -> None:
    one, two = pair
    await one.store.put(one.entry("silent"))
    await one.store.put(one.entry("loud"), VECTOR)
    await until(lambda: digest("loud") in two.heard.inserts)
    assert digest("silent") not in two.heard.inserts


async def test_a_flush_reaches_others_within_a_second(pair: tuple[Gateway, Gateway]) -> None:
    one, two = pair
    stored = one.entry()
    await one.store.put(stored, VECTOR)
    assert await two.store.get(stored.key) == stored
    scope = Scope("model", "m")
    assert await one.store.flush(scope)
    await until(lambda: ("flushed", scope.tag) in two.heard.told, within_s=1.0)
    assert await two.store.get(stored.key) is None
    assert one.epochs.of("tenant-one", "m") == two.epochs.of("tenant-one", "m")


async def test_a_new_gateway_loads_what_there_is(pair: tuple[Gateway, Gateway], gateways: Make) -> None:
    one, _ = pair
    for number in range(1000):
        await one.store.put(one.entry(str(number)), VECTOR)
    await one.store.remove(digest("7"))
    late = gateways()
    await late.start()
    assert len(late.heard.inserts) == 999
    assert digest("7") not in late.heard.inserts
    assert late.sync.progress[0] == late.sync.progress[1]
    assert late.epochs.of("tenant-one", "m") == one.epochs.of("tenant-one", "m")


async def test_expired_entries_are_not_told(pair: tuple[Gateway, Gateway], gateways: Make) -> None:
    one, _ = pair
    await one.store.put(one.entry(ttl_s=0.1), VECTOR)
    await asyncio.sleep(0.2)
    late = gateways()
    await late.start()
    assert not late.heard.inserts
    assert late.sync.counts["expired"] == 1


async def test_a_flush_that_redis_missed_is_told_when_it_is_back(
    pair: tuple[Gateway, Gateway], server: RedisServer
) -> None:
    one, two = pair
    stored = one.entry()
    await one.store.put(stored, VECTOR)
    server.freeze()
    one.epochs.bump(Scope("tenant", "tenant-one"))
    server.thaw()
    await until(lambda: one.epochs.of("tenant-one", "m") == two.epochs.of("tenant-one", "m"), within_s=10)
    assert await two.store.get(stored.key) is None
    assert one.epochs.unspread() == {}


async def test_after_kill_and_restart_nothing_that_was_flushed_comes_back(
    pair: tuple[Gateway, Gateway], server: RedisServer, gateways: Make
) -> None:
    one, two = pair
    stored = one.entry()
    await one.store.flush(EVERYTHING)
    token = one.epochs.of("tenant-one", "m")
    server.kill()
    await until(lambda: not one.sync.connected and not two.sync.connected)
    server.start()
    await until(lambda: one.sync.connected and two.sync.connected)
    late = gateways()
    await late.start()
    await until(lambda: len({each.epochs.of("tenant-one", "m") for each in (one, two, late)}) == 1)
    assert late.epochs.of("tenant-one", "m") >= token
    assert not late.epochs.holds(stored)


async def test_after_kill_and_restart_gateways_hear_of_each_other_again(
    pair: tuple[Gateway, Gateway], server: RedisServer
) -> None:
    one, two = pair
    await one.store.put(one.entry("before"), VECTOR)
    await until(lambda: digest("before") in two.heard.inserts)
    server.kill()
    await until(lambda: not two.sync.connected)
    server.start()
    await until(lambda: two.sync.connected)
    await until(lambda: one.store.up)
    for number in range(20):
        await one.store.put(one.entry(f"after {number}"), VECTOR)
    await one.store.put(one.entry("after"), VECTOR)
    await until(lambda: digest("after") in two.heard.inserts)
    assert digest("before") in two.heard.inserts  # what was known is not forgotten
    assert two.sync.counts["resets"] == 0


async def test_what_was_written_while_a_gateway_was_cut_off_is_not_missed(tmp_path: Path, gateways: Make) -> None:
    with running_redis(tmp_path / "kept", "--appendonly", "yes", "--appendfsync", "always") as server:
        one, two = gateways(server.url, budget_s=2.0), gateways(server.url, budget_s=2.0)
        await one.start()
        await two.start()
        await one.store.put(one.entry("known"), VECTOR)
        await until(lambda: digest("known") in two.heard.inserts)
        await two.link.run(lambda client: client.execute("CLIENT", "PAUSE", 300, "WRITE"))
        for kill_number in range(3):
            await one.link.run(lambda client: client.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
            await one.store.put(one.entry(f"word {kill_number}"), VECTOR)
        server.kill()
        server.start()
        await until(lambda: one.store.up)
        await one.store.get(digest("known"))
        for number in range(300):
            assert await one.store.put(one.entry(str(number)), VECTOR)
        await until(lambda: all(digest(str(number)) in two.heard.inserts for number in range(300)))
        inserts = [key for what, key in two.heard.told if what == "inserted"]
        assert set(inserts) == set(two.heard.inserts)


async def test_lost_connections_lose_no_news_and_tell_none_twice(pair: tuple[Gateway, Gateway]) -> None:
    one, two = pair
    for number in range(200):
        assert await one.store.put(one.entry(str(number)), VECTOR)
        if number % 40 == 0:
            await one.link.run(lambda client: client.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
            await asyncio.sleep(0.05)
            await one.store.get(digest("wakes the breaker"))
    await until(lambda: len(two.heard.inserts) == 200)
    inserts = [key for what, key in two.heard.told if what == "inserted"]
    assert len(inserts) == len(set(inserts)) == 200
    assert two.sync.counts["reconnects"] > 0
    assert two.sync.counts["rereads"] == two.sync.counts["resets"] == 0


async def test_a_log_that_was_cut_in_the_meantime_makes_everything_be_told_anew(
    server: RedisServer, gateways: Make
) -> None:
    one, two = gateways(budget_s=2.0), gateways(budget_s=2.0)
    await one.start()
    await two.start()
    await one.store.put(one.entry("old"), VECTOR)
    await two.store.put(two.entry("own"), VECTOR)
    await until(lambda: digest("old") in two.heard.inserts)
    two.sync.connected = False
    task = two._task
    assert task is not None
    task.cancel()
    await asyncio.wait((task,))
    for number in range(10):
        await one.store.put(one.entry(str(number)), VECTOR)
    await two.store.put(two.entry("own too"), VECTOR)
    await one.link.run(lambda client: client.execute("XTRIM", NAMES.log, "MAXLEN", "=", 5))
    two._task = asyncio.ensure_future(two.sync.run())
    await until(lambda: two.sync.connected and digest("9") in two.heard.inserts)
    assert [what for what, _ in two.heard.told].count("reset") == 1
    await until(lambda: digest("own too") in two.heard.inserts)  # because all was forgotten
    assert digest("old") not in two.heard.inserts


async def test_a_log_that_was_deleted_is_read_from_its_new_beginning(pair: tuple[Gateway, Gateway]) -> None:
    one, two = pair
    await one.store.put(one.entry("before"), VECTOR)
    await until(lambda: digest("before") in two.heard.inserts)
    await one.link.run(lambda client: client.execute("DEL", NAMES.log))
    body = encode_insert(one.entry("early"), VECTOR)
    event = ("t", "i", "o", "x", "k", digest("early"), "b", body)
    await one.link.run(lambda client: client.execute("XADD", NAMES.log, "5-1", *event))  # as if time stood back
    await until(lambda: digest("early") in two.heard.inserts)
    assert two.sync.counts["rereads"] == 1


POISON: dict[str, tuple[bytes | str, ...]] = {
    "empty": ("x", "y"),
    "no key": ("t", "i", "o", "x", "b", b"\x01"),
    "short key": ("t", "r", "o", "x", "k", b"short"),
    "no body": ("t", "i", "o", "x", "k", digest("zinc")),
    "random body": ("t", "i", "o", "x", "k", digest("zinc"), "b", bytes(range(200))),
    "another entry's body": ("t", "i", "o", "x", "k", digest("zinc"), "b", b"OTHER"),
    "unknown": ("t", "z", "o", "x", "k", digest("zinc")),
    "no number": ("t", "f", "o", "x", "s", "g", "n", "many"),
    "a number beyond time": ("t", "f", "o", "x", "s", "g", "n", "9" * 18),
    "no tag": ("t", "f", "o", "x", "s", b"\xff\xfe", "n", "5"),
}


@pytest.mark.parametrize("kind", POISON)
async def test_poisoned_news_are_skipped(pair: tuple[Gateway, Gateway], kind: str) -> None:
    one, two = pair
    other = encode_insert(one.entry("another"), VECTOR)
    event = tuple(other if word == b"OTHER" else word for word in POISON[kind])
    token = two.epochs.of("tenant-one", "m")
    await one.link.run(lambda client: client.execute("XADD", NAMES.log, "*", *event))
    await one.store.put(one.entry("after"), VECTOR)
    await until(lambda: digest("after") in two.heard.inserts)
    assert list(two.heard.inserts) == [digest("after")]
    assert two.epochs.of("tenant-one", "m") == token
    assert two.sync.connected


@pytest.mark.parametrize(
    "command",
    [
        ("SET", NAMES.epochs, "x"),
        ("HSET", NAMES.epochs, "g", "9" * 18),
        ("HSET", NAMES.epochs, "g", "-5"),
        ("HSET", NAMES.epochs, "g", "abc"),
        ("DEL", NAMES.epochs),
    ],
    ids=["another type", "beyond time", "negative", "no number", "deleted"],
)
async def test_epochs_that_were_poisoned_or_lost_revive_nothing(
    pair: tuple[Gateway, Gateway], gateways: Make, command: tuple[str, ...]
) -> None:
    one, two = pair
    await one.store.flush(EVERYTHING)
    flushed = one.entry(epoch=one.epochs.of("tenant-one", "m"))
    assert await one.store.put(flushed)
    await one.store.flush(EVERYTHING)
    await one.link.run(lambda client: client.execute(*command))
    late = gateways(budget_s=2.0)
    await late.start()
    assert await late.store.get(flushed.key) is None
    await until(lambda: len({each.epochs.of("tenant-one", "m") for each in (one, two, late)}) == 1)
    assert await one.store.flush(Scope("model", "m"))
    await until(lambda: len({each.epochs.of("tenant-one", "m") for each in (one, two, late)}) == 1)


async def test_more_scopes_than_there_is_room_for_become_a_flush_of_all(pair: tuple[Gateway, Gateway]) -> None:
    one, two = pair
    one.epochs.max_scopes = two.epochs.max_scopes = 5
    before = one.epochs.of("nobody", "none")
    for number in range(8):
        await one.store.flush(Scope("tenant", str(number)))
    await until(lambda: one.epochs.of("nobody", "none") == two.epochs.of("nobody", "none") != before)
    count = await one.link.run(lambda client: client.execute("HLEN", NAMES.epochs))
    assert count is not None
    assert count <= 5


async def test_the_log_keeps_no_more_than_it_should(gateways: Make) -> None:
    one = gateways(budget_s=2.0, max_log=100)
    await one.start()
    for number in range(500):
        await one.store.put(one.entry(str(number)), VECTOR)
    stats = await one.store.stats()
    assert stats is not None
    assert 100 <= stats.log_entries < 300  # whole nodes of the stream are cut


async def test_old_news_leave_the_log(gateways: Make) -> None:
    one = gateways(budget_s=2.0, log_age_s=0.2)
    await one.start()
    for number in range(250):
        await one.store.put(one.entry(str(number)), VECTOR)
    await asyncio.sleep(0.3)
    for number in range(20):
        await one.store.put(one.entry(str(number)), VECTOR)
    stats = await one.store.stats()
    assert stats is not None
    assert stats.log_entries < 150


@pytest.mark.alone
async def test_loading_leaves_the_event_loop_free(pair: tuple[Gateway, Gateway], gateways: Make) -> None:
    one, _ = pair
    for start in range(0, 10_000, 500):
        await asyncio.gather(*(one.store.put(one.entry(str(number)), VECTOR) for number in range(start, start + 200)))
    late = gateways()
    loading = asyncio.ensure_future(late.start())
    longest, last = 0.0, time.perf_counter()
    while not loading.done():
        await asyncio.sleep(0)
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    await loading
    assert len(late.heard.inserts) == 4000
    assert longest < 0.1
