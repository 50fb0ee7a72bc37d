"""Starts the platform with the demo model, verifies it with all that this machine allows, and stops it: `make verify`.

Everything lies in a folder of its own and on free ports, so it disturbs no platform that runs here. The reports are
left in out/verify.json and out/verify.html. What is given goes on to `inferdock verify`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "out"
INFERDOCK = (sys.executable, "-m", "inferdock.cli.main")
NAME = "demo"
STABLE, CANDIDATE = "1.0.0", "1.1.0"
READY_S = 600.0
STOP_S = 120.0
ENGINE_VARIABLE = "VERIFY_ENGINE"
"""`sim` in it: made-up answers, where no engine is installed."""
SETTINGS: dict[str, Any] = {
    "gateway": {"replica_drain_timeout_s": 5},
    "cache": {"enabled": True},
    "cost": {"cost_per_hour": 0.10},
}
"""The response cache is on and an hour has a price, or their checks could not run. Autoscaling is off, its default."""


class StartError(Exception):
    """The platform did not start; the text says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify; the exit code is that of `inferdock verify`, or 6 where the platform did not start."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped then, too
    with tempfile.TemporaryDirectory(prefix="inferdock-verify-") as name:
        folder = Path(name)
        config = write_config(folder)
        try:
            push(folder, config)
            with platform(folder, config):
                return verify(config, given)
        except StartError as error:
            print(f"error: {error}", file=sys.stderr)
            return 6


def write_config(folder: Path) -> Path:
    """The configuration of the platform."""
    config = folder / "inferdock.yaml"
    registry = {"url": str(folder / "registry"), "cache_dir": str(folder / "models")}
    config.write_text(json.dumps({"registry": registry, "state_dir": str(folder / "up"), **SETTINGS}))
    return config


def push(folder: Path, config: Path) -> None:
    """Two versions of the demo model: the second has the same weights, so that it may be released."""
    other = shutil.copytree(ROOT / "models" / "demo", folder / "other")
    (other / "README.md").write_text("The demo model's weights again, as a version of their own.\n")
    for version, path, more in (
        (STABLE, ROOT / "models" / "demo", ("--alias", "champion")),
        (CANDIDATE, other, ()),
    ):
        words = ("model", "push", str(path), "--name", NAME, "--version", version, *more, "-f", str(config))
        done = subprocess.run([*INFERDOCK, *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StartError(done.stderr.strip())


@contextlib.contextmanager
def platform(folder: Path, config: Path) -> Iterator[None]:
    """`inferdock up`, ready, and gone afterwards."""
    words = ["up", "-f", str(config), "--model", f"{NAME}@champion", "--replicas", "2", "--port", "0"]
    if engine := os.environ.get(ENGINE_VARIABLE):
        words += ["--engine", engine]
    log = folder / "up.log"
    with log.open("wb") as out:
        process = subprocess.Popen([*INFERDOCK, *words], stdout=out, stderr=out, start_new_session=True)
    try:
        wait_until_ready(process, folder / "up" / "up-0" / "state.json", log)
        yield
    finally:
        stop(process)


def wait_until_ready(process: subprocess.Popen[bytes], state: Path, log: Path) -> None:
    """Wait for both replicas.

    Raises:
        StartError: they do not become ready.
    """
    print("Starting two replicas of the demo model.", file=sys.stderr, flush=True)
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            if [row["state"] for row in json.loads(state.read_text())["replicas"]].count("ready") >= 2:
                return
        time.sleep(0.5)
    raise StartError(f"The platform did not become ready. It said:\n{log.read_text(errors='replace')[-2000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Drain, or end it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def verify(config: Path, given: Sequence[str]) -> int:
    """Run the checks, the disruptive ones too."""
    OUT.mkdir(exist_ok=True)
    words = ["verify", "-f", str(config), "--port", "0", "--checkout", str(ROOT), "--disruptive"]
    words += ["--with-release", f"{NAME}@{CANDIDATE}"]
    words += ["--json", str(OUT / "verify.json"), "--html", str(OUT / "verify.html")]
    return subprocess.run([*INFERDOCK, *words, *given], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
