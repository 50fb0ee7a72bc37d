"""Puts a gateway of several processes together: the parent, and what it starts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from inferdock.balance.endpoints import EndpointSet
from inferdock.config.settings import Settings
from inferdock.gateway.listening import open_listeners
from inferdock.gateway.reload import Reload
from inferdock.gateway.upstream import UpstreamPool
from inferdock.gateway.workers.boards import shared_boards
from inferdock.gateway.workers.packed import GROUP, MAPPING, SEQUENCE
from inferdock.gateway.workers.parent import GatewayParent
from inferdock.telemetry.logs import EventLog

WORKER = [sys.executable, "-m", "inferdock.app.worker"]


def build_parent(
    settings: Settings, *, loop: asyncio.AbstractEventLoop, log: EventLog, read: Callable[[], Settings]
) -> GatewayParent:
    """Take the port and put the parent together; no worker is started yet.

    Raises:
        ResourceError: the port is taken or the address cannot be used.
    """
    count = settings.gateway.workers
    listeners = open_listeners(settings.gateway.host, settings.gateway.port, count)
    boards = shared_boards(count)

    def prepare(new: Settings) -> Callable[[], None]:
        return lambda: parent.apply(new)

    parent = GatewayParent(
        settings=settings,
        pack=pack,
        command=WORKER,
        listeners=listeners,
        boards=boards,
        endpoints=EndpointSet.build(settings.balance, board=boards["endpoints"]),
        pool=UpstreamPool(loop=loop, connect_timeout_s=settings.gateway.connect_timeout_s),
        log=log,
        reload=Reload(settings=settings, read=read, rooms=[prepare], log=log),
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
    return value if value is None or isinstance(value, bool | int | float) else str(value)
