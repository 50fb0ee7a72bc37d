"""The tracked files and pages that the tests of the documentation read."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def tracked_files() -> list[Path]:
    """Every file of the repository that git tracks or would track; all files where there is no git."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]
    folders = ["src", "tests", "scripts", "docs", "bench", "requirements", "models", ".ci"]
    inside = [path for folder in folders for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
    return [path for path in [*ROOT.glob("*"), *inside] if path.is_file()]


def text_of(path: Path) -> str | None:
    """The file's text; None for a binary file."""
    data = path.read_bytes()
    return None if b"\0" in data[:4096] else data.decode("utf-8", errors="replace")


def pages() -> list[Path]:
    """README, change log and everything in docs/, with the notes beside models and benchmarks."""
    return [path for path in tracked_files() if path.suffix == ".md"]


def name_of(path: Path) -> str:
    """Path for a test id."""
    return str(path.relative_to(ROOT))
