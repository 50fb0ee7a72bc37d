"""The semantic tier with a made-up embedding: order of changes, bounds, expiry, what is said of a miss."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest

from inferdock.cache import semantic_tier
from inferdock.cache.embedder import TooLong
from inferdock.cache.guard import Guard, surface_form
from inferdock.cache.index import IndexSet
from inferdock.cache.match import Limits
from inferdock.cache.packing import pack
from inferdock.cache.semantic_tier import SemanticTier

PARTITION, OTHER = b"p" * 32, b"q" * 32
LIMITS = Limits(0.95)


class WordVectors:
    """Texts with the same words have the same vector.

    Attributes:
        embedded: texts so far.
    """

    fingerprint = "words"
    fast_tokens = 16

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def token_count(self, text: str) -> int:
        return len(text.split()) + 2

    def embed(self, text: str) -> np.ndarray:
        if len(text) > 4096:
            raise TooLong("too long")
        self.embedded.append(text)
        vector = np.full(384, 1e-4, dtype=np.float32)
        for word in surface_form(text).split():
            vector[sum(map(ord, word)) % 384] += 1
        return vector / np.linalg.norm(vector)


class Clock:
    """Time that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def vectors() -> WordVectors:
    return WordVectors()


@pytest.fixture
def tier(vectors: WordVectors, clock: Clock) -> Iterator[SemanticTier]:
    made = SemanticTier(
        load=lambda: vectors,
        index=IndexSet(),
        guard=Guard(),
        surface_form=surface_form,
        threshold=lambda base, entries: base,
        pack=pack,
        cosine=lambda one, other: 1.0,
        max_entries=5,
        wall_clock=clock,
    )
    made.start_now()
    yield made
    made.close()


def look(tier: SemanticTier, text: str, partition: bytes = PARTITION, limits: Limits = LIMITS):
    return tier.look_now(partition, text, limits)


def test_what_was_inserted_is_found_by_meaning_in_its_partition_only(tier: SemanticTier) -> None:
    tier.insert(PARTITION, key(1), "How do I reset my password?", None, 2000.0)
    loose = Limits(0.85)  # the vectors know words only
    assert look(tier, "how can I reset my password", limits=loose).key == key(1)
    assert look(tier, "how can I reset my password", OTHER, loose).key is None


def test_an_empty_partition_costs_no_embedding(tier: SemanticTier, vectors: WordVectors) -> None:
    match = look(tier, "anything")
    assert (match.key, match.reason, match.vector) == (None, "empty", None)
    assert vectors.embedded == []


def test_a_surface_variant_costs_no_embedding_either(tier: SemanticTier, vectors: WordVectors) -> None:
    tier.insert(PARTITION, key(1), "Where is the river?", None, 2000.0)
    look(tier, "something else to be sure that the insert is done")
    before = len(vectors.embedded)
    assert look(tier, "  where is   the river").reason == "surface"
    assert len(vectors.embedded) == before


def test_changes_happen_in_the_order_in_which_they_are_asked_for(tier: SemanticTier) -> None:
    for number in range(200):
        tier.insert(PARTITION, key(number), "Where is the river?", None, 2000.0)
        tier.remove(key(number))
        tier.insert(PARTITION, key(number), "Where is the river?", None, 2000.0)
        tier.clear()
        tier.insert(PARTITION, key(number), "Where is the river?", None, 2000.0)
        assert look(tier, "where is the river").key == key(number)


def test_a_caller_without_a_loop_finds_what_it_has_just_stored_however_slow_the_thread_is(
    tier: SemanticTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(semantic_tier, "SLICE_S", -1.0)  # no change is made in the background
    for number in range(5):
        tier.insert(PARTITION, key(number), f"What is thing {'abcde'[number]} made of?", None, 2000.0)
    assert look(tier, "what is thing e made of").key == key(4)


def test_an_expired_message_is_not_found(tier: SemanticTier, clock: Clock) -> None:
    tier.insert(PARTITION, key(1), "Where is the river?", None, 1010.0)
    assert look(tier, "where is the river").key == key(1)
    clock.now = 1010.0
    assert look(tier, "where is the river").key is None
    assert len(tier) == 0


def test_a_message_that_is_stored_anew_lives_as_long_as_the_new_one(tier: SemanticTier, clock: Clock) -> None:
    tier.insert(PARTITION, key(1), "Where is the river?", None, 1010.0)
    tier.insert(PARTITION, key(1), "Where is the river?", None, 1100.0)
    clock.now = 1050.0
    assert look(tier, "where is the river").key == key(1)


def test_the_oldest_go_when_there_are_too_many(tier: SemanticTier) -> None:
    for number in range(8):
        tier.insert(PARTITION, key(number), f"What is thing {'abcdefgh'[number]} made of?", None, 2000.0)
    look(tier, "done")
    assert len(tier) == 5
    assert look(tier, "what is thing a made of").key is None
    assert look(tier, "what is thing h made of").key == key(7)


def test_texts_that_take_too_long_are_only_found_if_they_differ_on_the_surface(tier: SemanticTier) -> None:
    long = "the river and the bridge " * 8
    tier.insert(PARTITION, key(1), "Where is the river?", None, 2000.0)
    assert look(tier, long).reason == "too long"


def test_damaged_vectors_are_left_out(tier: SemanticTier) -> None:
    tier.insert(PARTITION, key(1), "Where is the river?", b"no vector", 2000.0)
    tier.insert(PARTITION, key(2), "Where is the bridge?", b"\0" * 384, 2000.0)
    tier.insert(PARTITION, key(3), "Where is the house?", None, 2000.0)
    assert look(tier, "where is the house").key == key(3)
    assert len(tier) == 1


def test_where_only_equal_texts_may_hit_nothing_is_compared(tier: SemanticTier, vectors: WordVectors) -> None:
    tier.insert(PARTITION, key(1), "Where is the river?", None, 2000.0)
    exact = Limits(0.95, lambda entries, threshold: None)
    assert look(tier, "where is the river", limits=exact).reason == "exact only"


async def test_more_look_ups_than_the_thread_can_do_are_misses(tier: SemanticTier) -> None:
    tier.insert(PARTITION, key(1), "Where is the river?", None, 2000.0)
    found = await asyncio.gather(*(tier.look(PARTITION, "where is the river", LIMITS) for _ in range(200)))
    reasons = {match.reason for match in found}
    assert "busy" in reasons
    assert "surface" in reasons


async def test_whatever_comes_after_the_end_is_forgotten(tier: SemanticTier) -> None:
    tier.close()
    tier.insert(PARTITION, key(1), "Where is the river?", None, 2000.0)
    tier.remove(key(1))
    tier.clear()
