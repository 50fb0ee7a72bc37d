"""Commands of the console's buttons: ``inferdock release pause`` and so on, each as a process of its own.

So a command does here exactly what it does in a terminal, with the same checks, lease and journal, and a release that
goes wrong cannot take the supervisor with it. A process that works on a release ends with the platform; the journal
says where it was, and ``inferdock release resume`` goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from inferdock.domain.errors import RequestError
from inferdock.supervisor.engine import child_environment

KEPT: Final = 10
MOST_AT_ONCE: Final = 4
END_S: Final = 10.0
MOST_OUTPUT: Final = 64 * 1024
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Action(StrEnum):
    """What a button asks for."""

    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ABORT = "abort"
    ROLLBACK = "rollback"


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``POST /console/api/release``.

    Attributes:
        confirmed: the word that the person confirmed, the same as the action.
        release: id of the release that the page showed, None where it showed none.
        over: whether the page showed it as ended.
    """

    action: Action
    confirmed: Action
    release: str | None
    over: bool
    reason: Annotated[str, msgspec.Meta(max_length=300)] = ""


_DECODE: Final = msgspec.json.Decoder(Wanted).decode


def read(body: bytes) -> Wanted:
    """What the page asks for.

    Raises:
        RequestError: 400, it is not understood or not confirmed.
    """
    try:
        wanted = _DECODE(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise RequestError(400, f"The body is no command: {exc}.", code="bad_request") from exc
    if wanted.confirmed is not wanted.action:
        raise RequestError(400, "The command was not confirmed.", code="not_confirmed")
    return wanted


def still_meant(wanted: Wanted, shown: Mapping[str, Any] | None) -> None:
    """What was confirmed was about one release as it stood: after its end, a rollback would undo something else.

    Args:
        wanted: the command.
        shown: the release that the page shows now, as ``records.current`` writes it.

    Raises:
        RequestError: 409, it is another one by now, or it has ended.
    """
    now = shown["id"] if shown is not None else None
    if now != wanted.release:
        there = f"release {now} is shown by now" if now is not None else "no release is shown any more"
    elif shown is not None and shown["over"] is not wanted.over:
        there = f"the release has meanwhile become {shown['state']}"
    else:
        return
    raise RequestError(409, f"Nothing was done, since {there}. Look again, and decide anew.", code="not_that_release")


@dataclass(slots=True)
class Command:
    """One that was given.

    Attributes:
        began: seconds since 1970.
        code: exit status, None while it runs.
        said: the last lines of what it said.
    """

    action: Action
    reason: str
    began: float
    code: int | None = None
    said: str = ""

    def row(self) -> dict[str, Any]:
        """For the page."""
        return {
            "action": str(self.action),
            "reason": self.reason,
            "began": self.began,
            "code": self.code,
            "said": self.said,
        }


@dataclass(slots=True)
class Commands:
    """Runs them and remembers the last ones.

    Args:
        platform: flags that say which platform and configuration is meant.
        environment: of the platform.
        folder: where they run.
    """

    platform: list[str]
    environment: Mapping[str, str]
    folder: Path
    past: list[Command] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def begin(self, wanted: Wanted, key: str) -> Command:
        """Begin what the page asks for; it goes on by itself.

        Args:
            wanted: the command.
            key: public id of the key that asked, "" without keys.

        Raises:
            RequestError: 409, too many are at work.
        """
        if len(self._tasks) >= MOST_AT_ONCE:
            raise RequestError(409, "Other commands are still at work.", code="busy")
        who = f"console, key {key}" if key else "console"
        reason = " ".join("".join(c for c in wanted.reason if c.isprintable()).split())
        command = Command(wanted.action, f"{reason} ({who})" if reason else f"({who})", time.time())
        self.past = [*self.past, command][-KEPT:]
        task = asyncio.create_task(self._run(command))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return command

    async def close(self) -> None:
        """End those that are at work, and wait for them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, command: Command) -> None:
        words = ["release", str(command.action), *self.platform, f"--reason={command.reason}"]
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "inferdock.cli.main",
                *words,
                cwd=self.folder,
                env=child_environment(self.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as exc:
            command.code, command.said = 5, f"It cannot be started: {exc.strerror or exc}."
            return
        try:
            await self._listen(process, command)
        finally:
            await _end(process)
        command.code = process.returncode

    async def _listen(self, process: asyncio.subprocess.Process, command: Command) -> None:
        assert process.stderr is not None
        text = b""
        while piece := await process.stderr.read(4096):
            text = (text + piece)[-MOST_OUTPUT:]
            lines = _COLOURS.sub("", text.decode("utf-8", "replace")).strip().splitlines()
            command.said = "\n".join(lines[-8:])
        await process.wait()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Nothing remains."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), END_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
