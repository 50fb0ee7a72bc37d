"""Raw commands over a few connections to Redis. It tries nothing twice and knows no command.

The library's pool keeps the connections; its client and its own time-outs are not used: the client puts whole commands
into the texts of errors, and its time-outs can swallow the cancelling of a task (``asyncio.wait_for`` of Python 3.11).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from redis.asyncio.connection import BlockingConnectionPool
from redis.exceptions import ResponseError

Command = tuple[bytes | str | int, ...]


class RedisClient:
    """Runs commands.

    Args:
        pool: connections that have no time-outs of their own.
        timeout_s: longest time of a command, with the wait for a connection and for all of its replies.
    """

    def __init__(self, pool: BlockingConnectionPool, timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s

    async def execute(self, *words: bytes | str | int) -> Any:
        """The raw reply to one command; raises as :meth:`execute_all`."""
        return (await self.execute_all((words,)))[0]

    async def execute_all(self, commands: Sequence[Command]) -> list[Any]:
        """The raw replies to some commands, which go out together.

        Raises:
            RedisError: the first error among the replies, or the connection's.
            OSError: the connection's; TimeoutError, which is one, too.
        """
        async with asyncio.timeout(self._timeout_s):
            connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
            replies: list[Any] = []
            failure: ResponseError | None = None
            try:
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                for _ in commands:
                    try:
                        replies.append(await connection.read_response())
                    except ResponseError as exc:
                        failure = failure or exc
            except BaseException:
                await connection.disconnect(nowait=True)  # replies may be under way still
                raise
            finally:
                await self._pool.release(connection)
        if failure is not None:
            raise failure
        return replies

    async def close(self) -> None:
        """Let all connections go."""
        with contextlib.suppress(Exception):  # what is closed may be broken
            await self._pool.disconnect()
