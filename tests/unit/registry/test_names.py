"""Names of models, versions and aliases."""

from __future__ import annotations

import pytest

from inferdock.domain.errors import ConfigError
from inferdock.registry.names import Reference, Version, check_alias, check_name


@pytest.mark.parametrize(
    ("text", "spelt"),
    [("1", "1.0.0"), ("v1.9", "1.9.0"), ("1.10.0", "1.10.0"), ("2.0.0-rc.1", "2.0.0-rc.1"), ("0.0.0", "0.0.0")],
)
def test_a_version_is_written_with_three_numbers(text: str, spelt: str) -> None:
    assert str(Version.parse(text)) == spelt


@pytest.mark.parametrize(
    "text",
    [
        *("", "1.0.0.0", "01.0.0", "1.0.0+build", "1.0.0-", "1.0.0-a..b", "1.0.0-01", "latest", "1.0.0\n", "١.٠.٠"),
        *("9" * 11, "1.0.0-" + "a" * 65, "vv1", "-1.0.0", "1.0.0/../../x"),
    ],
)
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no version"):
        Version.parse(text)


def test_versions_are_in_semantic_order() -> None:
    # The example of https://semver.org, 2.0.0, paragraph 11, between 1.9.0 and 1.10.0.
    pre = ("alpha", "alpha.1", "alpha.beta", "beta", "beta.2", "beta.11", "rc.1")
    ordered = ["1.9.0", *(f"1.10.0-{p}" for p in pre), "1.10.0", "2.0.0"]
    assert [str(v) for v in sorted(map(Version.parse, reversed(ordered)))] == ordered


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "-a", "a-", "ü", "a b", "a@b", "a\n", "x" * 129, "a#b", "../a"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no name of a model"):
        check_name(text)


@pytest.mark.parametrize("text", ["", "Champion", "1.0", "v1", "v1.2.0-rc.1", "a/b", "x" * 64, "-a"])
def test_an_alias_is_no_version_and_no_path(text: str) -> None:
    with pytest.raises(ConfigError, match="no alias"):
        check_alias(text)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("m", Reference("m", None, "champion")),
        ("m@1.2", Reference("m", "1.2.0", None)),
        ("m@candidate", Reference("m", None, "candidate")),
    ],
)
def test_a_reference_names_a_version_or_an_alias(text: str, reference: Reference) -> None:
    assert Reference.parse(text) == reference


@pytest.mark.parametrize("text", ["@1.0.0", "m@", "m@1.0.0@2", "org/m@1.0.0", "m@Latest"])
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Reference.parse(text)
