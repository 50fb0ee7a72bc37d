"""How commands speak: tables or JSON on standard output, progress and errors on standard error."""

from __future__ import annotations

import io
import json
import os
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from inferdock.domain.errors import InferdockError, ResourceError

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


def write_whole() -> None:
    """See to it that what is printed arrives whole.

    Unbuffered (``PYTHONUNBUFFERED``, as images have it), Python drops what one call to the system did not take. A full
    pipe takes a part when the call is interrupted, as the end of an event loop does. A buffer writes the rest.
    """
    out = sys.__stdout__
    if out is None or sys.stdout is not out or not isinstance(out.buffer, io.RawIOBase):
        return
    buffer = io.BufferedWriter(io.FileIO(out.fileno(), "w", closefd=False))
    sys.stdout = io.TextIOWrapper(buffer, encoding=out.encoding, errors=out.errors, line_buffering=True)


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


def write_file(path: Path, text: str) -> None:
    """Write a file that a person asked for.

    Raises:
        ResourceError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as exc:
        raise ResourceError(f"Cannot write {path}: {exc.strerror}.", cure="Choose another file.") from exc
