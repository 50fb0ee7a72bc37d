"""Faults that a simulated replica can be told to have.

A fault is written ``kind[:value][@n][xCOUNT][%PERCENT]``: ``value`` where the kind takes one, ``@n`` from the n-th
generation request on (1 is the next), ``xCOUNT`` for so many requests (default: all), ``%PERCENT`` of the requests by
chance. Examples: ``die:20`` (kill the process after 20 tokens of an answer), ``status:503@3x2``, ``slow:10%5``,
``hang``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from inferdock.domain.errors import ConfigError

KINDS: dict[str, str] = {
    "refuse": "reset the connection without an answer",
    "hang": "never answer; with a value: fall silent after so many tokens",
    "die": "kill the process with SIGKILL after so many tokens (default 1)",
    "cut": "close the connection in the middle of a chunk after so many tokens (default 1)",
    "slow": "multiply all times by the value (default 10)",
    "status": "answer with this HTTP status (default 500)",
    "badchunk": "send invalid chunk framing after so many tokens (default 1)",
    "garbage": "answer with bytes that are not HTTP",
    "badjson": "send an event that is not JSON after so many tokens (default 1)",
    "unhealthy": "/health answers 503",
    "noload": "fail to start",
}
MIDWAY = frozenset({"die", "hang", "cut", "badchunk", "badjson"})
"""Kinds whose value is the number of tokens after which they come."""
STATES = frozenset({"unhealthy", "noload"})
"""Kinds that meet no request."""
_DEFAULTS = {"die": 1.0, "cut": 1.0, "slow": 10.0, "status": 500.0, "badchunk": 1.0, "badjson": 1.0}
_SPELLING = re.compile(r"([a-z]+)(?::(\d+(?:\.\d+)?))?(?:@(\d+))?(?:x(\d+))?(?:%(\d+(?:\.\d+)?))?")
FORM = "kind[:value][@n][xCOUNT][%PERCENT]"


@dataclass(slots=True)
class Fault:
    """One fault that is armed.

    Attributes:
        kind: key of ``KINDS``.
        value: its number, None where it has none.
        skip: generation requests that still pass unharmed.
        left: requests that it still harms; None for all.
        chance: probability that it harms a request that it may harm, above 0 up to 1.
    """

    kind: str
    value: float | None
    skip: int
    left: int | None
    chance: float = 1.0


def parse_fault(text: str) -> Fault:
    """Read a fault.

    Raises:
        ConfigError: unknown kind or spelling; the cure lists the kinds.
    """
    found = _SPELLING.fullmatch(text)
    if found is None or found.group(1) not in KINDS:
        raise ConfigError(f"`{text}` is not a fault.", cure=f"Write {FORM}; kinds are {', '.join(KINDS)}.")
    kind, value, first, count, percent = found.groups()
    fault = Fault(
        kind=kind,
        value=float(value) if value is not None else _DEFAULTS.get(kind),
        skip=max(0, int(first or 1) - 1),
        left=int(count) if count is not None else None,
        chance=float(percent) / 100 if percent is not None else 1.0,
    )
    _check(fault, text)
    return fault


def _check(fault: Fault, text: str) -> None:
    value = fault.value
    if fault.left == 0:
        raise ConfigError(f"`{text}` harms no request.", cure="Write x1 or more, or leave the count out.")
    if not 0 < fault.chance <= 1:
        raise ConfigError(f"`{text}` has an impossible chance.", cure="Write a percentage above 0 up to 100.")
    if value is None:
        return
    if fault.kind in ("refuse", "garbage", *STATES):
        raise ConfigError(f"`{text}` has a value, but `{fault.kind}` takes none.", cure=f"Write {fault.kind}.")
    if fault.kind == "status" and not (value.is_integer() and 400 <= value <= 599):
        raise ConfigError(f"`{text}` is not an error status.", cure="Write status:N with N from 400 to 599.")
    if fault.kind in MIDWAY and not (value.is_integer() and value >= 1):
        raise ConfigError(f"`{text}` has no number of tokens.", cure=f"Write {fault.kind}:N with N of 1 or more.")
    if fault.kind == "slow" and value == 0:
        raise ConfigError(f"`{text}` takes no time at all.", cure="Write slow:N with N above 0.")


class Faults:
    """The faults of one replica; ``chance`` gives numbers from 0 up to 1."""

    def __init__(self, faults: list[Fault], chance: Callable[[], float] = random.random) -> None:
        self.armed = faults
        self._chance = chance

    def unhealthy(self) -> bool:
        """Whether ``/health`` must answer 503."""
        return any(fault.kind == "unhealthy" for fault in self.armed)

    def fails_to_load(self) -> bool:
        """Whether the replica must not come up."""
        return any(fault.kind == "noload" for fault in self.armed)

    def next_request(self) -> Fault | None:
        """The fault that the next generation request meets, if any; counts it. The first that applies wins."""
        hit: Fault | None = None
        for fault in list(self.armed):
            if fault.kind in STATES:
                continue
            if fault.skip:
                fault.skip -= 1
            elif hit is None and (fault.chance >= 1 or self._chance() < fault.chance):
                hit = Fault(fault.kind, fault.value, 0, None)
                self._use(fault)
        return hit

    def _use(self, fault: Fault) -> None:
        if fault.left is not None:
            fault.left -= 1
            if fault.left == 0:
                self.armed.remove(fault)
