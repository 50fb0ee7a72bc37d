"""Circuit breaker: when to stop asking something that does not answer, and when to try again. Pure; time is passed in.

*Closed*: all calls go through. After some failures in a row *open*: none does. After a wait *half-open*: one goes
through as a probe; its success closes, its failure opens for twice as long.
"""

from __future__ import annotations

import math
from typing import Literal

State = Literal["closed", "open", "half-open"]


class Breaker:
    """State of one breaker.

    Args:
        failures: failures in a row that open it.
        base_s: first wait until a probe; each further one is twice as long.
        max_s: longest wait.
        probe_s: after so long a probe that nobody reported on counts as lost, and another goes.
    """

    def __init__(self, *, failures: int = 5, base_s: float = 0.1, max_s: float = 5.0, probe_s: float = 1.0) -> None:
        self.state: State = "closed"
        self._limit = failures
        self._base_s = base_s
        self._max_s = max_s
        self._probe_s = probe_s
        self._failures = 0
        self._wait_s = base_s
        self._next_probe = -math.inf

    def allows(self, now: float) -> bool:
        """Whether a call may go through at ``now`` (seconds); the one that may while not closed is the probe."""
        if self.state == "closed":
            return True
        if not self.ready(now):
            return False
        self.state = "half-open"
        self._next_probe = now + self._probe_s
        return True

    def ready(self, now: float) -> bool:
        """What :meth:`allows` would say, without taking the probe."""
        return self.state == "closed" or now >= self._next_probe

    def succeeded(self) -> None:
        """A call that had gone through was answered in time. While open, that is news from before: it says nothing."""
        if self.state == "open":
            return
        self.state = "closed"
        self._failures = 0
        self._wait_s = self._base_s

    def failed(self, now: float) -> None:
        """A call that had gone through was not answered in time, or not at all."""
        if self.state == "open":
            return
        self._failures += 1
        if self.state == "half-open":
            self._wait_s = min(self._wait_s * 2, self._max_s)
        elif self._failures < self._limit:
            return
        self.state = "open"
        self._next_probe = now + self._wait_s
