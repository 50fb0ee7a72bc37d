"""The least that a proxy on uvloop can do: it finds where messages end and copies bytes, round robin. Not for use.

Its cost is the floor under any gateway on CPython and uvloop. It trusts both sides: one request at a time on a
connection, heads in one piece, no errors handled. ``python -m bench.gateway.bare_proxy PORT REPLICA_PORT...``
"""

from __future__ import annotations

import asyncio
import socket
import sys
from itertools import cycle
from typing import cast

import uvloop

LAST_CHUNK = b"0\r\n\r\n"


def size(data: bytes) -> int | None:
    """Bytes of a message from its head; None: chunked."""
    end = data.index(b"\r\n\r\n")
    head = data[:end].lower()
    at = head.find(b"content-length:")
    return end + 4 + int(head[at + 15 :].partition(b"\r\n")[0]) if at >= 0 else None


class Side(asyncio.Protocol):
    """One connection; ``other`` is the one it is coupled to while a request is under way."""

    def __init__(self) -> None:
        self.other: Side | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.abort()


class Replica(Side):
    """A connection to a replica."""

    def __init__(self, idle: list[Replica]) -> None:
        super().__init__()
        self._idle = idle
        self._left: int | None = 0

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self in self._idle:
            self._idle.remove(self)

    def data_received(self, data: bytes) -> None:
        client = self.other
        if client is None:
            return
        if self._left == 0:
            self._left = size(data)
        if self._left is not None:
            self._left -= len(data)
        if self._left == 0 or (self._left is None and data.endswith(LAST_CHUNK)):
            self._left = 0
            self.other = client.other = None
            self._idle.append(self)
        client.transport.write(data)


class Client(Side):
    """A connection of a client."""

    def __init__(self, replicas: cycle[tuple[int, list[Replica]]]) -> None:
        super().__init__()
        self._replicas = replicas
        self._parts: list[bytes] = []
        self._left = 0
        self._connecting: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        if not self._left:
            self._left = size(data) or len(data)
        self._left -= len(data)
        self._parts.append(data)
        if self._left:
            return
        port, idle = next(self._replicas)
        if idle:
            self._send(idle.pop())
        else:
            self._connecting = asyncio.create_task(self._connect(port, idle))

    async def _connect(self, port: int, idle: list[Replica]) -> None:
        _, replica = await asyncio.get_running_loop().create_connection(lambda: Replica(idle), "127.0.0.1", port)
        self._send(replica)

    def _send(self, replica: Replica) -> None:
        replica.other, self.other = self, replica
        parts, self._parts = self._parts, []
        replica.transport.writelines(parts)


async def serve(port: int, replicas: list[int]) -> None:
    """Run until killed."""
    pools = cycle([(replica, list[Replica]()) for replica in replicas])
    await asyncio.get_running_loop().create_server(lambda: Client(pools), "127.0.0.1", port, backlog=4096)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), [int(replica) for replica in sys.argv[2:]]))
