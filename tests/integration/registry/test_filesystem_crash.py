"""A writer of the directory store is killed at every step that changes something on disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("scenario", ["first", "copies", "leftovers", "delete"])
def test_a_writer_may_die_at_every_step(scenario: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.integration.registry.filesystem_deaths", scenario, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10  # deaths
