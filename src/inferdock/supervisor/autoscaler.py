"""Lets the number of replicas follow the load: looks at the gateway's figures, decides, and has the revision scaled.

It scales the one revision that serves. While several are there, a release owns their replicas, and it only watches: a
number has one owner at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf, isfinite
from typing import Any, Final, Protocol

from inferdock.autoscale.decide import Decision, Memory, Seen, decide
from inferdock.autoscale.figures import KV_CACHE, REQUESTS
from inferdock.autoscale.policy import MetricType, Policy
from inferdock.domain.errors import RequestError
from inferdock.supervisor.fleet import Fleet
from inferdock.telemetry import names
from inferdock.telemetry.published import Figure

AWAKE_S: Final = 1.0
"""Between two looks while nothing runs: a request waits."""


class Platform(Protocol):
    """What is scaled: ``supervisor.revisions``."""

    @property
    def fleets(self) -> Mapping[str, Fleet]:
        """By revision."""

    def scale(self, revision: str, replicas: int) -> None:
        """Have so many replicas; raises RequestError where there is no room."""


class Autoscaler:
    """The loop.

    Attributes:
        reason: of the last decision, in a sentence.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        sync_s: float,
        platform: Platform,
        status: Callable[[], Mapping[str, Any] | None],
        say: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is looked at yet.

        Args:
            policy: bounds, targets, rates.
            sync_s: seconds between two looks.
            platform: what is scaled.
            status: the gateway's last ``/admin/status``; None when it did not answer.
            say: gets a sentence for each change.
            monotonic: seconds of a clock that only goes forward.
        """
        self.reason = ""
        self._policy = policy
        self._sync_s = sync_s
        self._platform = platform
        self._status = status
        self._say = say
        self._monotonic = monotonic
        self._memory = Memory()
        self._refusal = ""
        self._decided: Counter[tuple[str, str]] = Counter()
        self._seen: Seen | None = None
        self._held: set[str] = set()

    async def keep(self) -> None:
        """Look again and again."""
        while True:
            fleet = self._alone()
            asleep = fleet is not None and fleet.wanted == 0
            await asyncio.sleep(min(AWAKE_S, self._sync_s) if asleep else self._sync_s)
            self.look()

    def look(self) -> None:
        """Decide once, and do it."""
        fleet = self._alone()
        if fleet is None:
            self.reason = "Several revisions are there: a release owns their replicas."
            self._seen, self._held = None, {"release"}
            return
        seen = Seen(
            now=self._monotonic(), replicas=fleet.wanted, ready=len(fleet.ready), figures=figures_of(self._status())
        )
        decision = decide(self._policy, seen, self._memory)
        self.reason = decision.reason
        self._seen, self._held = seen, {"max_replicas"} if self._at_most(seen, decision) else set()
        if decision.replicas == fleet.wanted:
            self._memory = decision.memory
            self._decided["stay", "done"] += 1
        else:
            self._scale(fleet, decision)

    def _alone(self) -> Fleet | None:
        fleets = list(self._platform.fleets.values())
        return fleets[0] if len(fleets) == 1 and not fleets[0].retiring else None

    def _scale(self, fleet: Fleet, decision: Decision) -> None:
        before = fleet.wanted
        try:
            self._platform.scale(fleet.revision, decision.replicas)
        except RequestError as exc:
            self._refused(decision, exc)
            return
        self._memory, self._refusal = decision.memory, ""
        self._decided[_direction(before, decision.replicas), "done"] += 1
        self._say(f"{before} -> {decision.replicas} replicas. {decision.reason}")

    def _refused(self, decision: Decision, exc: RequestError) -> None:
        """What was not done must not count as done; why is said once."""
        self._memory = replace(decision.memory, changes=self._memory.changes)
        self.reason = f"{decision.reason} But: {exc.message}"
        self._decided["up", "refused"] += 1
        self._held.add("room")
        if exc.message != self._refusal:
            self._refusal = exc.message
            self._say(f"{decision.replicas} replicas are wanted, but: {exc.message}")

    # -- Metrics ---------------------------------------------------------------------------------------------

    def _at_most(self, seen: Seen, decision: Decision) -> bool:
        """Whether as many as may be are too few for the signal."""
        most = self._policy.max_replicas
        above = 1 + self._policy.tolerance
        shares = [
            seen.figures.get(t.metric, -inf) / (most if t.type is MetricType.AVERAGE_VALUE else 1) / t.value
            for t in self._policy.targets
        ]
        return decision.replicas >= most and max(shares) > above

    def figures(self, model: str) -> list[Figure]:
        """What ``/metrics`` says of it, as ``telemetry.table`` describes."""
        policy = self._policy
        of_fleets = [
            Figure(name, (model, fleet.revision), float(count))
            for fleet in self._platform.fleets.values()
            if not fleet.retiring
            for name, count in ((names.AUTOSCALE_WANTED, fleet.wanted), (names.AUTOSCALE_READY, len(fleet.ready)))
        ]
        bounds = (("min", policy.min_replicas), ("max", policy.max_replicas))
        seen = self._seen.figures if self._seen is not None else {}
        return [
            *of_fleets,
            *(Figure(names.AUTOSCALE_BOUND, (model, bound), float(count)) for bound, count in bounds),
            *(Figure(names.AUTOSCALE_DECISIONS, (model, *key), float(n)) for key, n in self._decided.items()),
            *(Figure(names.AUTOSCALE_SIGNAL, (model, signal), value) for signal, value in seen.items()),
            *(Figure(names.AUTOSCALE_TARGET, (model, t.metric, str(t.type)), t.value) for t in policy.targets),
            *(
                Figure(names.AUTOSCALE_HELD_BACK, (model, limit), float(limit in self._held))
                for limit in ("max_replicas", "room", "release")
            ),
        ]


def _direction(before: int, after: int) -> str:
    return "up" if after > before else "down"


def figures_of(status: Mapping[str, Any] | None) -> dict[str, float]:
    """The figures in a gateway's status; those that it does not show are left out."""
    if status is None:
        return {}
    figures: dict[str, float] = {}
    if (held := _figure(status.get("in_flight"))) is not None:
        figures[REQUESTS] = held
    rows = [row for row in status.get("endpoints", ()) if row.get("state") == "ready"]
    used = [kv for row in rows if (kv := _figure(row.get("kv_cache_usage_ratio"))) is not None]
    if used:
        figures[KV_CACHE] = sum(used) / len(used)
    elif not rows:
        figures[KV_CACHE] = 0.0
    return figures


def _figure(value: object) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    return float(value) if number else None  # type: ignore[arg-type]
