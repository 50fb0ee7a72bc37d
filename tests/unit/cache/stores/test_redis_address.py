"""URLs of Redis: what is taken, and that no password shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferdock.cache.redis_address import redis_address
from inferdock.domain.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host", "redis://host:6379/0"),
        ("redis://host:7000/3", "redis://host:7000/3"),
        ("redis://:s3cret@host:7000/3", "redis://:***@host:7000/3"),
        ("redis://user:s3cret@host", "redis://:***@host:6379/0"),
        ("rediss://:s3cret@host/1?ssl_cert_reqs=none", "rediss://:***@host:6379/1"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("redis://[::1]:7000", "redis://::1:7000/0"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    address = redis_address(url)
    assert address.shown == shown
    assert "s3cret" not in repr(address)


def test_passwords_may_hold_anything_that_is_escaped() -> None:
    assert redis_address("redis://:a%23%40b@host").options["password"] == "a#@b"


def test_a_password_may_come_from_elsewhere() -> None:
    address = redis_address("redis://user@host", "s3cret")
    assert (address.options["username"], address.options["password"]) == ("user", "s3cret")
    assert "s3cret" not in repr(address) + address.shown


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:6379",
        "http://:s3cret@host",
        "redis://:s3cret@host:notaport",
        "redis://:s3#cret@host",
        "redis://:s3cret@host:99999",
        "redis://:s3cret@host/database",
        "redis://:s3cret@host?password=s3cret",
        "redis://host?socket_timeout=1",
        "redis://:s3cret@[host",
        "rediss://:s3cret@host?ssl_ca_certs=/no/such/file",
        "rediss://:s3cret@host?ssl_cert_reqs=maybe",
        "redis+cluster://:s3cret@host",
    ],
)
def test_what_is_no_url_of_redis_is_refused_with_a_cure_and_without_the_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        redis_address(url)
    assert caught.value.cure
    assert "cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_two_passwords_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="another in a file"):
        redis_address("redis://:a@host", "b")


def test_files_for_tls_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("")
    options = redis_address(f"rediss://host?ssl_ca_certs={path}&ssl_check_hostname=false").options
    assert (options["ssl_ca_certs"], options["ssl_check_hostname"]) == (str(path), False)
