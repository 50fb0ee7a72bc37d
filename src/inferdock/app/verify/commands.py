"""Programs that checks start: `inferdock` itself as a user types it, and tools that may be on this machine. One runs to
its end, or beside a check."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from inferdock.app.verify.ground import LackingError

INFERDOCK: Final = (sys.executable, "-m", "inferdock.cli.main")
MOST_SAID: Final = 300
END_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a program ended: its exit code, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def good(self) -> bool:
        """Whether it ended well."""
        return self.code == 0

    @property
    def text(self) -> str:
        """All that it wrote."""
        return self.out + self.err

    @property
    def last(self) -> str:
        """The last line that it wrote."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return lines[-1] if lines else f"It ended with {self.code} and said nothing."

    @property
    def said(self) -> str:
        """The end of what it had to say, on one line."""
        return " ".join((self.err.strip() or self.out.strip()).split())[-MOST_SAID:]


async def run(*command: str | Path, folder: Path | None = None, environment: Mapping[str, str] | None = None) -> Ran:
    """Run a program to its end; when the caller is cancelled it is killed with all that it started.

    Args:
        environment: variables besides ours.
    """
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return Ran(code=process.returncode or 0, out=out.decode("utf-8", "replace"), err=err.decode("utf-8", "replace"))


@contextlib.asynccontextmanager
async def running(*words: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that runs beside the block, and is gone after it."""
    nowhere = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *map(str, words), stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True
    )
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), END_S)


async def inferdock(*words: str | Path, environment: Mapping[str, str] | None = None) -> Ran:
    """Run one of our commands in a process of its own."""
    return await run(*INFERDOCK, *words, environment=environment)


async def inferdock_json(*words: str | Path) -> Any:
    """What one of our commands prints with `-o json`.

    Raises:
        RuntimeError: it did not end well.
    """
    done = await inferdock(*words, "-o", "json")
    if done.code != 0:
        raise RuntimeError(f"`inferdock {' '.join(map(str, words))}` ended with {done.code}: {done.said}")
    return json.loads(done.out)


def find(name: str) -> str | None:
    """Path of a tool on this machine; None: it is not there."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def program(name: str, cure: str) -> str:
    """Path of a tool on this machine.

    Raises:
        LackingError: it is not there.
    """
    found = find(name)
    if found is None:
        raise LackingError(f"Needs the program {name}: {cure}")
    return found
