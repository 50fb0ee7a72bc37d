"""What is asked, and when: traces from a file, generated days, bursts and ramps, and users who wait for their answers.

Open traffic is a stream of requests in order of time. A closed loop is a number of users over time, each of whom asks
again some while after the last answer; so its requests depend on how fast the answers come.
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from inferdock.domain.errors import ConfigError

MAX_TOKENS = 10_000_000
DAY_S = 86_400.0


class Asked(NamedTuple):
    """One request: seconds from the start, tokens of the prompt, tokens of the answer."""

    at: float
    prompt: int
    output: int


Rate = Callable[[float], float]
"""Requests per second at a time."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Log-normal lengths in tokens, as prompts and answers of chats are; a spread of 0 makes all alike."""

    prompt: int = 200
    output: int = 150
    spread: float = 0.6

    def draw(self, at: float, rng: random.Random) -> Asked:
        """A request at a time."""
        return Asked(at, self._one(self.prompt, rng), self._one(self.output, rng))

    def _one(self, median: int, rng: random.Random) -> int:
        return max(1, round(median * math.exp(self.spread * rng.gauss(0, 1)))) if self.spread else max(1, median)


def poisson(rate: Rate, peak: float, duration_s: float, lengths: Lengths, rng: random.Random) -> Iterator[Asked]:
    """A Poisson process whose rate changes with time, by thinning (Lewis and Shedler 1979).

    Args:
        rate: never above ``peak``.
        peak: requests per second.
        duration_s: seconds.
        lengths: of prompts and answers.
        rng: chance.
    """
    at = 0.0
    while peak > 0 and (at := at + rng.expovariate(peak)) < duration_s:
        if rng.random() * peak < rate(at):
            yield lengths.draw(at, rng)


def diurnal(peak: float, trough: float, period_s: float = DAY_S) -> Rate:
    """A day: least at its beginning and end, most in the middle."""
    return lambda at: trough + (peak - trough) * (1 - math.cos(2 * math.pi * at / period_s)) / 2


def burst(base: float, peak: float, begin_s: float, length_s: float) -> Rate:
    """A base with a burst in it."""
    return lambda at: peak if begin_s <= at < begin_s + length_s else base


def ramp(base: float, peak: float, begin_s: float, end_s: float) -> Rate:
    """From a base to a peak in a straight line, and on at the peak."""
    span = max(end_s - begin_s, 1e-9)
    return lambda at: base + (peak - base) * min(max((at - begin_s) / span, 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class Users:
    """A closed loop.

    Attributes:
        counts: (seconds, users from then on until the next), in order of time; between two marked ``ramped``
            a straight line.
        think_s: from an answer to the next question, uniform between the two.
        lengths: of prompts and answers.
        ramped: the number changes in straight lines.
    """

    counts: tuple[tuple[float, int], ...]
    think_s: tuple[float, float] = (0.1, 0.5)
    lengths: Lengths = Lengths()
    ramped: bool = True

    def at(self, seconds: float) -> int:
        """Users at a time."""
        before = (0.0, 0)
        for mark in self.counts:
            if mark[0] > seconds:
                if not self.ramped or mark[0] == before[0]:
                    return before[1]
                share = (seconds - before[0]) / (mark[0] - before[0])
                return round(before[1] + (mark[1] - before[1]) * share)
            before = mark
        return before[1]


def plan_users(lengths: Lengths, settle_s: float = 300.0) -> Users:
    """Step 2.4 of the plan: to 50 users within five minutes, some while there, down to 5, and the cooldown."""
    down = 300.0 + settle_s
    return Users(((0.0, 1), (300.0, 50), (down, 50), (down, 5), (down + 900.0, 5)), lengths=lengths)


def read_trace(lines: Iterable[str], name: str) -> Iterator[Asked]:
    """A trace: CSV with the columns ``seconds``, ``prompt_tokens`` and ``output_tokens``, in order of time.

    Times count from the first one. Further columns are left alone.

    Raises:
        ConfigError: it is none; the message names the line.
    """
    reader = csv.DictReader(lines)
    wanted = ("seconds", "prompt_tokens", "output_tokens")
    try:
        missing = [column for column in wanted if column not in (reader.fieldnames or ())]
        if missing:
            raise ConfigError(
                f"{name} has no column `{missing[0]}`.", cure=f"Its first line names: {', '.join(wanted)}."
            )
        start, last = None, 0.0
        for row in reader:
            asked = _row(row, wanted, name, reader.line_num)
            start = asked.at if start is None else start
            if asked.at - start < last:
                raise ConfigError(f"{name}, line {reader.line_num}: earlier than the line before.", cure="Sort it.")
            last = asked.at - start
            yield asked._replace(at=last)
    except (csv.Error, UnicodeDecodeError) as exc:
        raise ConfigError(f"{name} is no CSV file: {exc}.") from exc


def _row(row: dict[str, str | None], wanted: tuple[str, ...], name: str, number: int) -> Asked:
    try:
        at, prompt, output = (float(row[column] or "") for column in wanted)
    except (ValueError, TypeError) as exc:
        raise ConfigError(f"{name}, line {number}: three numbers are wanted.") from exc
    if not math.isfinite(at) or not 0 <= prompt <= MAX_TOKENS or not 1 <= output <= MAX_TOKENS:
        raise ConfigError(f"{name}, line {number}: not a time with 0-{MAX_TOKENS} and 1-{MAX_TOKENS} tokens.")
    return Asked(at, round(prompt), round(output))
