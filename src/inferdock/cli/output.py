"""How commands speak: tables or JSON on standard output, progress and errors on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from inferdock.domain.errors import InferdockError

F = TypeVar("F", bound=Callable[..., Any])


def output_option(command: F) -> F:
    """Add ``-o/--output table|json``, passed to the command as ``output``."""
    option = click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="Form of what is printed on standard output.",
    )
    return option(command)


def print_json(value: Any) -> None:
    """Write one JSON document to standard output."""
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def note(text: str) -> None:
    """Write one line for the person to standard error (standard output is for results)."""
    print(text, file=sys.stderr, flush=True)


def report_error(error: InferdockError) -> None:
    """Write an error and its cure to standard error, as two sentences."""
    click.secho("error: ", fg="red", bold=True, err=True, nl=False)
    click.echo(error.message, err=True)
    if error.cure:
        click.echo(f"       {error.cure}", err=True)
