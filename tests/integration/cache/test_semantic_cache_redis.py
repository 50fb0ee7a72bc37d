"""The cache for programs without a gateway, on a real Redis."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inferdock.cache.semantic_cache import SemanticCache
from tests.support.redis_server import RedisServer, running_redis

ASKED = "How do I reset my password?"
SAME = "how can I reset my password"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path / "redis") as running:
        yield running


def within(seconds: float, come: Callable[[], bool]) -> bool:
    """Whether it comes true in time."""
    deadline = time.monotonic() + seconds
    while not come():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def patient(url: str, **options: object) -> SemanticCache:
    """A cache that waits for Redis for longer than a busy machine may need."""
    return SemanticCache(url, redis_timeout_s=1.0, **options)  # type: ignore[arg-type]


def test_two_objects_see_each_others_entries_soon(server: RedisServer) -> None:
    with patient(server.url) as one, patient(server.url) as other:
        one.set(ASKED, "Use the link.")
        assert other.get(ASKED) == "Use the link."
        assert within(5.0, lambda: other.get(SAME) == "Use the link.")
        other.set("What is the capital of France?", "Paris")
        assert within(5.0, lambda: one.get("What's the capital of France?") == "Paris")


def test_one_that_comes_later_finds_by_meaning_what_is_there(server: RedisServer) -> None:
    with patient(server.url) as first:
        first.set(ASKED, "Use the link.")
    with patient(server.url) as later:
        assert later.get(SAME) == "Use the link."


def test_clear_reaches_the_others(server: RedisServer) -> None:
    with patient(server.url) as one, patient(server.url) as other:
        one.set(ASKED, "Use the link.")
        assert other.get(ASKED) == "Use the link."
        one.clear()
        assert one.get(ASKED) is None
        assert within(5.0, lambda: other.get(ASKED) is None and other.get(SAME) is None)


def test_namespaces_share_nothing(server: RedisServer) -> None:
    with patient(server.url, namespace="one") as one, patient(server.url, namespace="two") as two:
        one.set(ASKED, "of one")
        two.set(ASKED, "of two")
        time.sleep(0.3)  # long enough for news to arrive
        assert (one.get(SAME), two.get(SAME)) == ("of one", "of two")
        two.clear()
        assert within(5.0, lambda: two.get(ASKED) is None)
        assert one.get(ASKED) == "of one"


def test_an_entry_ends_at_its_second_for_everybody(server: RedisServer) -> None:
    with patient(server.url) as one, patient(server.url) as other:
        began = time.time()
        one.set(ASKED, "Use the link.", ttl=2)
        assert other.get(ASKED) == "Use the link."
        time.sleep(max(0.0, began + 2.05 - time.time()))
        assert [cache.get(prompt) for cache in (one, other) for prompt in (ASKED, SAME)] == [None] * 4


def test_what_is_stored_goes_on_being_found_while_redis_is_down(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with patient(server.url) as cache, caplog.at_level(logging.INFO, "inferdock.cache"):
        cache.set(ASKED, "Use the link.")
        server.kill()
        for number in range(20):
            cache.set(f"What is the population of city number {number}?", str(number))
        assert (cache.get(ASKED), cache.get(SAME)) == ("Use the link.", "Use the link.")
        assert cache.get("What is the population of city number 7?") == "7"
        server.start()
        assert within(30.0, lambda: "is read again" in caplog.text)
        with patient(server.url) as other:
            cache.set("What is the capital of France?", "Paris")
            assert within(10.0, lambda: other.get("What is the capital of France?") == "Paris")


def test_a_redis_that_is_not_there_at_all_is_no_error(tmp_path: Path) -> None:
    with SemanticCache(f"unix://{tmp_path}/nobody.sock") as cache:
        cache.set(ASKED, "Use the link.")
        assert (cache.get(SAME), cache.get("What is the capital of France?")) == ("Use the link.", None)


def test_with_a_key_nothing_readable_lies_in_redis(server: RedisServer, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(secrets.token_hex(32))
    with patient(server.url, encryption_key_files=[key]) as one, patient(server.url) as without:
        one.set(ASKED, "Use the link.")
        assert without.get(ASKED) is None
    with patient(server.url, encryption_key_files=[key]) as later:
        assert later.get(SAME) == "Use the link."


def test_the_password_comes_from_a_file(tmp_path: Path) -> None:
    secret = secrets.token_hex(8)
    (tmp_path / "password").write_text(f"{secret}\n")
    with running_redis(tmp_path / "redis", "--requirepass", secret) as server:
        with patient(server.url, redis_password_file=tmp_path / "password") as one:
            one.set(ASKED, "Use the link.")
        with patient(server.url.replace("//", f"//:{secret}@")) as other:
            assert other.get(ASKED) == "Use the link."
