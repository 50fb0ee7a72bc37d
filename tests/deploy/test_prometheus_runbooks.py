"""Each alert has a page that says what to look at and which command to run, and the command exists."""

from __future__ import annotations

import re

import click
import pytest
from scripts.render_metrics_docs import RUNBOOKS, rules
from scripts.render_monitoring import BOARDS

from inferdock.cli.main import cli
from inferdock.config.load import flatten
from inferdock.config.settings import Settings

ALERTS = [rule for rule in rules() if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})
PANELS = {panel.title.lower() for board in BOARDS for panel in board.panels}


def page(name: str) -> str:
    return (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")


def test_every_alert_says_what_it_needs_to():
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("warning", "critical"), rule
        assert rule["annotations"]["runbook_url"].endswith(f"docs/runbooks/{rule['alert']}.md")
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["description"].endswith(".")


def test_every_page_is_that_of_an_alert():
    assert sorted(path.stem for path in RUNBOOKS.glob("*.md")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_page_says_what_it_means_where_to_look_and_what_to_do(name):
    lines = page(name).splitlines()
    assert lines[0] == f"# {name}"
    assert lines[2].endswith(".")
    assert "## Look" in lines
    assert "## Do" in lines


@pytest.mark.parametrize("name", NAMES)
def test_every_command_of_a_page_exists(name):
    found = re.findall(r"`inferdock ([a-z]+(?: [a-z]+)?)((?: --?[a-z-]+)*)", page(name))
    assert found
    for words, flags in found:
        command: click.Command | None = cli
        for word in words.split():
            assert isinstance(command, click.Group), words
            command = command.get_command(click.Context(command), word)
            assert command is not None, words
        options = {option for one in command.params for option in one.opts}
        assert set(flags.split()) <= options, (words, flags)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_of_a_page_exists(name):
    known = {path for path, _ in flatten(Settings())}
    assert set(re.findall(r"`((?:gateway|cache|balance|keys)\.[a-z_.]+)`", page(name))) <= known


@pytest.mark.parametrize("name", NAMES)
def test_every_page_that_a_page_links_to_is_there(name):
    for target in re.findall(r"\]\(([^)]+)\)", page(name)):
        assert (RUNBOOKS / target).exists(), target


def test_dashboards_link_only_to_pages_that_are_there():
    for board in BOARDS:
        assert set(board.runbooks) <= set(NAMES)
        assert {panel.runbook for panel in board.panels if panel.runbook} <= set(NAMES)
