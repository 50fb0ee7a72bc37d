"""The store in memory: bounds, what goes first, and what is told. What all stores do is in tests/contract/cache."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.cache.codec import decode_entry, encode_entry
from inferdock.cache.entry import Entry
from inferdock.cache.epochs import Epochs
from inferdock.cache.memory_store import MemoryStore, size_of
from inferdock.cache.store import EVERYTHING, Scope
from tests.support.cache_values import FakeClock, answer, digest, entry


@dataclass
class Made:
    """A store with all that it uses."""

    max_bytes: int = 10**6
    max_entries: int = 1000
    clock: FakeClock = field(default_factory=FakeClock)
    dropped: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.epochs = Epochs(self.clock)
        self.store = MemoryStore(
            max_bytes=self.max_bytes,
            max_entries=self.max_entries,
            clock=self.clock,
            epochs=self.epochs,
            on_drop=self.dropped.append,
        )

    def put(self, *words: str, ttl_s: float = 60.0) -> None:
        for word in words:
            epoch = self.epochs.of("tenant-one", "m")
            assert self.store.put(entry(word, now=self.clock.now, ttl_s=ttl_s, epoch=epoch))

    def words(self, *words: str) -> list[str]:
        return [word for word in words if self.store.get(digest(word)) is not None]


def test_the_least_recently_used_goes_first() -> None:
    made = Made(max_entries=3)
    made.put("a", "b", "c")
    made.store.get(digest("a"))
    made.put("d")
    assert made.words("a", "b", "c", "d") == ["a", "c", "d"]
    assert made.store.evictions["evicted"] == 1
    assert [gone.key for gone in made.dropped] == [digest("b")]


def test_bytes_are_bounded_too() -> None:
    made = Made(max_bytes=5 * size_of(entry()))
    made.put(*"abcdefgh")
    assert made.words(*"abcdefgh") == list("defgh")
    assert made.store.nbytes <= made.max_bytes


def test_what_is_larger_than_the_store_does_not_come_in() -> None:
    made = Made(max_bytes=10_000)
    made.put("a")
    assert not made.store.put(entry("big", answer=answer("x" * 10_000)))
    assert made.words("a", "big") == ["a"]
    assert made.store.evictions["size"] == 1


def test_an_entry_that_is_replaced_is_not_said_to_be_dropped() -> None:
    made = Made()
    made.put("a", "a")
    assert (len(made.store), made.dropped) == (1, [])


def test_an_expired_entry_is_dropped_when_it_is_met() -> None:
    made = Made()
    made.put("a")
    made.clock.now += 60
    assert made.store.get(digest("a")) is None
    assert (len(made.store), len(made.dropped), made.store.evictions["expired"]) == (0, 1, 1)


def test_a_sweep_finds_expired_entries_a_few_at_a_time() -> None:
    made = Made()
    made.put(*map(str, range(100)), ttl_s=10)
    made.put("stays", ttl_s=1000)
    made.clock.now += 500
    assert [made.store.sweep(30) for _ in range(5)] == [30, 30, 30, 10, 0]
    assert (len(made.store), len(made.dropped)) == (1, 100)


def test_a_sweep_after_a_long_sleep_is_bounded_and_gets_there() -> None:
    made = Made()
    made.put("a", ttl_s=100_000)
    made.clock.now += 200_000
    began = time.perf_counter()
    made.store.sweep()
    assert time.perf_counter() - began < 0.5
    for _ in range(200):
        made.store.sweep()
    assert len(made.store) == 0


def test_storing_gives_back_the_memory_of_expired_entries() -> None:
    made = Made()
    made.put(*map(str, range(20)), ttl_s=1)
    made.clock.now += 10
    made.put(*map(str, range(100, 120)))
    assert len(made.store) == 20


def test_entries_that_expire_before_the_clock_was_set_back_are_swept_too() -> None:
    made = Made()
    made.put("a", ttl_s=5)
    made.clock.now += 100
    made.store.sweep()
    made.clock.now -= 50
    made.put("b", ttl_s=5)
    made.clock.now += 10
    assert made.store.sweep() == 1


def test_a_flush_gives_back_memory_and_says_how_much() -> None:
    made = Made()
    made.put(*"abc")
    made.epochs.bump(Scope("model", "other"))
    assert made.store.flush() == 0
    made.epochs.bump(Scope("model", "m"))
    assert made.store.flush() == 3
    assert (len(made.store), made.store.evictions["flushed"], len(made.dropped)) == (0, 3, 3)


def test_a_large_flush_goes_on_in_sweeps_and_spares_what_is_new() -> None:
    made = Made()
    made.put(*map(str, range(50)))
    made.epochs.bump(EVERYTHING)
    assert made.store.flush(limit=10) == 10
    made.put("49")
    assert list(made.store.entries()) == [made.store.get(digest("49"))]
    while made.store.sweep(7):
        pass
    assert (len(made.store), made.words("49")) == (1, ["49"])


def test_entries_are_the_valid_ones() -> None:
    made = Made()
    made.put("short", ttl_s=1)
    made.put("long")
    made.clock.now += 1
    assert [found.key for found in made.store.entries()] == [digest("long")]


def test_removing_returns_the_entry_and_tells() -> None:
    made = Made()
    made.put("a")
    removed = made.store.remove(digest("a"))
    assert removed is not None
    assert made.dropped == [removed]
    assert made.store.remove(digest("a")) is None


def test_clearing_leaves_nothing_and_counts_nothing() -> None:
    made = Made()
    made.put(*"abc")
    made.store.clear()
    assert (len(made.store), made.store.nbytes, sum(made.store.evictions.values())) == (0, 0, 0)


_STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "get", "remove", "wait", "flush", "sweep"]), st.integers(0, 12)), max_size=80
)


@given(_STEPS)
def test_whatever_happens_bounds_hold_and_sums_are_right(steps: list[tuple[str, int]]) -> None:
    made = Made(max_bytes=8 * size_of(entry()), max_entries=7)
    for what, number in steps:
        word = f"{number:04}"  # as long as "zinc"
        match what:
            case "put":
                made.put(word, ttl_s=1.5 * number + 1)
            case "get":
                made.store.get(digest(word))
            case "remove":
                made.store.remove(digest(word))
            case "wait":
                made.clock.now += number / 2
            case "flush":
                made.epochs.bump(EVERYTHING)
                made.store.flush(number)
            case _:
                made.store.sweep(number)
        valid = list(made.store.entries())
        assert len(made.store) <= 7
        assert made.store.nbytes == len(made.store) * size_of(entry())
        assert all(one.expires_at > made.clock.now and made.epochs.holds(one) for one in valid)


@pytest.mark.parametrize("size", [10, 300, 5000])
def test_the_estimate_of_memory_is_about_right(size: int) -> None:
    made = Made(max_bytes=10**9, max_entries=10**6)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(2000):
            word = str(number)
            fresh = answer(word + "x" * size, prompt_tokens=1000 + number, output_tokens=2000 + number)
            stored = entry(word, now=made.clock.now + number / 7, answer=fresh)
            made.store.put(decode_entry(encode_entry(stored)))  # shares no object with others
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.8 < made.store.nbytes / used < 1.3


def test_a_hit_takes_microseconds() -> None:
    made = Made(max_entries=20_000, max_bytes=10**9)
    made.put(*map(str, range(10_000)))
    keys = [digest(str(number)) for number in range(10_000)]
    began = time.perf_counter()
    for key in keys:
        made.store.get(key)
    assert (time.perf_counter() - began) / len(keys) < 100e-6
