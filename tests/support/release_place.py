"""A registry with versions of a model, a platform that serves the first, and commands given to both."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inferdock.release.progress import fold
from inferdock.release.records.file_journal import FileJournals
from tests.support.platform import Platform


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended.

    Attributes:
        code: its exit code.
        out, err: what it wrote.
    """

    code: int
    out: str
    err: str


class Place:
    """One folder with everything in it.

    Args:
        folder: empty.
        versions: version to model folder; the first is champion and serves.
        settings: for the configuration file.
        arguments: further flags of ``inferdock up``.
    """

    def __init__(
        self, folder: Path, versions: Mapping[str, Path], settings: Mapping[str, Any], *arguments: str
    ) -> None:
        self.folder = folder
        self.config = folder / "inferdock.yaml"
        registry = {"url": str(folder / "registry"), "cache_dir": str(folder / "cache")}
        self.config.write_text(json.dumps({"registry": registry, "state_dir": str(folder / "up"), **settings}))
        self._versions, self._arguments = versions, arguments
        self._started: list[Process] = []
        self.platform: Platform | None = None

    async def open(self, *, within_s: float) -> None:
        """Push the versions and start the platform."""
        for number, (version, model) in enumerate(self._versions.items()):
            alias = ("--alias", "champion") if number == 0 else ()
            await self.must("model", "push", str(model), "--name", "m", "--version", version, *alias)
        flags = ("-f", str(self.config), "--model", "m@champion", *self._arguments)
        self.platform = Platform(self.folder / "up", *flags)
        await asyncio.to_thread(self.platform.wait_until_ready, 1, within_s)

    async def close(self) -> None:
        """End all that runs."""
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if self.platform is not None:
            with contextlib.suppress(Exception):
                await asyncio.to_thread(self.platform.stop)
            self.platform.kill()

    @property
    def state(self) -> dict[str, Any]:
        """Of the platform."""
        assert self.platform is not None
        return self.platform.state

    async def begin(self, *words: str, module: str = "inferdock.cli.main") -> Process:
        """Start a command; in a group of its own, so that all of it can be killed."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("INFERDOCK_")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *words, "-f", str(self.config)),
            stdout=PIPE,
            stderr=PIPE,
            env=environment,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    async def run(self, *words: str, module: str = "inferdock.cli.main", within_s: float = 200) -> Said:
        """Run a command to its end."""
        return await self.end(await self.begin(*words, module=module), within_s)

    async def end(self, process: Process, within_s: float = 200) -> Said:
        """Wait for a command."""
        async with asyncio.timeout(within_s):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Said(process.returncode, out.decode(), err.decode())

    async def must(self, *words: str) -> str:
        """Run a command that must succeed; what it wrote."""
        said = await self.run(*words)
        assert said.code == 0, said.err
        return said.out

    async def kill(self, process: Process) -> None:
        """SIGKILL, and wait."""
        os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()

    async def haunt(self, *words: str) -> dict[str, Any]:
        """Run a command about releases whose process dies at every line of the journal; see ``mortal``."""
        said = await self.run(*words, module="tests.support.mortal", within_s=300)
        assert said.code == 0, said.err
        found: dict[str, Any] = json.loads(said.out.splitlines()[-1])
        return found | {"err": said.err}

    async def status(self) -> dict[str, Any]:
        """Of the release that is under way, or was the last; empty before the first."""
        found: dict[str, Any] | None = json.loads(await self.must("release", "status", "-o", "json"))
        return found or {}

    async def until(self, state: str, within_s: float = 120) -> None:
        """Wait until the release is in a state."""
        async with asyncio.timeout(within_s):
            while self._state() != state:
                await asyncio.sleep(0.2)

    def _state(self) -> str:
        """Of the newest release, from its journal: a command each time would be a load of its own."""
        journals = FileJournals(self.folder / "up" / "releases" / "m")
        newest = max((path.stem for path in journals.folder.glob("*.jsonl")), default=None)
        return "" if newest is None else str(fold(journals.look(newest)).state)

    async def champion(self) -> str:
        """Version that the registry calls so."""
        return (await self.must("model", "alias", "m", "champion")).strip()

    def family(self) -> list[tuple[str, str, int]]:
        """Every replica of the platform: its revision, its process, its restarts."""
        return [(row["revision"], row["name"], row["pid"]) for row in self.state["replicas"]]
