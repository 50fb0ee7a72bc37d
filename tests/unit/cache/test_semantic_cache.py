"""The cache for programs without a gateway: real embedding model, no Redis."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from inferdock.cache.semantic_cache import SemanticCache
from inferdock.domain.errors import ConfigError
from tests.support.cache_values import FakeClock

ASKED = "How do I reset my password?"
SAME = "how can I reset my password"
OTHER = "How do I cancel my subscription?"


@pytest.fixture(scope="module")
def shared() -> Iterator[SemanticCache]:
    with SemanticCache() as cache:
        yield cache


@pytest.fixture
def cache(shared: SemanticCache) -> SemanticCache:
    shared.clear()
    return shared


def test_an_unknown_prompt_has_no_response(cache: SemanticCache) -> None:
    assert cache.get(ASKED) is None


def test_an_equal_prompt_gets_the_response(cache: SemanticCache) -> None:
    cache.set(ASKED, "Use the link on the login page.")
    answer = cache.get(ASKED)
    assert answer == "Use the link on the login page."
    assert type(answer) is str


@pytest.mark.parametrize(
    "prompt",
    [SAME, "  HOW DO I RESET MY PASSWORD?\n", "How do I reset my password", "How can I reset my password?"],
    ids=["other-words", "case-and-space", "no-mark", "can-for-do"],
)
def test_a_prompt_of_the_same_meaning_gets_it_too(cache: SemanticCache, prompt: str) -> None:
    cache.set(ASKED, "Use the link.")
    assert cache.get(prompt) == "Use the link."


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        (ASKED, OTHER),
        ("How do I enable two-factor login?", "How do I disable two-factor login?"),
        ("Is port 80 open?", "Is port 443 open?"),
        ("How do I move from Berlin to Paris?", "How do I move from Paris to Berlin?"),
    ],
    ids=["unrelated", "antonym", "number", "order"],
)
def test_another_question_does_not(cache: SemanticCache, stored: str, asked: str) -> None:
    cache.set(stored, "an answer to the stored one")
    assert cache.get(asked) is None


def test_a_second_response_takes_the_place_of_the_first(cache: SemanticCache) -> None:
    cache.set(ASKED, "old")
    cache.set(ASKED, "new")
    assert (cache.get(ASKED), cache.get(SAME)) == ("new", "new")


@pytest.mark.parametrize(
    "text",
    ["", " ", "\n", "\x00\x01\x7f", "[SEP]", "日本語の質問です", "🦆" * 40, "word " * 20_000, "x" * 1_000_000],
    ids=["empty", "space", "newline", "control", "mark", "japanese", "emoji", "words", "megabyte"],
)
def test_any_text_can_be_stored_and_found_again(cache: SemanticCache, text: str) -> None:
    cache.set(text, f"{text} is the response")
    assert cache.get(text) == f"{text} is the response"


def test_a_text_that_is_no_unicode_is_a_miss_and_cannot_be_stored(cache: SemanticCache) -> None:
    assert cache.get("half \ud800") is None
    for prompt, response in (("half \ud800", "r"), (ASKED, "half \ud800")):
        with pytest.raises(ValueError, match="valid Unicode"):
            cache.set(prompt, response)


def test_clear_forgets_equal_prompts_and_similar_ones(cache: SemanticCache) -> None:
    cache.set(ASKED, "Use the link.")
    cache.clear()
    assert (cache.get(ASKED), cache.get(SAME)) == (None, None)


def test_two_objects_without_redis_have_nothing_in_common(cache: SemanticCache) -> None:
    cache.set(ASKED, "Use the link.")
    with SemanticCache() as other:
        assert (other.get(ASKED), other.get(SAME)) == (None, None)


def test_the_threshold_decides() -> None:
    with SemanticCache(similarity_threshold=0.9) as loose, SemanticCache(similarity_threshold=0.9999) as tight:
        for cache in (loose, tight):
            cache.set(ASKED, "Use the link.")
        assert (loose.get(SAME), tight.get(SAME)) == ("Use the link.", None)  # cosine 0.977


def test_threshold_1_finds_equal_prompts_only_and_needs_no_model(tmp_path: Path) -> None:
    with SemanticCache(similarity_threshold=1, embedder_dir=tmp_path) as cache:
        cache.set(ASKED, "Use the link.")
        assert (cache.get(ASKED), cache.get(SAME), cache.get(ASKED.lower())) == ("Use the link.", None, None)


@pytest.mark.parametrize("prompt", [ASKED, SAME], ids=["equal", "similar"])
def test_an_entry_ends_at_its_second_and_hits_do_not_prolong_it(prompt: str) -> None:
    clock = FakeClock()
    with SemanticCache(wall_clock=clock) as cache:
        cache.set(ASKED, "Use the link.", ttl=60)
        for _ in range(59):
            clock.now += 1
            assert cache.get(prompt) == "Use the link."
        clock.now += 0.999
        assert cache.get(prompt) == "Use the link."
        clock.now += 0.001
        assert cache.get(prompt) is None


def test_an_entry_without_a_life_of_its_own_has_that_of_the_cache() -> None:
    clock = FakeClock()
    with SemanticCache(ttl=10, wall_clock=clock) as cache:
        cache.set(ASKED, "short")
        cache.set(OTHER, "long", ttl=20)
        clock.now += 10
        assert (cache.get(ASKED), cache.get(OTHER)) == (None, "long")


def test_the_least_recently_used_go_first_and_are_not_found_by_meaning_either() -> None:
    with SemanticCache(max_entries=2) as cache:
        for number, prompt in enumerate((ASKED, OTHER, "What is the capital of France?")):
            cache.set(prompt, str(number))
        assert (cache.get(ASKED), cache.get(SAME)) == (None, None)
        assert (cache.get(OTHER), cache.get("What's the capital of France?")) == ("1", "2")


def test_threads_get_their_own_answers(cache: SemanticCache) -> None:
    prompts = [f"What is the population of city number {number}?" for number in range(40)]

    def use(seed: int) -> list[str]:
        order = random.Random(seed).sample(prompts, len(prompts))
        for prompt in order:
            cache.set(prompt, f"about {prompt}")
        return [prompt for prompt in order if cache.get(prompt) != f"about {prompt}"]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(use, range(8))) == [[]] * 8


WRONG: dict[str, dict[str, Any]] = {
    "threshold-0": {"similarity_threshold": 0},
    "threshold-above-1": {"similarity_threshold": 1.01},
    "threshold-nan": {"similarity_threshold": float("nan")},
    "threshold-text": {"similarity_threshold": "0.9"},
    "ttl-0": {"ttl": 0},
    "ttl-negative": {"ttl": -1},
    "ttl-infinite": {"ttl": float("inf")},
    "no-namespace": {"namespace": ""},
    "long-namespace": {"namespace": "n" * 513},
    "half-a-character": {"namespace": "\ud800"},
    "no-entries": {"max_entries": 0},
    "no-memory": {"max_bytes": 0},
    "password-without-redis": {"redis_password_file": "/nowhere"},
    "keys-without-redis": {"encryption_key_files": ["/nowhere"]},
    "no-time-for-redis": {"redis_url": "redis://localhost", "redis_timeout_s": 0},
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_argument_is_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^.{20,}\.$"):
        SemanticCache(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"redis_url": "http://localhost"},
        {"redis_url": "redis://localhost", "redis_password_file": "/nowhere/secret"},
        {"redis_url": "redis://localhost", "encryption_key_files": ["/nowhere/key"]},
        {"embedder_dir": "/nowhere/model"},
    ],
    ids=["scheme", "password-file", "key-file", "model"],
)
def test_what_cannot_be_used_is_a_config_error(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        SemanticCache(**arguments)


def test_a_wrong_url_is_not_shown_with_its_password() -> None:
    with pytest.raises((ValueError, ConfigError)) as caught:
        SemanticCache("redis://:s3cret@localhost:port/0")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("ttl", [0, -5, float("nan"), 1e12], ids=["zero", "negative", "nan", "too-long"])
def test_a_life_that_is_none_is_refused(cache: SemanticCache, ttl: float) -> None:
    with pytest.raises(ValueError, match="ttl"):
        cache.set(ASKED, "r", ttl=ttl)


def test_a_prompt_that_is_no_text_is_refused(cache: SemanticCache) -> None:
    for wrong in (None, b"bytes", 5):
        with pytest.raises(TypeError, match="must be a str"):
            cache.get(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="must be a str"):
            cache.set(ASKED, wrong)  # type: ignore[arg-type]


def test_a_closed_cache_says_so_and_may_be_closed_again() -> None:
    cache = SemanticCache(similarity_threshold=1)
    cache.close()
    cache.close()
    for use in (lambda: cache.get(ASKED), lambda: cache.set(ASKED, "r"), cache.clear):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_a_thread_that_asks_while_it_is_closed_gets_an_end() -> None:
    cache = SemanticCache()

    def ask() -> str:
        try:
            while True:
                cache.get(ASKED)
        except ValueError as exc:
            return str(exc)

    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(ask) for _ in range(4)]
        cache.close()
        assert all("closed" in one.result(timeout=30) for one in asked)


FORK = """
import os
from inferdock.cache.semantic_cache import SemanticCache
cache = SemanticCache(similarity_threshold=1)
child = os.fork()
if not child:
    try:
        cache.get("x")
    except ValueError as exc:
        os._exit("fork" in str(exc))
    os._exit(9)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
print("left open")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_gets_an_error_and_an_open_cache_does_not_keep_a_program_alive() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "left open\n", "")
