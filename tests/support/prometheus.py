"""A real Prometheus with our rules, as a process of its own."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.render_monitoring import RULES

PROGRAM = "prometheus"
MISSING = shutil.which(PROGRAM) is None or shutil.which("promtool") is None
REASON = "needs prometheus and promtool (Debian: apt-get install prometheus)"


def job(name: str, url: str, **labels: str) -> dict[str, Any]:
    """One target."""
    target = {"targets": [url.removeprefix("http://")], "labels": labels}
    return {"job_name": name, "honor_labels": True, "static_configs": [target]}


@contextlib.contextmanager
def running_prometheus(
    folder: Path, jobs: list[dict[str, Any]], *, every: str = "1s", rules: bool = True, features: str = ""
) -> Iterator[str]:
    """Scrapes, and evaluates our rules unless it shall not, once in ``every``; ``features``: of its
    own, comma-separated. Gives its base URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    often = {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
    config = folder / "prometheus.yml"
    files = [f"{RULES}/*.yaml"] if rules else []
    config.write_text(json.dumps({"global": often, "rule_files": files, "scrape_configs": jobs}))
    command = [PROGRAM, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn"]
    command += [f"--enable-feature={features}"] if features else []
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        _wait_until_it_listens(port, process, folder / "prometheus.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(20)


def _wait_until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)


def check_metrics(text: bytes) -> str:
    """What ``promtool check metrics`` has to say; empty when nothing."""
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    said = (done.stdout + done.stderr).decode()
    return said or ("" if done.returncode == 0 else f"exit {done.returncode}")
