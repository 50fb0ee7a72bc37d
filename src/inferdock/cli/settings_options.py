"""The flags that several commands share, and how they become the top layer of the configuration."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from inferdock.config.load import Loaded, load

F = TypeVar("F", bound=Callable[..., Any])


def config_file_option(command: F) -> F:
    """Add ``-f/--config-file``, passed to the command as ``config_file``."""
    option = click.option(
        "-f",
        "--config-file",
        type=click.Path(dir_okay=False, path_type=Path),
        default=None,
        help="Configuration file; default $INFERDOCK_CONFIG, else ./inferdock.yaml where it exists.",
    )
    return option(command)


def load_settings(config_file: Path | None, flags: dict[str, tuple[str, Any]]) -> Loaded:
    """Merge file, environment and flags.

    Args:
        config_file: value of ``-f``.
        flags: dotted path to (flag as typed, value); None values do not count.

    Raises:
        ConfigError: something in any of the layers is wrong.
    """
    return load(file=config_file, env=os.environ, flags=flags)
