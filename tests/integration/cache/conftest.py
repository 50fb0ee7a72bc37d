"""A real Redis for each test, and gateways that use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.integration.cache.parts import Gateway
from tests.support.redis_server import RedisServer, running_redis


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The gateway's loop."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
async def gateways(server: RedisServer) -> AsyncIterator[Callable[..., Gateway]]:
    """Makes gateways, and ends them."""
    made: list[Gateway] = []

    def make(url: str = server.url, **options: Any) -> Gateway:
        made.append(Gateway(url, **options))
        return made[-1]

    yield make
    for gateway in made:
        await gateway.close()
