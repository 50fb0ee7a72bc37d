"""Addresses of registries in buckets, and keys of files."""

from __future__ import annotations

import pytest

from inferdock.domain.errors import ConfigError, ModelError
from inferdock.registry.aws.address import MAX_PREFIX_BYTES, Address
from inferdock.registry.paths import MAX_PART_BYTES, MAX_PATH_BYTES


@pytest.mark.parametrize(
    ("url", "location", "key"),
    [
        ("s3://models", "s3://models", "models/demo/v1.0.0/a/b.json"),
        ("s3://models/", "s3://models", "models/demo/v1.0.0/a/b.json"),
        ("s3://my.models-1/team/a/", "s3://my.models-1/team/a", "team/a/models/demo/v1.0.0/a/b.json"),
    ],
)
def test_a_bucket_and_a_prefix_are_read(url: str, location: str, key: str) -> None:
    address = Address.parse(url)
    assert str(address) == location
    assert address.key("demo", "1.0.0", "a/b.json") == key


NO_ADDRESSES = (
    *("s3://", "s3:///prefix", "s3://Models", "s3://a", "s3://a..b", "s3://-models", "s3://mod_els", "s3://b:80/x"),
    *("http://models", "", "s3://models/a//b", "s3://models/../x", "s3://models/é", "s3://models/a?b=c"),
    *("s3://models/" + "x" * (MAX_PREFIX_BYTES + 1), "s3://models/x#y", "s3://models/a/./b"),
)


@pytest.mark.parametrize("url", NO_ADDRESSES)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"registry\.url"):
        Address.parse(url)


def test_secrets_in_an_address_are_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        Address.parse("s3://AKIA:secret@models")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("path", ["", "../x", "/x", "a//b", "a/../b", "x\x00", "CON"])
def test_a_path_that_is_none_never_becomes_a_key(path: str) -> None:
    with pytest.raises(ModelError):
        Address.parse("s3://models").key("demo", "1.0.0", path)


def test_the_longest_key_is_one_that_s3_takes() -> None:
    address = Address.parse("s3://models/" + "p" * MAX_PREFIX_BYTES)
    path = "/".join(["x" * MAX_PART_BYTES] * 3)[:MAX_PATH_BYTES]
    version = ".".join(["9999999999"] * 3) + "-" + "a" * 64
    assert len(address.key("n" * 128, version, path).encode()) <= 1024
