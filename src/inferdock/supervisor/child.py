"""One child process behind its keeper, with a log file of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from pathlib import Path

from inferdock.supervisor.engine import Launch
from inferdock.supervisor.keeper import descendants

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_PREFIX = re.compile(r"^(\(\w+[ \w=]*pid=\d+\) )*([A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[\w.]+:\d+\] )?")
"""What vLLM sets before a line: the process, then level, time and place."""
_LEFT_OVER = re.compile(r"resource_tracker: ")
"""Python's own words about a process that went away without cleaning up: never why."""
LOG_TAIL_BYTES = 64 * 1024

KNOWN_FAILURES = (
    (re.compile(r"No space left on device"), "The disk is full."),
    (re.compile(r"(CUDA )?out of memory|Cannot allocate memory|MemoryError|is less than requested memory", re.I),
     "There is not enough memory; lower engine.kv_cache_gib, model.max_model_len or engine.replicas."),
    (re.compile(r"Address already in use", re.I), "Its port was taken in the meantime."),
    (re.compile(r"Model architectures? .* (are|is) not supported", re.I), "vLLM does not support this architecture."),
    (re.compile(r"unrecognized arguments?: (.*)"), "The engine does not know an argument of engine.extra_args."),
    (re.compile(r"No module named '?vllm"), "vLLM is not installed here; run `make setup`."),
    (re.compile(r"Fatal Python error: Illegal instruction"),
     "The engine used an instruction that this processor or its kernel refuses; its log shows where."),
    (re.compile(r"Fatal Python error: "), "The engine crashed in native code; its log shows where."),
)  # fmt: skip


class Child:
    """A running child.

    Attributes:
        pid: of the keeper, which leads the child's process group.
        log: the file that gets the child's output.
    """

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self.pid = process.pid
        self.log = log

    @classmethod
    async def start(cls, launch: Launch, *, log: Path, lifeline_fd: int) -> Child:
        """Start ``launch``; its output goes to ``log``, whose predecessor is kept with the suffix ``.1``."""
        _rotate(log)
        command = [sys.executable, "-m", "inferdock.supervisor.keeper", "--lifeline-fd", str(lifeline_fd), "--"]
        with log.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *command,
                *launch.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=dict(launch.environment),
                pass_fds=[lifeline_fd],
                start_new_session=True,  # a group to kill from the first moment, and no Ctrl-C of the terminal
            )
        return cls(process, log)

    @property
    def alive(self) -> bool:
        """Whether the keeper still runs."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Wait for the end; also ends what a killed keeper may have left."""
        status = await self._process.wait()
        self._signal_group(signal.SIGKILL)
        return status

    def terminate(self) -> None:
        """Ask the child to stop (SIGTERM, passed on by the keeper)."""
        if self.alive:
            self._process.terminate()

    async def stop(self, within_s: float) -> None:
        """SIGTERM, and SIGKILL to the whole group after ``within_s`` seconds."""
        self.terminate()
        try:
            await asyncio.wait_for(self.wait(), within_s)
        except TimeoutError:
            self.kill()
            await self.wait()

    def kill(self) -> None:
        """SIGKILL to all that runs under the keeper, in whatever session, then to the keeper's group."""
        for pid in descendants(self.pid) if self.alive else ():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def why(self) -> str:
        """One sentence from the end of the log on why the child died."""
        return why_it_died(self.log)


def _rotate(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))


def why_it_died(log: Path) -> str:
    """Find the reason in the end of a log: a known failure, else the last line that looks like an error."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
            text = _ANSI.sub("", file.read().decode("utf-8", "replace"))
    except OSError:
        return "It left no log."
    for pattern, sentence in KNOWN_FAILURES:
        if pattern.search(text):
            return sentence
    lines = [_PREFIX.sub("", line).strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not _LEFT_OVER.search(line)]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b|error:", line)]
    if errors:
        # The engine's own error comes first; "see above" errors of the API server follow it.
        first = next((e for e in errors if "Engine core initialization failed" not in e), errors[-1])
        return f"{first[:300]}."
    return f"Its last words were: {lines[-1][:300]}." if lines else "It said nothing."
