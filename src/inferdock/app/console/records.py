"""What the console shows of the records: releases, the registry, keys. Documents as JSON has them, never a secret."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from inferdock.app.registry import open_registry
from inferdock.config.settings import Settings
from inferdock.domain.errors import InferdockError
from inferdock.keys.key import Key
from inferdock.registry.event import Alias, Event, Push
from inferdock.registry.registry import Registry

MOST_MODELS: Final = 100
MOST_EVENTS: Final = 50
FOREVER: Final = float("inf")


# -- Registry ----------------------------------------------------------------------------------------------------


def registry(settings: Settings, environment: Mapping[str, str]) -> dict[str, Any]:
    """Models with their versions, aliases and history; call it in a thread.

    Raises:
        InferdockError: the registry cannot be read at all.
    """
    opened = open_registry(settings.registry, environment)
    names = opened.names()
    return {"models": [_model(opened, name) for name in names[:MOST_MODELS]], "left_out": len(names[MOST_MODELS:])}


def _model(opened: Registry, name: str) -> dict[str, Any]:
    """One model; what is wrong with it does not hide the others."""
    try:
        state, history = opened.state(name), opened.history(name)
    except InferdockError as exc:
        return {"name": name, "problem": exc.message, "versions": [], "history": []}
    versions = [
        {
            "version": version,
            "aliases": state.aliases_of(version),
            "revision": made.push.revision[:12],
            "size_bytes": made.push.size_bytes,
            "files": made.push.files,
            "signed": bool(made.push.signed_by),
            "time": made.event.time,
            "actor": made.event.actor,
        }
        for version, made in state.versions.items()
    ]
    events = [_change(event) for event in history[-MOST_EVENTS:]]
    return {"name": name, "problem": "", "versions": versions[::-1], "history": events[::-1]}


def _change(event: Event) -> dict[str, Any]:
    match event.change:
        case Push(version=version):
            text = f"{version} was pushed"
        case Alias(moves=moves):
            text = ", ".join(f"{one.alias}: {one.before or 'none'} → {one.after or 'none'}" for one in moves)
        case change:
            text = f"{change.version} was deleted"
    return {"time": event.time, "actor": event.actor, "reason": event.reason, "text": text}


# -- Keys --------------------------------------------------------------------------------------------------------


def keys(found: tuple[Key, ...], checked: str) -> dict[str, Any]:
    """Names and limits of keys; neither their text nor its digest."""
    now = time.time()
    rows = [
        {
            "id": key.id,
            "name": key.name,
            "state": key.state(now),
            "models": sorted(key.models),
            "tenant": key.tenant,
            "admin": key.admin,
            "requests_per_minute": key.requests_per_minute,
            "tokens_per_minute": key.tokens_per_minute,
            "concurrent_streams": key.concurrent_streams,
            "priority": key.priority,
            "expires": None if key.expires_at == FOREVER else datetime.fromtimestamp(key.expires_at, UTC).isoformat(),
        }
        for key in found
    ]
    return {"check": checked, "keys": rows}


ENCODE: Final = msgspec.json.Encoder().encode
