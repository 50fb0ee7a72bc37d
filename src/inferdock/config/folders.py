"""Where Inferdock keeps what it writes, by the XDG base directory rules; the environment is passed in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def default_state_dir(environment: Mapping[str, str]) -> Path:
    """``$XDG_STATE_HOME/inferdock``, else ``~/.local/state/inferdock``."""
    base = environment.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "inferdock"


def default_cache_dir(environment: Mapping[str, str]) -> Path:
    """``$XDG_CACHE_HOME/inferdock``, else ``~/.cache/inferdock``: what may be deleted at any time."""
    base = environment.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "inferdock"


def default_data_dir(environment: Mapping[str, str]) -> Path:
    """``$XDG_DATA_HOME/inferdock``, else ``~/.local/share/inferdock``: what must be kept."""
    base = environment.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "inferdock"
