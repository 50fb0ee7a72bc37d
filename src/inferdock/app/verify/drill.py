"""A release and its way back on a running target, under streams all the while: run once for several checks."""

from __future__ import annotations

import asyncio
import math
import random
import time
from dataclasses import dataclass
from typing import Any, Final

from inferdock.app.verify.commands import INFERDOCK, inferdock, inferdock_json, running
from inferdock.app.verify.ground import LackingError
from inferdock.app.verify.load import asking, open_session
from inferdock.app.verify.target import Target
from inferdock.bench.client import Client
from inferdock.bench.runner import Runner
from inferdock.bench.stats import summarise
from inferdock.bench.workload import parse_length, synthetic
from inferdock.domain.errors import CheckFailedError

NAME: Final = "drill"
USERS: Final = 4
TOKENS: Final = 32
BAKING_S: Final = 500.0
POLL_S: Final = 1.0
REASON: Final = "inferdock verify"
LENIENT: Final = (
    *("--gates", "health,smoke", "--weights", "0.5,1", "--hold", "5", "--hold-limit", "300", "--bake", "3600"),
    *("--max-errors", "0.3", "--ttft-p95", "0", "--tpot-p50", "0", "--min-requests", "20", "--reason", REASON),
)
"""Times are not judged here: two revisions side by side share one machine. Whether streams are lost is what counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """What a release and its way back were like.

    Attributes:
        flip_s: seconds from the decision until all traffic was back.
        command_s: that the command took, to its end.
        state: the release's, at the end.
        streams: that ran meanwhile.
        errors: of those that failed or were cut, with how often.
        short: streams that ended well but have too few tokens.
    """

    flip_s: float
    command_s: float
    state: str
    streams: int
    errors: dict[str, int]
    short: int


async def drill_of(target: Target) -> Drill:
    """The drill of this run: done at the first call.

    Raises:
        LackingError: the target is none that can be released to from here.
        CheckFailedError: the release did not get as far as its way back.
    """
    if NAME not in target.measured:
        try:
            target.measured[NAME] = await _drill(target)
        except CheckFailedError as error:
            target.measured[NAME] = error
    found = target.measured[NAME]
    if isinstance(found, CheckFailedError):  # it is not tried a second time
        raise found
    assert isinstance(found, Drill)
    return found


async def _drill(target: Target) -> Drill:
    words = _place(target)
    over = asyncio.Event()
    async with open_session(target) as http:
        client = Client(http, asking(target))
        tasks = synthetic(parse_length("16"), parse_length(str(TOKENS)), random.Random(time.time_ns()))
        runner = Runner(client, tasks, requests=None, duration_s=1e9, clock=lambda: _clock(over))
        streams = asyncio.create_task(runner.closed(USERS))
        try:
            flip_s, command_s, state = await _there_and_back(target, words)
            over.set()
            await streams
        finally:
            streams.cancel()
            await asyncio.gather(streams, return_exceptions=True)
    outcomes = runner.progress.outcomes
    short = sum(not one.error and one.output_tokens < TOKENS for one in outcomes)
    errors = summarise(outcomes).errors
    return Drill(flip_s=flip_s, command_s=command_s, state=state, streams=len(outcomes), errors=errors, short=short)


def _clock(over: asyncio.Event) -> float:
    """The time, which ends when all is over: no stream is begun any more, and those under way end."""
    return math.inf if over.is_set() else time.perf_counter()


def _place(target: Target) -> tuple[str, ...]:
    """Options of `inferdock release` that name the target."""
    if target.state is None:
        raise LackingError("Releases to what `inferdock up` runs here: leave --url out, or give its address.")
    folder = target.state.parent
    port = folder.name.removeprefix("up-")
    return ("-f", str(folder / "gateway.yaml"), "--port", port, "--state-dir", str(folder.parent))


async def _there_and_back(target: Target, place: tuple[str, ...]) -> tuple[float, float, str]:
    """Release the candidate until it bakes, and go back; (seconds of the flip, of the command, state)."""
    start = (*INFERDOCK, "release", "start", str(target.candidate), *place, *LENIENT)
    before = await _status(place)
    async with running(*start) as process:
        try:
            async with asyncio.timeout(BAKING_S):
                await _until_baking(place, process, before.get("id"))
            began = time.monotonic()
            back = await inferdock("release", "rollback", *place, "--reason", REASON)
            took = time.monotonic() - began
            if back.code != 0:
                raise CheckFailedError(f"`inferdock release rollback` ended with {back.code}: {back.said}")
        except BaseException as error:  # whatever came between: the target is put back
            await inferdock("release", "abort", *place, "--reason", REASON)
            if isinstance(error, TimeoutError):
                raise CheckFailedError(f"The release did not get to its bake within {BAKING_S:g} s.") from error
            raise
        await process.wait()
    after = await _status(place)
    return float(after["flip_seconds"] or math.inf), took, str(after["state"])


async def _until_baking(place: tuple[str, ...], process: asyncio.subprocess.Process, before: str | None) -> None:
    """Wait until a release that is not the one before bakes.

    Raises:
        CheckFailedError: the command ended before.
    """
    while (now := await _status(place)).get("state") != "baking" or now.get("id") == before:
        if process.returncode is not None:
            raise CheckFailedError(_why(now, process.returncode))
        await asyncio.sleep(POLL_S)


async def _status(place: tuple[str, ...]) -> dict[str, Any]:
    """The newest release; empty where there is none."""
    try:
        found: dict[str, Any] | None = await inferdock_json("release", "status", *place)
    except RuntimeError:
        return {}
    return found or {}


def _why(now: dict[str, Any], code: int) -> str:
    reasons = [one["reason"] for one in now.get("verdicts", ()) if one["verdict"] != "pass"]
    return f"`inferdock release start` ended with {code}: {now.get('outcome') or ''} {' '.join(reasons)}".strip()
