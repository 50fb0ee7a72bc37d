"""``inferdock config show``: what it must not show."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from inferdock.cli.main import cli


@pytest.mark.parametrize("words", [[], ["-o", "json"], ["-o", "json", "--origin"]], ids=["table", "json", "origin"])
def test_passwords_in_urls_are_not_shown(words: list[str]) -> None:
    env = {"INFERDOCK_CACHE__REDIS__URL": "redis://me:topsecret@cache:6379/0"}
    result = CliRunner().invoke(cli, ["config", "show", *words], env=env)
    assert "topsecret" not in result.output
    assert "redis://me:***@cache:6379/0" in result.output
