"""Main program of a gateway worker: ``python -m inferdock.app.worker FD``, started by its parent.

FD is its end of the channel; everything else comes through it. See ``inferdock.gateway.workers``.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

import uvloop

from inferdock.app.front import build_front
from inferdock.balance.board import Board
from inferdock.gateway.workers.worker import Parts, Worker
from inferdock.telemetry.logs import EventLog, write_lines_to_fd


async def run_worker(fd: int) -> None:
    """Serve until the parent says to end, or is gone."""
    loop = asyncio.get_running_loop()

    def build(settings: Any, boards: Mapping[str, Board], check_soon: Callable[[], None]) -> Parts:
        log = EventLog(write_lines_to_fd(sys.stderr.fileno()), level=settings.log.level, form=settings.log.format)
        return build_front(settings, boards, loop=loop, log=log, check_soon=check_soon)

    await Worker(build, loop).run(socket.socket(fileno=fd))


def main() -> None:
    """Entry point."""
    uvloop.run(run_worker(int(sys.argv[1])))


if __name__ == "__main__":
    main()
