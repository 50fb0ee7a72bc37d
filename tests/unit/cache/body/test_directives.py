"""What clients say about the cache."""

from __future__ import annotations

import json

import pytest

from inferdock.cache.canonical import ALIASES
from inferdock.cache.directives import NO_DIRECTIVES, Directives, opted_out, without_aliases
from inferdock.domain.errors import RequestError

NO_CACHE = Directives(no_cache=True, reason="cache-control")
NEITHER = Directives(no_cache=True, no_store=True, reason="cache-control")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"no-cache", NO_CACHE),
        (b"No-Cache", NO_CACHE),
        (b'no-cache="x"', NO_CACHE),
        (b"no-store", NEITHER),
        (b"no-store, no-cache", NEITHER),
        (b"\tmax-age=60 ,no-transform", Directives(max_age_s=60)),
        (b'max-age="60"', Directives(max_age_s=60)),
        (b"max-age=60, max-age=30, max-age=90", Directives(max_age_s=30)),
        (b"max-age=0", Directives(no_cache=True, max_age_s=0, reason="cache-control")),
        (b"max-age=000", Directives(no_cache=True, max_age_s=0, reason="cache-control")),
        (b"max-age=" + b"9" * 5000, Directives(max_age_s=2_147_483_648)),
        (b"min-fresh=5, min-fresh=3", Directives(min_fresh_s=5)),
        (b"only-if-cached", Directives(only_if_cached=True)),
        (b'max-stale, no-transform, x=y, q="a, no-store"', NO_DIRECTIVES),
        (b'x="a\\", no-store"', NO_DIRECTIVES),
        (b"", NO_DIRECTIVES),
        (b" , ,,", NO_DIRECTIVES),
        (b"max-age", NO_CACHE),
        (b"max-age=", NO_CACHE),
        (b"max-age=-1", NO_CACHE),
        (b"max-age=1.5", NO_CACHE),
        (b"max-age=+5", NO_CACHE),
        (b"max-age = 60", NO_CACHE),
        (b"max-age=60s", NO_CACHE),
        (b"max-age=\xd9\xa3", NO_CACHE),
        (b'max-age="60', NO_CACHE),
        (b"min-fresh=x", NO_CACHE),
        (b'x="a, no-store', NEITHER),
        (b"\x00\xff", NO_CACHE),
        (b"no-store;", NO_CACHE),
    ],
    ids=str,
)
def test_the_header_is_read_strictly_and_never_fails(header: bytes, expected: Directives) -> None:
    assert opted_out(header, None, {}) == expected


def test_a_hostile_header_is_read_in_linear_time() -> None:
    for piece in (b'x="', b",", b'x="\\', b"a" * 7 + b"=,", b"max-age=1,"):
        opted_out(piece * (64 * 1024 // len(piece)), None, {})  # the test's time limit tells


def test_pragma_counts_only_without_the_newer_header() -> None:
    assert opted_out(None, b"foo, No-Cache", {}) == Directives(no_cache=True, reason="pragma")
    assert opted_out(b"max-age=5", b"no-cache", {}) == Directives(max_age_s=5)
    assert opted_out(None, b"foo", {}) == NO_DIRECTIVES


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, NO_DIRECTIVES),
        ({"cache": None, "no_cache": None}, NO_DIRECTIVES),
        ({"cache": True}, NO_DIRECTIVES),
        ({"cache": {}}, NO_DIRECTIVES),
        ({"no_cache": False, "no_store": False}, NO_DIRECTIVES),
        ({"cache": False}, Directives(no_cache=True, no_store=True, reason="body")),
        ({"no_cache": True}, Directives(no_cache=True, reason="body")),
        ({"no_store": True}, Directives(no_cache=True, no_store=True, reason="body")),
        ({"max_age": 2.5}, Directives(max_age_s=2.5)),
        ({"max_age": 0}, Directives(no_cache=True, max_age_s=0, reason="body")),
        ({"cache": {"no-cache": True}}, Directives(no_cache=True, reason="body")),
        ({"cache": {"no_store": True}}, Directives(no_cache=True, no_store=True, reason="body")),
        ({"cache": {"ttl": 60, "s-maxage": 30}}, Directives(ttl_s=60, max_age_s=30)),
        ({"cache": {"ttl": 0}}, Directives(no_store=True, ttl_s=0, reason="body")),
        ({"cache": {"s-maxage": 10**400}}, Directives(max_age_s=2_147_483_648)),
    ],
    ids=lambda value: str(value)[:60],
)
def test_fields_of_the_body_are_read(body: dict[str, object], expected: Directives) -> None:
    assert opted_out(None, None, body) == expected


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"cache": "no"}, "cache"),
        ({"cache": 0}, "cache"),
        ({"cache": []}, "cache"),
        ({"cache": {"no-cache": "yes"}}, "cache.no-cache"),
        ({"cache": {"ttl": -1}}, "cache.ttl"),
        ({"cache": {"ttl": "60"}}, "cache.ttl"),
        ({"cache": {"ttl": True}}, "cache.ttl"),
        ({"cache": {"namespace": "mine"}}, "cache.namespace"),
        ({"cache": {"x" * 10_000: 1}}, "cache." + "x" * 40),
        ({"no_cache": 1}, "no_cache"),
        ({"no_store": "true"}, "no_store"),
        ({"max_age": "5"}, "max_age"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wrong_field_of_ours_is_the_clients_error(body: dict[str, object], field: str) -> None:
    with pytest.raises(RequestError, match="The field '") as caught:
        opted_out(None, None, body)
    assert (caught.value.status, caught.value.param) == (400, field)


def test_header_and_body_only_restrict_each_other() -> None:
    body = {"max_age": 60, "no_cache": False, "cache": {"no-store": False, "max-age": 40}}
    assert opted_out(b"no-store, max-age=50", None, body) == Directives(
        no_cache=True, no_store=True, max_age_s=40, reason="cache-control"
    )


@pytest.mark.parametrize(
    ("directives", "serves"),
    [
        (NO_DIRECTIVES, True),
        (NO_CACHE, False),
        (Directives(max_age_s=10), True),
        (Directives(max_age_s=9.9), False),
        (Directives(min_fresh_s=4.9), True),
        (Directives(min_fresh_s=5), False),
    ],
    ids=str,
)
def test_an_entry_must_be_as_young_and_fresh_as_asked(directives: Directives, serves: bool) -> None:
    assert directives.may_serve(created_at=100, expires_at=115, now=110) is serves


def test_nothing_is_served_at_or_after_its_end() -> None:
    assert not NO_DIRECTIVES.may_serve(created_at=100, expires_at=115, now=115)


def test_aliases_are_taken_out_and_the_rest_stays_byte_for_byte() -> None:
    body = b'{"a": 1.50, "cache":{"ttl":1} , "\\u006do_x":"\\u00e9", "no_cach\\u0065":true, "b":{ "c" : 1e2}}'
    cleaned = without_aliases(body)
    assert cleaned == b'{"a":1.50,"mo_x":"\\u00e9","b":{ "c" : 1e2}}'
    assert json.loads(cleaned) == {k: v for k, v in json.loads(body).items() if k not in ALIASES}


@pytest.mark.parametrize("body", [b"", b"[]", b'{"a":', b'{"a":' + b"[" * 100_000])
def test_aliases_are_only_looked_for_in_objects(body: bytes) -> None:
    with pytest.raises(RequestError):
        without_aliases(body)
