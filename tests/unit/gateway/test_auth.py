"""Who gets in: only a live key does, and nothing but the key says who it is."""

import hmac
import string

import pytest

from inferdock.domain.errors import ConfigError, RequestError
from inferdock.gateway import auth
from inferdock.gateway.auth import Authenticator, check_exposure, check_model, is_loopback, model_not_found
from inferdock.keys.key import ANONYMOUS, Key, digest_of, new_text
from inferdock.keys.store import KeyFile

NOW = 1_700_000_000.0
TEXT = new_text("aaaaaaaa").encode()
BEARER = b"Bearer " + TEXT


def key_of(text: bytes, slot: int = 0, **fields: object) -> Key:
    return Key(id=text[4:12].decode(), name="n", digest=digest_of(text), created_at=0.0, slot=slot, **fields)  # type: ignore[arg-type]


KEY = key_of(TEXT)


def refusal(authenticator: Authenticator, authorization: bytes | None, x_api_key: bytes | None = None) -> RequestError:
    with pytest.raises(RequestError) as error:
        authenticator.authenticate(authorization, x_api_key, NOW)
    assert (error.value.status, error.value.code, error.value.kind) == (401, "invalid_api_key", "invalid_request_error")
    return error.value


@pytest.mark.parametrize(
    "authorization", [BEARER, b"bearer " + TEXT, b"BEARER   " + TEXT + b" "], ids=["as usual", "small", "spaces"]
)
def test_a_bearer_key_gets_in_the_first_time_and_again(authorization):
    authenticator = Authenticator([KEY])
    assert authenticator.authenticate(authorization, None, NOW) is KEY
    assert authenticator.authenticate(authorization, None, NOW) is KEY


def test_a_key_in_x_api_key_gets_in_the_first_time_and_again():
    authenticator = Authenticator([KEY])
    assert authenticator.authenticate(None, TEXT, NOW) is KEY
    assert authenticator.authenticate(None, TEXT, NOW) is KEY


WRONG = {
    "empty": b"",
    "a scheme alone": b"Bearer",
    "no key": b"Bearer ",
    "no scheme": TEXT,
    "another scheme": b"Basic " + TEXT,
    "a wrong secret": BEARER[:-1] + (b"0" if BEARER[-1:] != b"0" else b"1"),
    "an unknown id": b"Bearer idk_zzzzzzzz_" + TEXT[13:],
    "cut short": BEARER[:-1],
    "one letter more": BEARER + b"0",
    "two keys": BEARER + b" " + TEXT,
    "not ASCII": b"Bearer idk_\xff\xff\xff\xff\xff\xff\xff\xff_" + TEXT[13:],
    "someone else's kind": b"Bearer sk-proj-abcdefg",
}


@pytest.mark.parametrize("authorization", WRONG.values(), ids=WRONG.keys())
def test_it_does_not_get_in(authorization):
    authenticator = Authenticator([KEY])
    authenticator.authenticate(BEARER, None, NOW)  # what is remembered must not help
    authenticator.authenticate(None, TEXT, NOW)
    refusal(authenticator, authorization)


def test_the_answer_says_nothing_of_what_was_sent():
    assert "zzzz" not in refusal(Authenticator([KEY]), b"Bearer idk_zzzzzzzz_" + TEXT[13:]).message


def test_no_key_at_all_is_told_how_to_send_one():
    assert "Authorization: Bearer" in refusal(Authenticator([KEY]), None).message


def test_a_wrong_authorization_is_not_mended_by_x_api_key():
    refusal(Authenticator([KEY]), b"Bearer wrong", TEXT)


def test_an_expired_key_is_told_so_even_if_it_was_remembered():
    authenticator = Authenticator([key_of(TEXT, expires_at=NOW + 1)])
    authenticator.authenticate(BEARER, None, NOW)
    with pytest.raises(RequestError, match="expired"):
        authenticator.authenticate(BEARER, None, NOW + 1)


def test_a_revoked_key_is_told_so():
    assert "revoked" in refusal(Authenticator([key_of(TEXT, revoked_at=NOW - 1)]), BEARER).message


def test_whether_a_key_is_revoked_is_told_only_to_its_holder():
    authenticator = Authenticator([key_of(TEXT, revoked_at=NOW - 1)])
    assert "Incorrect" in refusal(authenticator, WRONG["a wrong secret"]).message


def test_a_reload_ends_a_remembered_key():
    authenticator = Authenticator([KEY])
    authenticator.authenticate(BEARER, None, NOW)
    authenticator.reload([key_of(TEXT, revoked_at=NOW)])
    refusal(authenticator, BEARER)


def test_a_reload_brings_new_limits_of_a_remembered_key():
    authenticator = Authenticator([KEY])
    authenticator.authenticate(BEARER, None, NOW)
    authenticator.reload([key_of(TEXT, requests_per_minute=5)])
    assert authenticator.authenticate(BEARER, None, NOW).requests_per_minute == 5


def test_an_unknown_id_is_compared_too(monkeypatch):
    compared: list[bool] = []
    really = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(len(one) == len(other) == 32)
        return really(one, other)

    monkeypatch.setattr(auth.hmac, "compare_digest", compare)
    for wrong in ("an unknown id", "a wrong secret"):
        refusal(Authenticator([KEY]), WRONG[wrong])
    assert compared == [True, True]


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(auth, "MAX_REMEMBERED", 8)
    authenticator = Authenticator([KEY])
    for spaces in range(1, 40):
        authenticator.authenticate(b"Bearer" + b" " * spaces + TEXT, None, NOW)
        assert len(authenticator._bearer) <= 8


def test_a_long_header_gets_in_without_being_remembered():
    authenticator = Authenticator([KEY])
    assert authenticator.authenticate(b"Bearer" + b" " * 10_000 + TEXT, None, NOW) is KEY
    assert not authenticator._bearer


def test_refused_headers_are_not_remembered():
    authenticator = Authenticator([KEY])
    for letter in string.ascii_lowercase:
        refusal(authenticator, b"Bearer " + letter.encode())
    assert not authenticator._bearer


@pytest.mark.parametrize(
    ("check", "keys", "enabled"),
    [
        ("auto", [], False),
        ("auto", [KEY], True),
        ("auto", [key_of(TEXT, revoked_at=1.0)], True),
        ("always", [], True),
        ("never", [KEY], False),
    ],
)
def test_keys_are_checked(check, keys, enabled):
    assert Authenticator(keys, check=check).enabled is enabled


@pytest.mark.parametrize("header", [None, b"Bearer anything", BEARER], ids=["none", "any", "a key"])
def test_everybody_is_anonymous_while_keys_are_not_checked(header):
    assert Authenticator([]).authenticate(header, None, NOW) is ANONYMOUS


def test_the_first_key_switches_checking_on_and_losing_all_keys_lets_nobody_in():
    authenticator = Authenticator([])
    authenticator.reload([KEY])
    refusal(authenticator, None)
    authenticator.reload([])
    refusal(authenticator, None)
    refusal(authenticator, BEARER)


def test_never_stays_never_when_keys_appear():
    authenticator = Authenticator([], check="never")
    authenticator.reload([KEY])
    assert authenticator.authenticate(None, None, NOW) is ANONYMOUS


def test_refresh_follows_the_file(tmp_path):
    file = KeyFile(tmp_path / "keys.jsonl")
    authenticator = Authenticator([])
    assert not authenticator.refresh(file)
    key, text = file.create(name="n", now=NOW)
    assert authenticator.refresh(file)
    assert not authenticator.refresh(file)
    assert authenticator.authenticate(b"Bearer " + text.encode(), None, NOW) == key
    file.revoke(key.id, now=NOW)
    authenticator.refresh(file)
    refusal(authenticator, b"Bearer " + text.encode())


def test_a_damaged_file_keeps_the_keys_and_is_tried_again(tmp_path):
    file = KeyFile(tmp_path / "keys.jsonl")
    _, text = file.create(name="n", now=NOW)
    authenticator = Authenticator([])
    authenticator.refresh(file)
    file.path.write_text("{")
    for _ in range(2):
        with pytest.raises(ConfigError):
            authenticator.refresh(file)
    authenticator.authenticate(b"Bearer " + text.encode(), None, NOW)


def test_a_key_file_that_is_gone_lets_nobody_in(tmp_path):
    file = KeyFile(tmp_path / "keys.jsonl")
    _, text = file.create(name="n", now=NOW)
    authenticator = Authenticator([])
    authenticator.refresh(file)
    file.path.unlink()
    authenticator.refresh(file)
    refusal(authenticator, b"Bearer " + text.encode())


def test_a_model_of_others_looks_like_one_that_does_not_exist():
    with pytest.raises(RequestError) as error:
        check_model(key_of(TEXT, models=frozenset({"a"})), "b")
    same = model_not_found("b")
    assert vars(error.value) == vars(same)
    assert (same.status, same.code, same.param) == (404, "model_not_found", "model")


def test_a_key_asks_for_its_models_or_for_any_if_none_are_named():
    check_model(key_of(TEXT, models=frozenset({"a"})), "a")
    check_model(KEY, "anything")
    check_model(ANONYMOUS, "anything")


def test_an_endless_model_name_is_cut():
    assert len(model_not_found("m" * 10**6).message) < 300


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", "LOCALHOST"])
def test_only_this_machine_reaches(host):
    assert is_loopback(host)
    check_exposure(host, keys_enabled=False, allow_unauthenticated=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.test", "localhost.example.test", "127.1"])
def test_an_address_that_others_reach_is_refused_without_keys(host):
    with pytest.raises(ConfigError) as error:
        check_exposure(host, keys_enabled=False, allow_unauthenticated=False)
    assert "inferdock keys create" in error.value.cure
    assert "keys.allow_unauthenticated" in error.value.cure


@pytest.mark.parametrize(("keys", "allowed"), [(True, False), (False, True), (True, True)])
def test_an_address_that_others_reach_is_served_with_keys_or_when_that_is_meant(keys, allowed):
    check_exposure("0.0.0.0", keys_enabled=keys, allow_unauthenticated=allowed)
