"""A replica that answers with the very bytes it was given: for answers that no real server would send."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
EVENT_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

Pause = float
Close = type(None)
Script = list[bytes | float | None]
"""Bytes to write, seconds to wait, None to close."""


class ScriptedReplica:
    """Attributes:
    requests: whole requests seen, but for health checks.
    """

    def __init__(self, script: Callable[[int], Script]) -> None:
        self._script = script
        self.requests: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET "):
                    writer.write(HEALTHY)
                    continue
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(lengths[0].partition(b":")[2])) if lengths else b""
                self.requests.append(head + body)
                if not await self._answer(writer):
                    break
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> bool:
        for step in self._script(len(self.requests)):
            if step is None:
                return False
            if isinstance(step, float):
                await asyncio.sleep(step)
            else:
                writer.write(step)
                await writer.drain()
        return True


@contextlib.asynccontextmanager
async def scripted_replica(script: Callable[[int], Script] | Script) -> AsyncIterator[ScriptedReplica]:
    """Run one; ``script`` may depend on the number of the request (1 is the first)."""
    replica = ScriptedReplica(script if callable(script) else lambda _: script)
    server = await asyncio.start_server(replica.serve, "127.0.0.1", 0)
    replica.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield replica
    finally:
        server.close()
