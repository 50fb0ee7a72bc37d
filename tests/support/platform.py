"""Starts and stops a whole platform for tests, as a person would: by ``inferdock up``."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any


class Platform:
    """A running ``inferdock up``.

    Attributes:
        process: the supervisor.
        state_dir: its logs and state.
    """

    def __init__(self, folder: Path, *arguments: str, output: int | None = None, terminal: int | None = None) -> None:
        """``arguments`` are flags of ``inferdock up``; the port is always a free one.

        ``output`` is a file descriptor for what it says, instead of the file ``up.log``; ``terminal`` is one that
        becomes its controlling terminal.
        """
        self.state_dir = folder
        self.output = folder / "up.log"
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "inferdock.cli.main", "up", "--port", "0", "--state-dir", str(folder)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("INFERDOCK_")}
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [*command, *arguments],
                stdout=out if output is None else output,
                stderr=out if output is None else output,
                env=environment,
                start_new_session=True,
                preexec_fn=None if terminal is None else lambda: fcntl.ioctl(terminal, termios.TIOCSCTTY, 0),
            )

    @property
    def state(self) -> dict[str, Any]:
        """The supervisor's state file; empty before there is one."""
        try:
            found: dict[str, Any] = json.loads((self.state_dir / "up-0" / "state.json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    @property
    def url(self) -> str:
        """The gateway's base URL, without /v1."""
        return str(self.state["url"])

    def wait_until_ready(self, replicas: int, within_s: float) -> None:
        """Wait until so many replicas are ready; fails with the output if the platform ends before."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            states = [replica["state"] for replica in self.state.get("replicas", [])]
            if states.count("ready") >= replicas:
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        text = self.output.read_text()
        self.kill()
        raise AssertionError(f"the platform did not become ready:\n{text}")

    def stop(self, number: signal.Signals = signal.SIGTERM, within_s: float = 90.0) -> int:
        """Ask it to stop and return its exit status."""
        self.process.send_signal(number)
        return self.process.wait(within_s)

    def kill(self) -> None:
        """End it without asking."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
