"""Simulated replicas for tests: in this process, or as processes of their own that can be killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from inferdock.sim.faults import Faults, parse_fault
from inferdock.sim.options import SimOptions
from inferdock.sim.server import SimServer


@contextlib.asynccontextmanager
async def running_sim(options: SimOptions | None = None, *faults: str) -> AsyncIterator[SimServer]:
    """Run a replica in this event loop on a free port; ``faults`` as in :mod:`inferdock.sim.faults`."""
    server = SimServer(options or SimOptions(), Faults([parse_fault(text) for text in faults]))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class SimProcess:
    """A replica in a process of its own.

    Attributes:
        port, url: where it listens.
        process: the child.
    """

    def __init__(self, *arguments: str, start_within_s: float = 30.0) -> None:
        """``arguments`` are flags of ``inferdock sim``."""
        with tempfile.TemporaryDirectory() as folder:
            announce = Path(folder) / "sim.json"
            command = [sys.executable, "-m", "inferdock.cli.main", "sim", "--announce", str(announce), *arguments]
            self.process = subprocess.Popen(command, start_new_session=True)
            deadline = time.monotonic() + start_within_s
            while not announce.exists():
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    raise RuntimeError(f"the simulated replica did not start: {command}")
                time.sleep(0.02)
            self.port: int = json.loads(announce.read_text())["port"]
        self.url = f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """SIGKILL, as a node failure would look."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def sim_process(*arguments: str) -> Iterator[SimProcess]:
    """Run a replica as a process; it is gone at the end."""
    process = SimProcess(*arguments)
    try:
        yield process
    finally:
        process.kill()
