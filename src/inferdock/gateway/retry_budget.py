"""Keeps retries from turning a partial failure into an overload: they may only be a share of the requests.

The same idea as Finagle's and Envoy's retry budgets: each request puts a little in, each retry takes one out, and a
small reserve refills with time so that a quiet service can still retry.
"""

from __future__ import annotations

DEPOSIT = 0.2
"""Retries that each request pays for."""

RESERVE_PER_S = 10.0
"""Retries per second that are always allowed."""

CAPACITY = 500.0
"""Most retries that can be saved up: enough for the requests in flight on one replica that dies."""


class RetryBudget:
    """One model's account."""

    __slots__ = ("_at", "_balance")

    def __init__(self, now: float) -> None:
        self._balance = CAPACITY
        self._at = now

    def request(self) -> None:
        """A new request has come."""
        self._balance = min(CAPACITY, self._balance + DEPOSIT)

    def take(self, now: float) -> bool:
        """Pay for one retry; False when there is nothing left to pay with."""
        self._balance = min(CAPACITY, self._balance + (now - self._at) * RESERVE_PER_S)
        self._at = now
        if self._balance < 1:
            return False
        self._balance -= 1
        return True
