"""Streams at a steady rate while releases go on, and what the platform says about itself meanwhile.

A stream is held against the weights that were in force while it was sent: what the platform said before and after.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

from inferdock.release.drivers.local import control_session

SETTLED_S = 1.0
"""After new weights were first seen: the platform says them while it tells the gateway."""
DOUBT = 1e-4
"""Probability that chance alone takes a share out of its bounds."""


@dataclass(slots=True)
class Stream:
    """One request.

    Attributes:
        sent, headed, ended: seconds of the monotonic clock; when it was sent, answered, over.
        revision: that answered.
        came_to: ``right``, or what was wrong.
    """

    sent: float
    headed: float = math.inf
    ended: float = math.inf
    revision: str = ""
    came_to: str = "not over"


UNTIMED = ("--max-errors", "0.3", "--ttft-p95", "0", "--tpot-p50", "0", "--min-requests", "20", "--hold-limit", "300")
"""Of two engines on two processors nothing is asked but that requests succeed."""


def asked(content: str, tokens: int) -> dict[str, Any]:
    """A streamed chat request whose answer has exactly so many tokens."""
    return {
        "model": "m",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def whole(text: str, tokens: int) -> tuple[list[dict[str, Any]], str]:
    """The events of a stream, and what is wrong with it: no end mark, an error event, other tokens than asked for."""
    events = [event for event in text.split("\n\n") if event and not event.startswith(":")]
    if not events or events[-1] != "data: [DONE]":
        return [], f"no end mark: {text[-200:]!r}"
    said = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    if errors := [event["error"] for event in said if "error" in event]:
        return said, f"error event: {errors[0]}"
    usage = next((event["usage"] for event in reversed(said) if event.get("usage")), None)
    return said, "" if usage is not None and usage["completion_tokens"] == tokens else f"usage {usage}"


class Streams:
    """Sends streams at a rate, whatever becomes of those before, until :meth:`end`.

    Args:
        url: of the gateway.
        rate: streams a second.
        body: of a number's request.
        judge: says what came of a number's stream: its revision and all of its text.
    """

    def __init__(
        self,
        url: str,
        *,
        rate: float,
        body: Callable[[int], dict[str, Any]],
        judge: Callable[[int, str, str], str],
    ) -> None:
        self._url, self._rate, self._body, self._judge = url, rate, body, judge
        self._over = asyncio.Event()
        self.all: list[Stream] = []

    async def __aenter__(self) -> Streams:
        timeout = aiohttp.ClientTimeout(total=120)
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)
        self._sending = asyncio.create_task(self._send())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.end()
        finally:
            await self._http.close()

    async def reach(self, count: int) -> None:
        """Wait until so many were sent."""
        while len(self.all) < count and not self._sending.done():
            await asyncio.sleep(0.1)

    async def end(self) -> None:
        """Send no more, and wait for those that are open."""
        self._over.set()
        await self._sending

    @property
    def faults(self) -> list[str]:
        """All that went wrong."""
        return [f"{number}: {one.came_to}" for number, one in enumerate(self.all) if one.came_to != "right"]

    @property
    def rate(self) -> float:
        """Streams a second as they were really sent."""
        return (len(self.all) - 1) / (self.all[-1].sent - self.all[0].sent)

    async def _send(self) -> None:
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                wait = began + number / self._rate - time.monotonic()
                await asyncio.sleep(max(0.0, wait))
                if self._over.is_set():
                    return
                self.all.append(Stream(time.monotonic()))
                group.create_task(self._one(number))

    async def _one(self, number: int) -> None:
        stream = self.all[number]
        try:
            async with self._http.post(self._url, json=self._body(number)) as response:
                stream.headed = time.monotonic()
                stream.revision = response.headers.get("x-inferdock-revision", "")
                text = (await response.read()).decode("utf-8", "replace")
            good = response.status == 200
            stream.came_to = (
                self._judge(number, stream.revision, text) if good else f"status {response.status}: {text[:300]}"
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, LookupError) as exc:
            stream.came_to = repr(exc)
        stream.ended = time.monotonic()


@dataclass(frozen=True, slots=True)
class Look:
    """What the platform said.

    Attributes:
        asked, told: seconds of the monotonic clock around it.
        shares: of each revision, adding up to 1.
        ready: replicas of each revision.
    """

    asked: float
    told: float
    shares: Mapping[str, float]
    ready: Mapping[str, int]

    @property
    def serves(self) -> bool:
        """Whether a revision with traffic has a replica that is ready."""
        return any(share > 0 and self.ready.get(revision, 0) > 0 for revision, share in self.shares.items())


@dataclass(slots=True)
class Phase:
    """Weights that did not change for a while.

    Attributes:
        shares: they.
        begins, ends: seconds of the monotonic clock between which they were surely in force.
        counts: streams of each revision that were sent and answered between.
    """

    shares: Mapping[str, float]
    begins: float
    ends: float
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def streams(self) -> int:
        """All that were counted."""
        return sum(self.counts.values())

    def strays(self) -> list[str]:
        """Counts that chance does not explain."""
        found = []
        for revision in self.shares.keys() | self.counts.keys():
            share, count = self.shares.get(revision, 0.0), self.counts.get(revision, 0)
            low, high = bounds(self.streams, share)
            if not low <= count <= high:
                found.append(f"{revision} had {count} of {self.streams} at a share of {share:.2f}: not {low} to {high}")
        return found

    def __str__(self) -> str:
        spelt = ", ".join(
            f"{revision[:5]} {self.counts.get(revision, 0)} of {self.streams} at {share:.0%}"
            for revision, share in sorted(self.shares.items())
        )
        return f"{self.ends - self.begins:5.1f} s: {spelt}"


def bounds(trials: int, share: float) -> tuple[int, int]:
    """Between which numbers a binomial count lies but for the probability ``DOUBT``."""
    if share <= 0 or share >= 1:
        return (trials, trials) if share >= 1 else (0, 0)
    logs = (
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(share)
        + (trials - k) * math.log1p(-share)
        for k in range(trials + 1)
    )
    below = list(itertools.accumulate(math.exp(one) for one in logs))
    low = next(k for k, sum_ in enumerate(below) if sum_ > DOUBT / 2)
    return low, next(k for k, sum_ in enumerate(below) if sum_ >= 1 - DOUBT / 2 or k == trials)


class Watcher:
    """Asks a platform what it is doing, ten times a second.

    Attributes:
        looks: all it said.
        silent: times when it did not answer, and how.
    """

    def __init__(self, control: Path) -> None:
        self._control = control
        self.looks: list[Look] = []
        self.silent: list[str] = []

    async def __aenter__(self) -> Watcher:
        self._http = control_session(self._control)
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        await self._http.close()

    async def until(self, wanted: Callable[[Look], bool], within_s: float = 120.0) -> None:
        """Wait until the platform is as wanted."""
        async with asyncio.timeout(within_s):
            while not self.looks or not wanted(self.looks[-1]):
                await asyncio.sleep(0.05)

    async def _watch(self) -> None:
        while True:
            asked = time.monotonic()
            try:
                async with self._http.get("http://up/revisions") as response:
                    self.looks.append(_look(asked, await response.json()))
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
                self.silent.append(f"{asked:.1f}: {exc!r}")
            await asyncio.sleep(0.1)

    def phases(self, streams: list[Stream]) -> list[Phase]:
        """Times of equal weights, with the streams that fall into them wholly."""
        found = []
        for _, group in itertools.groupby(self.looks, key=lambda look: _worth(look.shares)):
            looks = list(group)
            found.append(Phase(looks[0].shares, looks[0].told + SETTLED_S, looks[-1].asked))
        for phase in found:
            for stream in streams:
                if phase.begins <= stream.sent and stream.headed <= phase.ends:
                    phase.counts[stream.revision] = phase.counts.get(stream.revision, 0) + 1
        return [phase for phase in found if phase.counts]


def _look(asked: float, answer: dict[str, Any]) -> Look:
    weights = answer["weights"]
    total = sum(weights.values())
    shares = {revision: weight / total for revision, weight in weights.items()}
    ready = {row["revision"]: row["ready"] for row in answer["revisions"]}
    return Look(asked, time.monotonic(), shares, ready)


def _worth(shares: Mapping[str, float]) -> dict[str, float]:
    return {revision: round(share, 6) for revision, share in shares.items() if share > 0}


def quantiles(values: list[float], *shares: float) -> Iterator[float]:
    """Values at these shares of all, in order of size."""
    ordered = sorted(values)
    return (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in shares)
