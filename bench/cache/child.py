"""A measured process on one core, which answers requests in JSON, one a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
ROOT = Path(__file__).parents[2]


class Child:
    """The process; all its threads run on that core from the start.

    Args:
        command: what it is.
        core: where it runs.
        environment: besides this process's own.
    """

    def __init__(self, command: Sequence[str], core: int, environment: Mapping[str, str] | None = None) -> None:
        free = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})  # the child has it from its first thread on
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                env={**os.environ, **ONE_THREAD, **(environment or {})},
            )
        finally:
            os.sched_setaffinity(0, free)

    def ask(self, what: str, **fields: Any) -> dict[str, Any]:
        """Its answer to one request; ends the program if it has died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": what, **fields}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            sys.exit(f"error: {self._process.args!r} ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
