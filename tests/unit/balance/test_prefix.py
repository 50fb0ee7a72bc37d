"""The prefix policy."""

import random
from collections import Counter
from itertools import pairwise

import pytest

from inferdock.balance.affinity import Affinity
from inferdock.balance.endpoints import Wanted
from inferdock.balance.prefix import Prefix
from tests.unit.balance.sets import lease, ready_set, visit

POLICY = Prefix(Affinity(), block_bytes=1024)


def text(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize(
    ("size", "hashed"),
    [(1024, 1024), (4095, 1024), (4096, 4096), (16383, 4096), (16384, 16384), (500_000, 16384)],
)
def test_the_key_covers_one_or_four_or_sixteen_blocks(size, hashed):
    prompt = text(size)
    assert POLICY.key(prompt) == POLICY.key(prompt[:hashed])
    assert POLICY.key(prompt) != POLICY.key(prompt[: hashed - 1] + b"!" + prompt[hashed:])


def test_a_prompt_shorter_than_a_block_has_no_key():
    assert POLICY.key(text(1023)) is None
    assert POLICY.key(b"") is None


def test_questions_about_one_document_go_to_one_endpoint():
    endpoints = ready_set("a", "b", "c", policy="prefix")
    document = text(20_000)
    assert len({visit(endpoints, Wanted(prefix=document + text(300, seed))) for seed in range(20)}) == 1


def test_a_conversation_moves_at_most_twice():
    endpoints = ready_set("a", "b", "c", "d", policy="prefix")
    talk = text(40_000)
    places = [visit(endpoints, Wanted(prefix=talk[:size])) for size in range(1024, 40_000, 300)]
    assert sum(was != now for was, now in pairwise(places)) <= 2


def test_conversations_behind_a_short_system_prompt_spread():
    endpoints = ready_set("a", "b", "c", "d", policy="prefix")
    system = text(900)
    found = Counter(visit(endpoints, Wanted(prefix=system + text(2000, seed))) for seed in range(400))
    assert min(found.values()) > 60


def test_short_prompts_go_to_the_least_busy():
    endpoints = ready_set("a", "b", policy="prefix")
    assert {lease(endpoints, Wanted(prefix=b"hello")).endpoint.spec.name for _ in range(2)} == {"a", "b"}


def test_one_hot_prefix_is_spread_once_its_endpoint_is_busy():
    endpoints = ready_set("a", "b", "c", "d", policy="prefix")
    found = Counter(lease(endpoints, Wanted(prefix=text(4096))).endpoint.spec.name for _ in range(80))
    assert max(found.values()) <= 25  # 1.25 times the mean of 20


def test_the_settings_build_it():
    endpoints = ready_set("a", "b", policy="prefix", prefix_block_bytes=64)
    assert endpoints.prefix_bytes == 1024
    assert endpoints.reads_prompts
    assert len({visit(endpoints, Wanted(prefix=text(64))) for _ in range(5)}) == 1
