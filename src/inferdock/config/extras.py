"""Loads modules that need an optional extra, by name, so that nobody imports the extra who does not use it."""

from __future__ import annotations

import importlib
from typing import Any

from inferdock.domain.errors import ConfigError


def load_extra(module: str, *, extra: str, sentence: str) -> Any:
    """A module of ours whose packages may be missing.

    Args:
        module: its full name.
        extra: of the distribution, which brings them.
        sentence: what the person is told, with ``{package}`` in it.

    Raises:
        ConfigError: a package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("inferdock"):
            raise
        raise ConfigError(
            sentence.format(package=exc.name.partition(".")[0]), cure=f"Run: pip install 'inferdock[{extra}]'"
        ) from exc
