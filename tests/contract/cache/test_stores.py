"""What every store of entries does, whether it is a dictionary or a real Redis, encrypted or not."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import pytest

from inferdock.cache.entry import Entry
from inferdock.cache.epochs import Epochs
from inferdock.cache.memory_store import MemoryStore
from inferdock.cache.redis_address import redis_address
from inferdock.cache.redis_link import RedisLink
from inferdock.cache.redis_store import RedisStore
from inferdock.cache.sealer import Sealer
from inferdock.cache.store import EVERYTHING, Scope, SharedStore
from inferdock.telemetry.logs import EventLog
from tests.support.cache_values import VECTOR, FakeClock, answer, digest, entry
from tests.support.fake_shared_store import FakeSharedStore
from tests.support.redis_server import RedisServer, running_redis

TTL_S = 60.0


class Bench(Protocol):
    """A store, its clock and its epochs."""

    store: SharedStore
    clock: FakeClock
    epochs: Epochs

    def made(self, word: str = "zinc", **changes: object) -> Entry: ...


class _Memory:
    """The store in memory, asked as a shared one."""

    def __init__(self, epochs: Epochs, clock: FakeClock) -> None:
        self._store = MemoryStore(max_bytes=2**24, max_entries=100, clock=clock, epochs=epochs)
        self._epochs = epochs

    async def get(self, key: bytes, partition: bytes | None = None) -> Entry | None:
        return self._store.get(key, partition)

    async def put(self, entry: Entry, vector: bytes | None = None) -> bool:
        return self._store.put(entry)

    async def remove(self, key: bytes) -> bool:
        self._store.remove(key)
        return True

    async def flush(self, scope: Scope) -> bool:
        self._epochs.bump(scope)
        self._store.flush()
        return True

    async def stats(self) -> None:
        return None


class _Bench:
    def __init__(self) -> None:
        self.clock = FakeClock(float(int(time.time())))
        self.epochs = Epochs(self.clock)
        self.store: SharedStore

    def made(self, word: str = "zinc", **changes: object) -> Entry:
        """An entry of the present epoch."""
        made = entry(word, now=self.clock.now, ttl_s=TTL_S)
        fields = {name: getattr(made, name) for name in made.__struct_fields__} | changes
        if "epoch" not in changes:
            fields["epoch"] = self.epochs.of(str(fields["tenant"]), str(fields["model"]))
        return Entry(**fields)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["memory", "fake", "redis", "redis-sealed"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    made = _Bench()
    if request.param == "memory":
        made.store = _Memory(made.epochs, made.clock)
        yield made
    elif request.param == "fake":
        made.store = FakeSharedStore(epochs=made.epochs, clock=made.clock)
        yield made
    else:
        server: RedisServer = request.getfixturevalue("server")
        link = RedisLink(redis_address(server.url), log=EventLog(lambda data: None), budget_s=2.0)
        seal = {"seal": Sealer([bytes(32)])} if request.param == "redis-sealed" else {}
        made.store = RedisStore(
            link, epochs=made.epochs, clock=made.clock, origin="a", namespace=f"t:{id(made)}:{time.time()}", **seal
        )
        await made.store.flush(EVERYTHING)  # an empty Redis begins with a flush, which RedisSync meets at its start
        yield made
        await link.close()


async def test_what_was_put_comes_back_whole(bench: Bench) -> None:
    stored = bench.made(
        answer=answer(reasoning="Let me think.", stop_reason=7, system_fingerprint="fp", output_tokens=2**40)
    )
    assert await bench.store.put(stored, VECTOR)
    assert await bench.store.get(stored.key) == stored


async def test_an_unknown_key_is_a_miss(bench: Bench) -> None:
    assert await bench.store.get(digest("unknown")) is None


async def test_of_two_entries_of_one_key_the_last_counts(bench: Bench) -> None:
    first, second = bench.made(), bench.made(answer=answer("Another one."))
    await bench.store.put(first)
    await bench.store.put(second)
    assert await bench.store.get(first.key) == second


async def test_entries_of_other_keys_stay(bench: Bench) -> None:
    zinc, lead = bench.made("zinc"), bench.made("lead")
    await bench.store.put(zinc)
    await bench.store.put(lead)
    assert (await bench.store.get(zinc.key), await bench.store.get(lead.key)) == (zinc, lead)


@pytest.mark.parametrize(("partition", "found"), [("partition", True), ("another", False)])
async def test_an_entry_of_another_partition_is_a_miss(bench: Bench, partition: str, found: bool) -> None:
    await bench.store.put(bench.made())
    assert (await bench.store.get(digest("zinc"), digest(partition)) is not None) is found


@pytest.mark.parametrize(("after_s", "found"), [(0.0, True), (TTL_S - 0.001, True), (TTL_S, False), (1e9, False)])
async def test_an_entry_lives_until_its_second_and_not_longer(bench: Bench, after_s: float, found: bool) -> None:
    await bench.store.put(bench.made())
    bench.clock.now += after_s
    assert (await bench.store.get(digest("zinc")) is not None) is found


async def test_hits_do_not_prolong_a_life(bench: Bench) -> None:
    await bench.store.put(bench.made())
    for _ in range(6):
        bench.clock.now += TTL_S / 6 - 0.001
        assert await bench.store.get(digest("zinc"))
    bench.clock.now += 0.006
    assert await bench.store.get(digest("zinc")) is None


async def test_what_has_expired_already_is_not_taken(bench: Bench) -> None:
    assert not await bench.store.put(bench.made(expires_at=bench.clock.now))
    assert await bench.store.get(digest("zinc")) is None


@pytest.mark.parametrize(
    ("scope", "survivors"),
    [
        (EVERYTHING, []),
        (Scope("model", "m"), ["another model"]),
        (Scope("tenant", "tenant-one"), ["another tenant"]),
        (Scope("tenant", "unheard of"), ["zinc", "another model", "another tenant"]),
    ],
    ids=["all", "model", "tenant", "stranger"],
)
async def test_a_flush_voids_its_scope_and_nothing_else(bench: Bench, scope: Scope, survivors: list[str]) -> None:
    await bench.store.put(bench.made("zinc"))
    await bench.store.put(bench.made("another model", model="n"))
    await bench.store.put(bench.made("another tenant", tenant="two"))
    assert await bench.store.flush(scope)
    words = ["zinc", "another model", "another tenant"]
    found = [word for word in words if await bench.store.get(digest(word))]
    assert found == survivors


async def test_an_answer_begun_before_a_flush_is_not_kept_after_it(bench: Bench) -> None:
    begun = bench.made()
    await bench.store.flush(Scope("model", "m"))
    assert not await bench.store.put(begun)
    assert await bench.store.get(begun.key) is None


async def test_after_a_flush_new_entries_are_kept(bench: Bench) -> None:
    await bench.store.flush(EVERYTHING)
    stored = bench.made()
    assert await bench.store.put(stored)
    assert await bench.store.get(stored.key) == stored


async def test_what_was_removed_is_a_miss(bench: Bench) -> None:
    await bench.store.put(bench.made(), VECTOR)
    assert await bench.store.remove(digest("zinc"))
    assert await bench.store.get(digest("zinc")) is None


async def test_removing_what_is_not_there_is_no_error(bench: Bench) -> None:
    assert await bench.store.remove(digest("unknown"))


@pytest.mark.parametrize("size", [0, 1, 300, 1_000_000], ids=str)
async def test_answers_of_all_sizes_are_kept(bench: Bench, size: int) -> None:
    stored = bench.made(answer=answer("é" * size))
    assert await bench.store.put(stored)
    assert await bench.store.get(stored.key) == stored


async def test_an_entry_without_a_text_is_kept(bench: Bench) -> None:
    stored = bench.made(text=None)
    assert await bench.store.put(stored)
    assert await bench.store.get(stored.key) == stored
