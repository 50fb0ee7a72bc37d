"""``inferdock keys create``, ``list`` and ``revoke``."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inferdock.cli.output import note, output_option, print_json, printable
from inferdock.cli.settings_options import config_file_option, load_settings
from inferdock.config.folders import default_state_dir
from inferdock.domain.errors import ConfigError
from inferdock.keys.key import Key
from inferdock.keys.store import MAX_LIMIT, MAX_PRIORITY, KeyFile, key_file

F = TypeVar("F", bound=Callable[..., Any])
LIMIT = click.IntRange(1, MAX_LIMIT)
_UNITS_S = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_FIGURES = ("rpm", "tpm", "streams", "priority")
_STATE_STYLE = {"live": "green", "expired": "yellow", "revoked": "red"}


def file_options(command: F) -> F:
    """Add what says where the file of keys is: ``-f``, ``--state-dir``, ``--file``; see :func:`_open`."""
    folder = click.Path(file_okay=False, path_type=Path)
    path = click.Path(dir_okay=False, path_type=Path)
    command = click.option(
        "--file", "keys_file", type=path, help="File of the keys; default keys.jsonl in the state folder."
    )(command)
    command = click.option("--state-dir", type=folder, help="Where `up` keeps its state.")(command)
    return config_file_option(command)


def _open(config_file: Path | None, state_dir: Path | None, keys_file: Path | None) -> KeyFile:
    flags = {"state_dir": ("--state-dir", state_dir), "keys.file": ("--file", keys_file)}
    settings = load_settings(config_file, flags).settings
    file = key_file(settings.keys, settings.state_dir or default_state_dir(os.environ))
    if warning := file.warning():
        note(f"warning: {printable(warning)}")
    if settings.keys.check == "never":
        note("warning: no gateway of this configuration checks keys (`keys.check: never`).")
    return file


@click.group()
def keys() -> None:
    """Make, list and revoke the API keys that the gateway checks.

    The first key of a file switches checking on for every gateway that uses the file (`keys.check`). Running gateways
    notice a change within seconds (`keys.reload_interval_s`).
    """


@keys.command()
@file_options
@click.option("--name", required=True, help="What to call it, for instance who holds it.")
@click.option("--model", "models", multiple=True, metavar="MODEL", help="A model it may use; default: all.")
@click.option("--rpm", type=LIMIT, help="Most requests per minute.")
@click.option("--tpm", type=LIMIT, help="Most tokens per minute, prompt and answer together.")
@click.option("--streams", type=LIMIT, help="Most streamed answers at once.")
@click.option("--expires", metavar="TIME", help="After 90m, 12h, 30d or 8w, or on a day such as 2030-01-31 (UTC).")
@click.option("--admin", is_flag=True, help="It may use the console: see the platform, and steer releases.")
@click.option("--tenant", help="Whom its use is booked to; default: the key itself.")
@click.option(
    "--priority",
    type=click.IntRange(-MAX_PRIORITY, MAX_PRIORITY),
    default=0,
    show_default=True,
    help="Higher goes first where requests queue.",
)
@output_option
def create(
    config_file: Path | None,
    state_dir: Path | None,
    keys_file: Path | None,
    name: str,
    models: tuple[str, ...],
    rpm: int | None,
    tpm: int | None,
    streams: int | None,
    expires: str | None,
    admin: bool,
    tenant: str | None,
    priority: int,
    output: str,
) -> None:
    """Make a key. Its text is shown this once, alone on standard output: only a digest is kept.

    Exit code 2 when a limit is out of range, 3 when the file is damaged or full, 5 when it cannot be written.

    \b
    Example:
      export OPENAI_API_KEY=$(inferdock keys create --name alice)
      inferdock keys create --name ci --model inferdock-demo --rpm 60 --tpm 20000 --streams 4 --expires 30d
    """
    now = time.time()
    key, text = _open(config_file, state_dir, keys_file).create(
        name=name,
        now=now,
        expires_at=math.inf if expires is None else parse_expiry(expires, now),
        models=models,
        requests_per_minute=rpm,
        tokens_per_minute=tpm,
        concurrent_streams=streams,
        priority=priority,
        admin=admin,
        tenant=tenant,
    )
    if output == "json":
        print_json({"key": text, **_document(key, now)})
        return
    print(text)
    note(f"Key {key.id} is made. Its text is shown this once; `inferdock keys revoke {key.id}` ends it.")


@keys.command("list")
@file_options
@output_option
def list_(config_file: Path | None, state_dir: Path | None, keys_file: Path | None, output: str) -> None:
    """Show every key with its limits; never a key's text, which nobody keeps.

    Exit code 3 when the file is damaged or cannot be read.

    \b
    Example:
      inferdock keys list
      inferdock keys list -o json | jq -r '.[] | select(.state == "live") | .id'
    """
    now = time.time()
    found = _open(config_file, state_dir, keys_file).read()
    if output == "json":
        print_json([_document(key, now) for key in found])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("id", "name", "state", "models", "rpm", "tpm", "streams", "priority", "tenant", "expires"):
        # A narrow terminal may break names, never an id, a figure or a day.
        table.add_column(
            column,
            justify="right" if column in _FIGURES else "left",
            no_wrap=column not in ("name", "models", "tenant"),
            overflow="fold",
        )
    for key in found:
        table.add_row(*_cells(key, now))
    Console(soft_wrap=True, highlight=False).print(table)


@keys.command()
@file_options
@click.argument("key_id", metavar="ID")
@output_option
def revoke(config_file: Path | None, state_dir: Path | None, keys_file: Path | None, key_id: str, output: str) -> None:
    """End a key for good. Its line stays in the file; revoking twice is no failure.

    Exit code 3 when there is no such key or the file is damaged, 5 when it cannot be written.

    \b
    Example:
      inferdock keys revoke 4f0c1d2e
    """
    now = time.time()
    key = _open(config_file, state_dir, keys_file).revoke(key_id, now=now)
    if output == "json":
        print_json(_document(key, now))
        return
    note(f"Key {key.id} ({printable(key.name)}) is revoked.")


def parse_expiry(text: str, now: float) -> float:
    """Seconds since 1970 at which a key ends.

    Args:
        text: a span from ``now`` on (``90m``, ``12h``, ``30d``, ``8w``) or a day (UTC, at its beginning).

    Raises:
        ConfigError: it is neither, or not in the future.
    """
    span = re.fullmatch(r"([0-9]{1,6})([mhdw])", text)
    if span is not None:
        moment = now + int(span[1]) * _UNITS_S[span[2]]
    else:
        try:
            moment = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
        except ValueError as exc:
            raise ConfigError(
                f"--expires {text[:40]} is no time.", cure="For instance 90m, 12h, 30d, 8w or 2030-01-31."
            ) from exc
    if moment <= now:
        raise ConfigError(f"--expires {text} is not in the future.")
    return moment


def _document(key: Key, now: float) -> dict[str, object]:
    """A key as `-o json` shows it."""
    return {
        "id": key.id,
        "name": key.name,
        "state": key.state(now),
        "models": sorted(key.models),
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_minute": key.tokens_per_minute,
        "concurrent_streams": key.concurrent_streams,
        "priority": key.priority,
        "admin": key.admin,
        "tenant": key.tenant,
        "created": _spell(key.created_at),
        "expires": _spell(key.expires_at),
        "revoked": None if key.revoked_at is None else _spell(key.revoked_at),
    }


def _cells(key: Key, now: float) -> list[Text]:
    state = key.state(now)
    limits = (key.requests_per_minute, key.tokens_per_minute, key.concurrent_streams)
    return [
        Text(key.id),
        _text(key.name),
        Text(state, style=_STATE_STYLE[state]),
        _text(", ".join(sorted(key.models)) or "all"),
        *(Text("–" if limit is None else str(limit)) for limit in limits),
        Text(str(key.priority)),
        _text(key.tenant if key.tenant != key.id else "–"),
        Text((_spell(key.expires_at) or "never")[:10]),
    ]


def _text(text: str) -> Text:
    """One line that cannot steer the terminal."""
    return Text(printable(text).replace("\n", " "))


def _spell(seconds: float) -> str | None:
    if seconds == math.inf:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
