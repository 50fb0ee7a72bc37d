"""What the commands of ``inferdock model`` share: which registry, and how its things are spelt."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inferdock.app.registry import open_cache, open_registry
from inferdock.cli.output import printable
from inferdock.cli.settings_options import config_file_option, load_settings
from inferdock.config.settings import RegistrySettings
from inferdock.domain.errors import ConfigError
from inferdock.domain.moment import spell
from inferdock.registry.model_cache import ModelCache
from inferdock.registry.registry import Registry

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Which registry a command is about."""

    settings: RegistrySettings

    def registry(self) -> Registry:
        """The registry."""
        return open_registry(self.settings, os.environ)

    def cache(self) -> ModelCache:
        """This machine's cache of versions."""
        return open_cache(self.settings, os.environ)


def registry_options(command: F) -> F:
    """Add ``-f`` and ``--registry``, passed to the command as ``where``."""

    @functools.wraps(command)
    def called(config_file: Path | None, registry_url: str | None, **arguments: Any) -> Any:
        settings = load_settings(config_file, {"registry.url": ("--registry", registry_url)}).settings
        return command(where=Where(settings=settings.registry), **arguments)

    option = click.option(
        "--registry", "registry_url", metavar="URL", help="A folder or s3://bucket; default: `registry.url`."
    )
    return cast(F, config_file_option(option(called)))


def moment(text: str, now: datetime) -> str:
    """A time as histories spell it.

    Args:
        text: ISO 8601 (``2026-01-31``, ``2026-01-31T12:00``, with ``Z`` or an offset; without: UTC), or a span before
            ``now`` (``90m``, ``12h``, ``30d``).
        now: the present.

    Raises:
        ConfigError: it is neither.
    """
    span = re.fullmatch(r"([0-9]{1,6})([mhd])", text)
    if span is not None:
        unit = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}[span[2]]
        return _spelt(lambda: now - int(span[1]) * unit, text)
    return _spelt(lambda: _utc(datetime.fromisoformat(text)), text)


def _utc(parsed: datetime) -> datetime:
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)


def _spelt(make: Callable[[], datetime], text: str) -> str:
    try:
        return spell(make())
    except (ValueError, OverflowError) as exc:
        raise ConfigError(f"{text[:60]!r} is no time.", cure="For instance 2026-01-31T12:00 (UTC), or 12h.") from exc


def size(count: int) -> str:
    """Bytes for a person, in units of 1000: ``8.0 MB``."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{count} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def number(count: int) -> str:
    """A number of parameters for a person: ``7.2B``."""
    for limit, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= limit:
            return f"{count / limit:.1f}{unit}"
    return str(count)


def cell(value: object, style: str = "") -> Text:
    """One line that cannot steer the terminal."""
    return Text(printable(str(value)).replace("\n", " "), style=style)


def table(*columns: str, right: tuple[str, ...] = (), wide: tuple[str, ...] = ()) -> Table:
    """A plain table; only the columns of ``wide`` are broken over lines."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(
            column, justify="right" if column in right else "left", no_wrap=column not in wide, overflow="fold"
        )
    return made


def show(what: Table | Text) -> None:
    """Print to standard output."""
    Console(soft_wrap=not isinstance(what, Table), highlight=False).print(what)
