"""Reads the configuration again while the gateway runs: everything is checked before anything changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from inferdock.config.load import flatten
from inferdock.config.settings import Settings
from inferdock.domain.errors import InferdockError
from inferdock.telemetry.logs import EventLog

NEEDS_RESTART = (
    "gateway.host",
    "gateway.port",
    "gateway.admin_port",
    "gateway.workers",
    "gateway.console_socket",
    "gateway.kubernetes.",
    "cache.max_bytes",
    "cache.max_entries",
    "cache.lookup_budget_s",
    "cache.embedder_dir",
    "cache.redis.",
    "keys.",
    "tracing.",
)
"""Settings (or groups) that are read at the start only. The key *file* is watched, see ``keys.reload_interval_s``."""

_LIVE = ("balance.", "cache.", "gateway.", "log.", "drain_timeout_s")
"""What counts at once, but for the above. The gateway ignores the settings of other rooms."""

M = TypeVar("M", bound=BaseModel)
Prepare = Callable[[Settings], Callable[[], None]]
"""Checks new settings for one room and returns what makes them count; InferdockError when they cannot be used."""


class Reload:
    """Moves a running gateway to new settings. One call is one reload."""

    def __init__(
        self,
        *,
        settings: Settings,
        read: Callable[[], Settings],
        rooms: Sequence[Prepare],
        log: EventLog,
    ) -> None:
        """``settings`` are those in force; ``read`` merges file, environment and flags again."""
        self._settings = settings
        self._read = read
        self._rooms = rooms
        self._log = log

    def __call__(self) -> dict[str, object]:
        """Read, check everything, apply.

        Returns:
            ``changed``: settings that have another value now; ``needs_restart``: settings whose new value counts
            only after a restart.

        Raises:
            InferdockError: the configuration cannot be used; nothing has changed.
        """
        try:
            new = self._read()
            changed, pinned = self._differences(new)
            effective = pin(new, self._settings)
            commits = [prepare(effective) for prepare in self._rooms]
        except InferdockError as exc:
            self._log.event("error", "configuration not reloaded", reason=str(exc))
            raise
        for commit in commits:
            commit()
        self._settings = effective
        self._log.event(
            "warning" if pinned else "info",
            "configuration reloaded",
            changed=" ".join(changed),
            needs_restart=" ".join(pinned),
        )
        return {"changed": changed, "needs_restart": pinned}

    def _differences(self, new: Settings) -> tuple[list[str], list[str]]:
        old = dict(flatten(self._settings))
        keys = [key for key, value in flatten(new) if old[key] != value]
        pinned = [key for key in keys if key.startswith(NEEDS_RESTART)]
        return [key for key in keys if key.startswith(_LIVE) and key not in pinned], pinned


def pin(new: Settings, old: Settings) -> Settings:
    """The new settings with the old values of what only a restart can change."""
    return _pinned(new, old, "")


def _pinned(new: M, old: M, prefix: str) -> M:
    kept: dict[str, Any] = {}
    for name in type(new).model_fields:
        key, value, before = f"{prefix}{name}", getattr(new, name), getattr(old, name)
        if key in NEEDS_RESTART or f"{key}." in NEEDS_RESTART:
            kept[name] = before
        elif isinstance(value, BaseModel):
            kept[name] = _pinned(value, before, f"{key}.")
    return new.model_copy(update=kept)
