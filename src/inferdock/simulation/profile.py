"""How fast one replica is: the table that `inferdock bench` measures, and what follows from it.

A decoding engine runs all its sequences in steps; each gets one token per step, and a step takes longer the more there
are. So a request's speed depends on how many run beside it, and on nothing else of them. Prompts are read in the same
steps; here they count as work in proportion to their length (processor sharing, see Kleinrock, *Queueing Systems* II,
chapter 4).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from inferdock.domain.errors import ConfigError

Positive = Annotated[float, Meta(gt=0)]
MAX_PROFILE_BYTES = 1024 * 1024


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds that one token takes (TPOT) while so many sequences run."""

    running: Annotated[int, Meta(ge=1, le=100_000)]
    seconds: Positive


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One replica of one model on one machine.

    Attributes:
        steps: measured, by number of running sequences; between them a straight line, beyond them the last slope.
        prefill_s_per_token: seconds for each token of a prompt on an idle replica.
        overhead_s: seconds before the first token that no length explains.
        max_num_seqs: sequences that run at once; more wait.
        kv_cache_tokens: tokens that fit into the KV cache.
        startup_s: from the wish for a replica until it takes requests.
        source: where the figures come from, in a sentence.
    """

    steps: Annotated[tuple[Step, ...], Meta(min_length=1, max_length=1000)]
    prefill_s_per_token: Annotated[float, Meta(ge=0)] = 0.0
    overhead_s: Annotated[float, Meta(ge=0)] = 0.0
    max_num_seqs: Annotated[int, Meta(ge=1, le=100_000)] = 256
    kv_cache_tokens: Annotated[int, Meta(ge=16)] = 1_000_000
    startup_s: Annotated[float, Meta(ge=0)] = 60.0
    source: Annotated[str, Meta(max_length=1000)] = ""

    def __post_init__(self) -> None:
        """Refuse tables that no engine could show."""
        running = [step.running for step in self.steps]
        if running != sorted(set(running)):
            raise ValueError("steps must be in order of `running`, each number once")
        figures = [step.seconds for step in self.steps] + [self.prefill_s_per_token, self.overhead_s, self.startup_s]
        if not all(map(isfinite, figures)):
            raise ValueError("figures must be finite")

    def step_s(self, running: int) -> float:
        """Seconds per token while ``running`` sequences run."""
        table = self.steps
        place = bisect_left([step.running for step in table], running)
        if (place < len(table) and table[place].running == running) or place == 0:
            return table[place].seconds
        if place == len(table):
            if len(table) == 1:
                return table[0].seconds
            place -= 1
        low, high = table[place - 1], table[place]
        slope = (high.seconds - low.seconds) / (high.running - low.running)
        return max(low.seconds + slope * (running - low.running), low.seconds / 2)

    def table(self) -> list[float]:
        """Tokens per second and sequence, by the number that run; index 0 is that of one."""
        seconds = [self.step_s(running) for running in range(1, self.max_num_seqs + 1)]
        return [1 / seconds[0], *(1 / second for second in seconds)]

    def prompt_work(self) -> float:
        """Work of one prompt token in output tokens."""
        return self.prefill_s_per_token / self.step_s(1)


def read_profile(data: bytes, name: str) -> Profile:
    """A profile from JSON.

    Args:
        data: the file.
        name: of the file, for messages.

    Raises:
        ConfigError: it is none.
    """
    try:
        if len(data) > MAX_PROFILE_BYTES:
            raise ValueError(f"it has {len(data)} bytes")
        return msgspec.json.decode(data, type=Profile)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise ConfigError(
            f"{name} is no profile of a replica: {str(exc)[:300]}.", cure="`inferdock bench --sweep` writes one."
        ) from exc


def load_profile(path: Path) -> Profile:
    """A profile from a file.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PROFILE_BYTES + 1)
    except OSError as exc:
        raise ConfigError(f"Cannot read {path}: {exc.strerror}.", cure="`inferdock bench --sweep` writes one.") from exc
    return read_profile(data, str(path))


def fitted(measured: Sequence[tuple[int, float]]) -> tuple[Step, ...]:
    """Steps from measurements that may be noisy: the same concurrency averaged, never faster with more sequences.

    Pool-adjacent-violators (Ayer et al. 1955): the non-decreasing table with the least squared error.

    Args:
        measured: (sequences running, seconds per token).
    """
    by_running: dict[int, list[float]] = {}
    for running, seconds in measured:
        by_running.setdefault(max(1, running), []).append(seconds)
    pools: list[tuple[float, int, list[int]]] = []  # sum of seconds, samples, whose
    for running in sorted(by_running):
        values = by_running[running]
        pools.append((sum(values), len(values), [running]))
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            total, count, whose = pools.pop()
            pools[-1] = (pools[-1][0] + total, pools[-1][1] + count, pools[-1][2] + whose)
    return tuple(Step(one, total / count) for total, count, whose in pools for one in whose)
