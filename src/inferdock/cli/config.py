"""``inferdock config show``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from inferdock.cli.output import output_option, print_json
from inferdock.cli.settings_options import config_file_option, load_settings
from inferdock.config.load import Loaded, flatten


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
        return loaded.settings.model_dump(mode="json")
    return {p: {"value": v, "origin": loaded.origins[p]} for p, v in flatten(loaded.settings)}


def _spell(value: object) -> str:
    return "null" if value is None else str(list(value) if isinstance(value, tuple) else value)
