"""Puts a gateway of several processes together: the parent, and what it starts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from inferdock.app.front import keys_of
from inferdock.balance.endpoints import EndpointSet
from inferdock.config.settings import Settings
from inferdock.gateway.key_watch import KeyWatch
from inferdock.gateway.listening import open_listeners
from inferdock.gateway.reload import Reload
from inferdock.gateway.upstream import UpstreamPool
from inferdock.gateway.workers.boards import shared_boards
from inferdock.gateway.workers.packed import GROUP, MAPPING, PATH, SEQUENCE
from inferdock.gateway.workers.parent import GatewayParent
from inferdock.telemetry.logs import EventLog

WORKER = [sys.executable, "-m", "inferdock.app.worker"]


def build_parent(
    settings: Settings, *, loop: asyncio.AbstractEventLoop, log: EventLog, read: Callable[[], Settings]
) -> GatewayParent:
    """Take the port and put the parent together; no worker is started yet.

    Raises:
        ResourceError: the port is taken or the address cannot be used.
        ConfigError: the key file cannot be used.
    """
    count = settings.gateway.workers
    keys = KeyWatch(settings.keys, keys_of(settings), log)
    keys.load()
    listeners = open_listeners(settings.gateway.host, settings.gateway.port, count)
    boards = shared_boards(count)

    def pack_closed(new: Settings) -> Any:
        """Once keys are checked, a new worker that cannot read them lets nobody in."""
        checked = new.keys.model_copy(update={"check": "always"}) if keys.auth.enabled else new.keys
        return pack(new.model_copy(update={"keys": checked}))

    def prepare(new: Settings) -> Callable[[], None]:
        return lambda: parent.apply(new)

    parent = GatewayParent(
        settings=settings,
        pack=pack_closed,
        command=WORKER,
        listeners=listeners,
        boards=boards,
        endpoints=EndpointSet.build(settings.balance, board=boards["endpoints"]),
        pool=UpstreamPool(loop=loop, connect_timeout_s=settings.gateway.connect_timeout_s),
        log=log,
        reload=Reload(settings=settings, read=read, rooms=[prepare], log=log),
        chores=(keys.run,),
    )
    return parent


def pack(value: Any) -> Any:
    """Settings as plain values that still tell groups from mappings; ``gateway.workers.packed.unpack`` reads them."""
    if isinstance(value, BaseModel):
        return GROUP, {name: pack(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return MAPPING, {key: pack(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return SEQUENCE, [pack(item) for item in value]
    return (PATH, str(value)) if isinstance(value, Path) else value
