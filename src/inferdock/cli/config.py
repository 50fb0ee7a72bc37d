"""``inferdock config show``."""

from __future__ import annotations

import re
from pathlib import Path

import click
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from inferdock.cli.output import output_option, print_json
from inferdock.cli.settings_options import config_file_option, load_settings
from inferdock.config.load import Loaded, flatten

_PASSWORD = re.compile(r"(://[^/@\s]*:)[^/@\s]+@")


@click.group()
def config() -> None:
    """Show the configuration and where each value comes from."""


@config.command()
@config_file_option
@click.option("--origin", is_flag=True, help="Also say where each value came from.")
@output_option
def show(config_file: Path | None, origin: bool, output: str) -> None:
    """Print every setting as it would apply now.

    \b
    Example:
      INFERDOCK_GATEWAY__PORT=9000 inferdock config show --origin
    """
    loaded = load_settings(config_file, {})
    if output == "json":
        print_json(_as_json(loaded, origin))
        return
    table = Table("key", "value", *(["origin"] if origin else []), box=None, pad_edge=False)
    for path, value in flatten(loaded.settings):
        table.add_row(path, _spell(value), *([loaded.origins[path]] if origin else []))
    Console(soft_wrap=True).print(table)


def _as_json(loaded: Loaded, origin: bool) -> dict[str, object]:
    if not origin:
        return {name: _masked_tree(value) for name, value in loaded.settings.model_dump(mode="json").items()}
    return {p: {"value": _masked(v), "origin": loaded.origins[p]} for p, v in flatten(loaded.settings)}


def _spell(value: object) -> str:
    return "null" if value is None else str(_masked(value))


def _masked_tree(value: object) -> object:
    if isinstance(value, dict):
        return {name: _masked_tree(item) for name, item in value.items()}
    return _masked(value)


def _masked(value: object) -> object:
    """A URL without its password: what is shown here ends up in tickets."""
    if isinstance(value, list | tuple):
        return [item.model_dump(mode="json") if isinstance(item, BaseModel) else item for item in value]
    return _PASSWORD.sub(r"\1***@", value) if isinstance(value, str) else value
