"""A real gateway process in front of two simulated replicas, for clients that are programs of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from inferdock.sim.testing import sim_process


@dataclass
class Service:
    """Where the gateway listens; base URL without /v1."""

    url: str

    def get(self, path: str) -> str:
        """Body of a GET."""
        with urllib.request.urlopen(self.url + path, timeout=10) as response:
            return response.read().decode()

    def in_flight(self) -> float:
        """Requests that the gateway holds now, from its own metrics."""
        lines = [x for x in self.get("/metrics").splitlines() if x.startswith("llm_gateway_requests_in_flight{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def until_idle(self, within_s: float = 20.0) -> None:
        """Wait until the gateway holds no request."""
        deadline = time.monotonic() + within_s
        while self.in_flight():
            assert time.monotonic() < deadline, "a request is still held"
            time.sleep(0.05)

    def until_ready(self, within_s: float = 30.0) -> None:
        """Wait until it would serve."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                self.get("/ready")
            except (urllib.error.URLError, ConnectionError):
                assert time.monotonic() < deadline, "the gateway did not become ready"
                time.sleep(0.05)
            else:
                return


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One gateway with two replicas; it must still end in an orderly way after all clients."""
    folder = tmp_path_factory.mktemp("clients")
    announce = folder / "gateway.json"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("INFERDOCK_")}
    speed = ("--port", "0", "--ttft", "0.01", "--itl", "0.005")
    with sim_process(*speed) as one, sim_process(*speed) as two:
        command = [sys.executable, "-m", "inferdock.cli.main", "gateway", "--port", "0", "--announce", str(announce)]
        command += [f"--replica=sim={one.url}", f"--replica=sim={two.url}"]
        with (folder / "gateway.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            found = Service(f"http://127.0.0.1:{_port(announce, process)}")
            found.until_ready()
            yield found
            found.until_idle()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, (folder / "gateway.log").read_text()[-4000:]
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _port(announce: Path, process: subprocess.Popen[bytes], within_s: float = 30.0) -> int:
    deadline = time.monotonic() + within_s
    while not announce.exists():
        assert process.poll() is None, "the gateway ended"
        assert time.monotonic() < deadline, "the gateway did not start"
        time.sleep(0.02)
    return int(json.loads(announce.read_text())["port"])


def tool(name: str, package: str) -> str:
    """Path of a program, or skip with the way to get it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"needs {name}: apt-get install -y {package}")
    return path


def ask(**fields: object) -> bytes:
    """Body of a chat request to the simulated model."""
    body = {"model": "sim", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "ignore_eos": True}
    return json.dumps(body | fields).encode()
