"""How commands speak: tables or JSON on standard output, progress and errors on standard error."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Callable
from typing import Any, TypeVar

import click

from inferdock.domain.errors import InferdockError

F = TypeVar("F", bound=Callable[..., Any])
_HARMLESS = "\n\t\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}\N{SOFT HYPHEN}"


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
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:  # the pipe or terminal is gone, and a service goes on without it: later words go nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def printable(text: str) -> str:
    """Text without control characters but line ends and tabs: an answer must not steer the terminal.

    The joiners that emoji and some scripts are written with stay.
    """
    return "".join(
        c if c in _HARMLESS or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else "\N{REPLACEMENT CHARACTER}"
        for c in text
    )


def report_error(error: InferdockError) -> None:
    """Write an error and its cure to standard error, as two sentences."""
    click.secho("error: ", fg="red", bold=True, err=True, nl=False)
    click.echo(printable(error.message), err=True)
    if error.cure:
        click.echo(f"       {printable(error.cure)}", err=True)
