"""What commands print arrives whole."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

SIZE = 400_000
PRINTS = f"""
import uvloop
from inferdock.cli.output import write_whole
write_whole()
uvloop.new_event_loop().close()  # what it leaves interrupts the write below
print("x" * {SIZE})
print("end", end="")
"""


@pytest.mark.parametrize("unbuffered", ["1", ""], ids=["unbuffered", "buffered"])
def test_a_slow_reader_gets_all_of_a_long_answer(unbuffered: str) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen([sys.executable, "-c", PRINTS], env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        time.sleep(1)  # the pipe is full by now
        assert process.stdout.read() == b"x" * SIZE + b"\nend"
    assert process.returncode == 0


def test_a_reader_that_went_away_is_no_traceback() -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = f"{sys.executable} -m inferdock.cli.main --help | true"
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
