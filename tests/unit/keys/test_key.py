"""What a key is and how its text looks."""

import math

import pytest

from inferdock.keys.key import ANONYMOUS, KEY_TEXT, MAX_KEYS, Key, digest_of, new_id, new_text


def key(**fields: object) -> Key:
    return Key(**{"id": "aaaaaaaa", "name": "n", "digest": b"", "created_at": 0.0, "slot": 0, **fields})  # type: ignore[arg-type]


def test_the_text_holds_the_id_and_matches_the_pattern():
    match = KEY_TEXT.fullmatch(new_text("0a1b2c3d").encode())
    assert match is not None
    assert match[1] == b"0a1b2c3d"


def test_no_two_texts_or_ids_are_equal():
    assert len({new_text("aaaaaaaa") for _ in range(100)}) == 100
    assert len({new_id() for _ in range(100)}) == 100


def test_a_small_random_number_gives_a_text_of_full_length(monkeypatch):
    monkeypatch.setattr("inferdock.keys.key.secrets.randbits", lambda bits: 1)
    assert new_text("aaaaaaaa") == "idk_aaaaaaaa_1" + "0" * 42


def test_the_largest_random_number_fits(monkeypatch):
    monkeypatch.setattr("inferdock.keys.key.secrets.randbits", lambda bits: 2**bits - 1)
    assert KEY_TEXT.fullmatch(new_text("aaaaaaaa").encode())


def test_the_digest_is_sha256():
    assert digest_of(b"abc").hex().startswith("ba7816bf")


@pytest.mark.parametrize(
    ("fields", "now", "state"),
    [
        ({}, 1e12, "live"),
        ({"expires_at": 10.0}, 9.9, "live"),
        ({"expires_at": 10.0}, 10.0, "expired"),
        ({"revoked_at": 5.0, "expires_at": 10.0}, 20.0, "revoked"),
    ],
)
def test_the_state_is(fields, now, state):
    assert key(**fields).state(now) == state


def test_a_key_without_models_may_use_all():
    assert key().may_use("anything")


def test_a_key_with_models_may_use_only_them():
    limited = key(models=frozenset({"a"}))
    assert limited.may_use("a")
    assert not limited.may_use("b")


@pytest.mark.parametrize("limit", ["requests_per_minute", "tokens_per_minute", "concurrent_streams"])
def test_a_key_with_any_limit_is_limited(limit):
    assert key(**{limit: 1}).limited
    assert not key().limited


@pytest.mark.parametrize("slot", [-1, MAX_KEYS])
def test_a_slot_outside_of_the_counters_is_refused(slot):
    with pytest.raises(ValueError, match="slot"):
        key(slot=slot)


def test_the_digest_is_not_shown():
    assert "digest" not in repr(key(digest=b"\x01\x02"))


def test_anonymous_has_no_limits_and_never_ends():
    assert not ANONYMOUS.limited
    assert ANONYMOUS.expires_at == math.inf
    assert ANONYMOUS.may_use("any")
