"""The generated pages are what `make docs` writes now, and they say everything."""

from scripts import render_cli_docs, render_config_docs

from inferdock.cli.main import COMMANDS
from inferdock.config.load import flatten
from inferdock.config.settings import Settings
from inferdock.domain.errors import EXIT_CODES

STALE = "run `make docs` and commit the result"


def test_the_page_of_the_command_line_is_up_to_date():
    assert render_cli_docs.PAGE.read_text(encoding="utf-8") == render_cli_docs.render(), STALE


def test_the_page_of_the_configuration_is_up_to_date():
    assert render_config_docs.PAGE.read_text(encoding="utf-8") == render_config_docs.render(), STALE


def test_the_width_of_the_terminal_does_not_change_the_page(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    narrow = render_cli_docs.render()
    monkeypatch.setenv("COLUMNS", "200")
    assert render_cli_docs.render() == narrow


def test_every_command_and_exit_code_is_in_the_page():
    page = render_cli_docs.PAGE.read_text(encoding="utf-8")
    assert all(f"## `inferdock {name}`" in page for name in COMMANDS)
    assert all(f"| {code} | {meaning} |" in page for code, meaning in EXIT_CODES.items())


def test_every_setting_is_in_the_page_with_its_default():
    rows = dict(
        line.removeprefix("| `").split("` |", 1)
        for line in render_config_docs.PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    )
    assert list(rows) == [
        path
        for _, model, prefix in render_config_docs.groups(Settings, "")
        for path in (f"{prefix}{name}" for name, _ in render_config_docs.leaves(model))
    ]
    assert {path for path in rows if ".NAME." not in path} == {path for path, _ in flatten(Settings())}


def test_every_setting_has_a_sentence():
    for _, model, prefix in render_config_docs.groups(Settings, ""):
        for name, field in render_config_docs.leaves(model):
            assert (field.description or "").strip().endswith((".", ")")), f"{prefix}{name} has no docstring"


def test_every_group_has_a_sentence():
    assert all(model.__doc__ for _, model, _ in render_config_docs.groups(Settings, ""))
