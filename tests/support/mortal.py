"""Runs a command about releases whose process dies at every line of the journal: before it is written, in the middle of
it or after, each line once and once more; whoever takes over is killed at the next.

    python -m tests.support.mortal release start m@1.1.0 -f inferdock.yaml ...

Each life is a fork, killed by SIGKILL at a call to the system, so nothing of it is tidied up. What was to be written is
known by what the line says, so a line that is written again by the next life is let through. At the end a line of JSON
says how many died where, and how the last one ended.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from inferdock.cli.main import main

Key = tuple[str, ...]
WAYS = ("before", "after")
"""A line is met twice; every other time ``before`` means that half of it is there."""
TAKEN = "taken"
"""Each life begins by writing that; were it killed there, none would get any further."""


def key_of(entry: dict[str, Any]) -> Key:
    """What a line of the journal is about, whenever it was written."""
    said = (entry["what"], entry.get("trigger"), entry.get("way"), entry.get("step"), entry.get("gate"))
    return tuple(str(part) for part in said if part is not None)


class Reaper:
    """Kills this process at a line of the journal that has not been met in that way.

    Args:
        met: lines and ways that killed a process before.
        tell: told the line and the way, just before the end.
    """

    def __init__(self, met: Counter[Key], tell: Callable[[Key, str], None]) -> None:
        self._met = met
        self._tell = tell
        self._pwrite, self._link, self._fsync = os.pwrite, os.link, os.fsync
        self._marked: tuple[int, Key] | None = None

    def arm(self) -> None:
        """From now on."""
        setattr(os, "pwrite", self.pwrite)  # noqa: B010
        setattr(os, "link", self.link)  # noqa: B010
        setattr(os, "fsync", self.fsync)  # noqa: B010

    def pwrite(self, file: int, data: Any, offset: int) -> int:
        """A line is about to be added."""
        path = os.readlink(f"/proc/self/fd/{file}")
        if not path.endswith(".jsonl"):
            return self._pwrite(file, data, offset)
        key = key_of(json.loads(bytes(data))["entry"])
        if key[0] != TAKEN and self._met[key] == 0:
            half = len(self._met) % 2 * (len(data) // 2)
            self._pwrite(file, bytes(data)[:half], offset)
            self._die(key, "torn" if half else "before")
        written = self._pwrite(file, data, offset)
        if key[0] != TAKEN and self._met[key] == 1:
            self._marked = (file, key)
        return written

    def fsync(self, file: int) -> None:
        """A line counts once this is over."""
        self._fsync(file)
        if self._marked is not None and self._marked[0] == file:
            self._die(self._marked[1], "after")

    def link(self, source: Any, target: Any, **options: Any) -> None:
        """A journal begins: its first line is there with its name."""
        begins = str(target).endswith(".jsonl")
        if begins and self._met["planned",] == 0:
            self._die(("planned",), "before")
        self._link(source, target, **options)
        if begins and self._met["planned",] == 1:
            self._die(("planned",), "after")

    def _die(self, key: Key, way: str) -> None:
        self._tell(key, way)
        os.kill(os.getpid(), signal.SIGKILL)


def live(words: list[str], met: Counter[Key]) -> tuple[Key, str] | int:
    """One life: where it died, or its exit code."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.close(reading)
            Reaper(met, lambda key, way: _send(writing, key, way)).arm()
            sys.argv = ["inferdock", *words]
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, f"ended by signal {os.WTERMSIG(status)}"
        key, way = json.loads(said)
        return tuple(key), way
    return os.WEXITSTATUS(status)


def _send(pipe: int, key: Key, way: str) -> None:
    os.write(pipe, json.dumps([key, way]).encode())


def haunt(words: list[str], *, resume: list[str]) -> dict[str, Any]:
    """Live until nobody dies any more.

    Args:
        words: of the command, given again until something of it is on disk.
        resume: the command of those who take over.
    """
    met: Counter[Key] = Counter()
    ways: Counter[str] = Counter()
    died: list[list[str]] = []
    began, now = time.monotonic(), words
    while True:
        end = live(now, met)
        if isinstance(end, int):
            seconds = round(time.monotonic() - began, 1)
            return {"deaths": len(died), "ways": ways, "lines": len(met), "died": died, "exit": end, "seconds": seconds}
        key, way = end
        met[key] += 1
        ways[way] += 1
        died.append([" ".join(key), way])
        if way == "after":
            now = resume


def options_of(words: list[str]) -> list[str]:
    """What says which platform: ``-f FILE``."""
    at = words.index("-f")
    return words[at : at + 2]


if __name__ == "__main__":
    given = sys.argv[1:]
    for module in ("group", "start", "commands"):  # once, not in each life
        importlib.import_module(f"inferdock.cli.releases.{module}")
    print(json.dumps(haunt(given, resume=["release", "resume", *options_of(given)])), flush=True)
