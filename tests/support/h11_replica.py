"""A replica that reads with h11: the strict second opinion on what the gateway sends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import h11


@dataclass
class SeenRequest:
    """One request as h11 read it."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""

    def values(self, name: bytes) -> list[bytes]:
        """All values of a header, by lower-case name."""
        return [value for key, value in self.headers if key == name]


@dataclass
class H11Replica:
    """Attributes:
    requests: all but GETs, by which the gateway looks after its replicas.
    faults: what h11 refused; must stay empty.
    """

    url: str = ""
    requests: list[SeenRequest] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        connection = h11.Connection(our_role=h11.SERVER, max_incomplete_event_size=1024 * 1024)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            try:
                while await self._cycle(connection, reader, writer):
                    connection.start_next_cycle()
            except h11.RemoteProtocolError as error:
                self.faults.append(str(error))
        writer.close()

    async def _cycle(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        seen: SeenRequest | None = None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Request):
                seen = SeenRequest(event.method, event.target, list(event.headers))
            elif isinstance(event, h11.Data):
                assert seen is not None
                seen.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        assert seen is not None
        if seen.method != b"GET":
            self.requests.append(seen)
        answer = h11.Response(status_code=200, headers=[("content-type", "application/json"), ("content-length", "2")])
        for event in (answer, h11.Data(data=b"{}"), h11.EndOfMessage()):
            writer.write(connection.send(event) or b"")
        await writer.drain()
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE


@contextlib.asynccontextmanager
async def h11_replica() -> AsyncIterator[H11Replica]:
    """Run one; at the end it must have found nothing to refuse."""
    replica = H11Replica()
    server = await asyncio.start_server(replica.serve, "127.0.0.1", 0)
    replica.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield replica
    finally:
        server.close()
    assert not replica.faults, replica.faults
