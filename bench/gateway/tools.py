"""The cache folder of these benchmarks, and the two C programs in it, compiled on first use."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
COMPILE = ("gcc", "-O2", "-Wall", "-Wextra")


def cache() -> Path:
    """Folder for compiled programs, peers' environments and snapshots of commits; outside of the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "inferdock-bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@functools.cache
def program(name: str) -> Path:
    """``upstream`` or ``load``, compiled anew when its source has changed."""
    source = HERE / f"{name}.c"
    digest = hashlib.sha256(source.read_bytes() + (HERE / "common.h").read_bytes()).hexdigest()[:12]
    binary = cache() / "bin" / f"{name}-{digest}"
    if not binary.exists():
        if shutil.which("gcc") is None:
            sys.exit("error: gcc is needed (Debian: apt-get install -y gcc libc6-dev)")
        binary.parent.mkdir(exist_ok=True)
        subprocess.run([*COMPILE, "-o", f"{binary}.new", str(source)], check=True)
        os.replace(f"{binary}.new", binary)
    return binary


def snapshot(revision: str) -> tuple[Path, str]:
    """The ``src`` of a commit of this repository as a folder to import from, and the commit's full id."""
    found = subprocess.run(
        ["git", "-C", str(HERE), "rev-parse", f"{revision}^{{commit}}"], capture_output=True, text=True, check=False
    )
    if found.returncode:
        sys.exit(f"error: there is no commit {revision} here")
    commit = found.stdout.strip()
    folder = cache() / "commits" / commit[:12]
    if not folder.exists():
        draft = folder.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        top = subprocess.run(
            ["git", "-C", str(HERE), "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True
        ).stdout.strip()
        archive = subprocess.run(["git", "-C", top, "archive", commit, "src"], capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", str(draft)], input=archive.stdout, check=True)
        draft.rename(folder)
    return folder / "src", commit
