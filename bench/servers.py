"""Starts the servers that benchmarks compare, and ends them whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

START_S = 600.0


def free_port() -> int:
    """A port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@contextlib.contextmanager
def process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a session of its own; SIGTERM at the end, SIGKILL to the group if that does not help."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INFERDOCK_")}
    with log.open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def wait_for(ready: Any, child: subprocess.Popen[bytes], log: Path) -> float:
    """Wait until ``ready()`` is true; seconds it took. Exits with the log's end if the server ends before."""
    start = time.monotonic()
    while not ready():
        if child.poll() is not None or time.monotonic() - start > START_S:
            sys.exit(f"the server did not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.2)
    return time.monotonic() - start


@contextlib.contextmanager
def legacy(model: Path) -> Iterator[str]:
    """The legacy engine; yields its OpenAI base address."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "legacy.log"
        command = [sys.executable, "-m", "bench.legacy_server", "--model", str(model), "--port", str(port)]
        with process(command, log) as child:
            wait_for(lambda: answers(f"http://127.0.0.1:{port}/health"), child, log)
            yield f"http://127.0.0.1:{port}/v1"


@contextlib.contextmanager
def inferdock(model: str, replicas: int, *arguments: str) -> Iterator[tuple[str, list[str]]]:
    """``inferdock up``; yields its OpenAI base address and those of its replicas."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "up.log"
        state = Path(folder) / "up-0" / "state.json"
        command = [sys.executable, "-m", "inferdock.cli.main", "up", "--model", model, "--replicas", str(replicas)]
        command += ["--port", "0", "--state-dir", folder, *arguments]

        def all_ready() -> bool:
            try:
                rows = json.loads(state.read_text())["replicas"]
            except (OSError, ValueError, KeyError):
                return False
            return [row["state"] for row in rows].count("ready") == replicas

        with process(command, log) as child:
            wait_for(all_ready, child, log)
            found = json.loads(state.read_text())
            yield f"{found['url']}/v1", [f"{row['url']}/v1" for row in found["replicas"]]


def measure(urls: list[str], *arguments: str) -> dict[str, Any]:
    """Run ``inferdock bench`` on the addresses and return its JSON document."""
    command = [sys.executable, "-m", "inferdock.cli.main", "bench", *urls, "-o", "json", *arguments]
    result = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if result.returncode != 0:
        sys.exit(f"bench failed with status {result.returncode}: {' '.join(command)}")
    document: dict[str, Any] = json.loads(result.stdout)
    return document
