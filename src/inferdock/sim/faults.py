"""Faults that a simulated replica can be told to have.

A fault is written ``kind[:value][@n][xCOUNT]``: ``value`` where the kind takes one, ``@n`` from the n-th generation
request on (1 is the next), ``xCOUNT`` for so many requests (default: all). Examples: ``die:20`` (kill the process
after 20 tokens of a stream), ``status:503@3x2``, ``slow:10``, ``hang``.
"""

from __future__ import annotations

import re
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
}
MIDWAY = frozenset({"die", "hang", "cut", "badchunk", "badjson"})
"""Kinds whose value is the number of tokens after which they come."""
_DEFAULTS = {"die": 1.0, "cut": 1.0, "slow": 10.0, "status": 500.0, "badchunk": 1.0, "badjson": 1.0}
_SPELLING = re.compile(r"([a-z]+)(?::(\d+(?:\.\d+)?))?(?:@(\d+))?(?:x(\d+))?")


@dataclass(slots=True)
class Fault:
    """One fault that is armed.

    Attributes:
        kind: key of ``KINDS``.
        value: its number, None where it has none.
        skip: generation requests that still pass unharmed.
        left: requests that it still harms; None for all.
    """

    kind: str
    value: float | None
    skip: int
    left: int | None


def parse_fault(text: str) -> Fault:
    """Read a fault.

    Raises:
        ConfigError: unknown kind or spelling; the cure lists the kinds.
    """
    found = _SPELLING.fullmatch(text)
    if found is None or found.group(1) not in KINDS:
        kinds = ", ".join(KINDS)
        raise ConfigError(f"`{text}` is not a fault.", cure=f"Write kind[:value][@n][xCOUNT]; kinds are {kinds}.")
    kind, value, first, count = found.groups()
    return Fault(
        kind=kind,
        value=float(value) if value is not None else _DEFAULTS.get(kind),
        skip=max(0, int(first or 1) - 1),
        left=int(count) if count is not None else None,
    )


class Faults:
    """The faults of one replica."""

    def __init__(self, faults: list[Fault]) -> None:
        self.armed = faults

    def unhealthy(self) -> bool:
        """Whether ``/health`` must answer 503."""
        return any(fault.kind == "unhealthy" for fault in self.armed)

    def next_request(self) -> Fault | None:
        """The fault that the next generation request meets, if any; counts it."""
        hit: Fault | None = None
        for fault in list(self.armed):
            if fault.kind == "unhealthy":
                continue
            if fault.skip:
                fault.skip -= 1
            elif hit is None:
                hit = Fault(fault.kind, fault.value, 0, None)
                if fault.left is not None:
                    fault.left -= 1
                    if fault.left <= 0:
                        self.armed.remove(fault)
        return hit
