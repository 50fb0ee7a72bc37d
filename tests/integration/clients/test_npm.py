"""The official OpenAI client for JavaScript against the gateway; see npm/client.mjs for what each case says.

The client is installed once, by ``npm ci`` from the lock beside it, into the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.clients.conftest import Service, tool

SOURCE = Path(__file__).parent / "npm"
CASES = ["models", "chat", "stream", "usage", "completions", "error", "raw", "abort", "many", "large"]


def cache_folder() -> Path:
    """A folder of its own for each lock, outside of the checkout."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256((SOURCE / "package-lock.json").read_bytes()).hexdigest()[:16]
    return base / "inferdock" / f"npm-{digest}"


@pytest.fixture(scope="session")
def client() -> Path:
    """Folder in which node finds the client."""
    tool("node", "nodejs npm")
    npm = tool("npm", "nodejs npm")
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "complete").exists():
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SOURCE / name, folder)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False)
        if done.returncode:
            pytest.skip(f"needs the openai package of npm, and npm ci failed: {done.stderr.strip()[-300:]}")
        (folder / "complete").touch()
    return folder


@pytest.mark.parametrize("case", CASES)
def test_the_javascript_client_works(client: Path, service: Service, case: str):
    shutil.copy(SOURCE / "client.mjs", client)  # beside its node_modules, where imports are looked up
    command = ["node", "client.mjs", case, f"{service.url}/v1"]
    done = subprocess.run(command, cwd=client, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    service.until_idle(within_s=5)


def test_every_case_is_run():
    text = (SOURCE / "client.mjs").read_text()
    assert [
        line.split("(")[0].removeprefix("  async ") for line in text.splitlines() if line.startswith("  async ")
    ] == CASES
