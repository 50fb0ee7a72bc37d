"""The bound on wrong answers: what checked hits say, and what the semantic tier should do about it. Pure; time is
passed in.

A sample of hits is generated again and compared (:mod:`inferdock.cache.compare`). Per model and size of partition the
outcomes are counted, old ones weighing less, and:

- one partition with several wrong answers among few answers only to equal requests for a while; its outcomes are then
  not held against the others;
- where the share is surely above the operator's bound, all partitions of that size do, and come back with the
  threshold as tight as it gets;
- where the share looks too high, the threshold rises a step; where it is surely below the bound, it sinks a step.

Outcomes are weighed in turns of a fixed number of samples, so more wrong answers never lead to a looser threshold.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Literal

from inferdock.cache.compare import Outcome
from inferdock.domain.interval import CONFIDENT_Z, Interval, wilson

SizeClass = Literal["<1k", "1k-10k", ">10k"]
SIZE_CLASSES: Final[tuple[SizeClass, ...]] = ("<1k", "1k-10k", ">10k")

_MAX_SCOPES: Final = 4096
_MAX_PARTITIONS: Final = 20_000


def size_class(entries: int) -> SizeClass:
    """The class of a partition with so many entries: the more there are, the nearer is a wrong one."""
    return "<1k" if entries < 1000 else "1k-10k" if entries <= 10_000 else ">10k"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When the tier becomes stricter.

    Attributes:
        bound: largest share of hits that may be wrong, 0-1.
        z: width of the intervals, see :func:`wilson`.
        window: samples after which an outcome weighs 1/e of what it did; more where the bound is so low that fewer
            could never show that the share is below it (:attr:`weighed`).
        half_life_s: seconds after which it weighs half.
        min_samples: fewer change no threshold.
        turn: samples between two changes of the threshold.
        step: by how much it changes.
        tightest: no threshold is raised above this.
        max_steps: most steps above the usual threshold.
        min_wrong: wrong answers of several partitions before all of a size answer only to equal requests.
        partition_wrong: wrong answers of one partition before it does.
        cool_off_s: for how long; the n-th time in close succession n times as long.
        max_cool_off_s: longest cool-off.
    """

    bound: float = 0.02
    z: float = CONFIDENT_Z
    window: int = 1000
    half_life_s: float = 24 * 3600.0
    min_samples: int = 50
    turn: int = 20
    step: float = 0.01
    tightest: float = 0.99
    max_steps: int = 8
    min_wrong: int = 3
    partition_wrong: int = 2
    cool_off_s: float = 900.0
    max_cool_off_s: float = 6 * 3600.0

    @property
    def weighed(self) -> int:
        """The window in use."""
        return max(self.window, math.ceil(3 * self.z * self.z / self.bound))


@dataclass(frozen=True, slots=True)
class Action:
    """What the tier should do.

    Attributes:
        kind: as usual; with a higher threshold; or answer equal requests only.
        tighten: what to add to the threshold.
        reason: a sentence for people.
    """

    kind: Literal["normal", "tightened", "exact"]
    tighten: float
    reason: str
    tightest: float = 0.99

    def threshold(self, usual: float) -> float:
        """The threshold in place of the usual one: never below it, and not raised above ``tightest``."""
        return max(usual, min(self.tightest, usual + self.tighten))


@dataclass(slots=True)
class _Counts:
    """Weighed outcomes."""

    wrong: float = 0.0
    right: float = 0.0
    at: float = -math.inf

    def fade(self, now: float, half_life_s: float) -> None:
        """What lies back weighs less; a clock that goes back changes nothing."""
        if now > self.at:
            if self.wrong or self.right:
                self._scale(0.5 ** ((now - self.at) / half_life_s))
            self.at = now

    def add(self, *, wrong: bool, window: int) -> None:
        self._scale(1 - 1 / window)
        if wrong:
            self.wrong += 1
        else:
            self.right += 1

    def _scale(self, factor: float) -> None:
        self.wrong *= factor
        self.right *= factor


@dataclass(slots=True)
class _Scope:
    """One model and size class.

    Attributes:
        seen: all outcomes, for the published ratio.
        held: those that count against the class.
        unsure: outcomes that say nothing.
        taken: outcomes so far, which makes the turns.
        steps: how far the threshold is raised.
        exact_until: end of the cool-off.
        cool_offs: how many in close succession.
    """

    seen: _Counts
    held: _Counts
    unsure: int = 0
    taken: int = 0
    steps: int = 0
    exact_until: float = -math.inf
    cool_offs: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One row of ``inferdock cache stats``; ``interval`` is None without samples."""

    model: str
    size: str
    interval: Interval | None
    unsure: int
    action: Action


class Audit:
    """Keeps the counts of one gateway process and judges them. Memory is bounded."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._scopes: OrderedDict[tuple[str, str], _Scope] = OrderedDict()
        self._partitions: OrderedDict[bytes, list[int]] = OrderedDict()
        self._isolated: OrderedDict[bytes, float] = OrderedDict()

    def record(self, model: str, size: str, partition: bytes, outcome: Outcome, now: float) -> None:
        """Note what the check of one hit gave.

        Args:
            model: of the request.
            size: class of its partition, see :func:`size_class`.
            partition: its key.
            outcome: of :func:`inferdock.cache.compare.compare`, or of a judge.
            now: seconds of a clock that does not go back.
        """
        scope = self._scope(model, size)
        if outcome == "unsure":
            scope.unsure += 1
            return
        wrong, rules = outcome == "different", self._rules
        for counts in (scope.seen, scope.held):
            counts.fade(now, rules.half_life_s)
        scope.seen.add(wrong=wrong, window=rules.weighed)
        scope.taken += 1
        if self._is_isolated(partition, now):
            return  # a check that was under way when it was isolated
        scope.held.add(wrong=wrong, window=rules.weighed)
        if not (self._isolates(partition, scope, now, wrong=wrong) or self._falls_back(scope, now)):
            self._turn(scope, loosen=not wrong)

    def ratio(self, model: str, size: str) -> Interval | None:
        """The share of wrong hits among those that were checked; None without samples."""
        scope = self._scopes.get((model, size))
        if scope is None or not scope.seen.wrong + scope.seen.right:
            return None
        return wilson(scope.seen.wrong, scope.seen.right, self._rules.z)

    def action(self, model: str, size: str, partition: bytes, now: float) -> Action:
        """What to do with a request of this partition at ``now``."""
        until = self._isolated.get(partition, -math.inf)
        if now < until:
            reason = f"this partition gave several wrong answers: only equal requests hit for {until - now:.0f} s"
            return self._action("exact", 0, reason)
        return self._of_scope(self._scopes.get((model, size)), now)

    def report(self, now: float) -> list[Line]:
        """All models and size classes with samples."""
        return [
            Line(model, size, self.ratio(model, size), scope.unsure, self._of_scope(scope, now))
            for (model, size), scope in sorted(self._scopes.items())
        ]

    def isolated(self, now: float) -> int:
        """How many partitions answer only to equal requests by themselves."""
        return sum(now < until for until in self._isolated.values())

    # -- What to do ------------------------------------------------------------------------------------------------

    def _of_scope(self, scope: _Scope | None, now: float) -> Action:
        if scope is None or not scope.taken:
            return self._action("normal", 0, "no hit has been checked yet")
        if now < scope.exact_until:
            left = scope.exact_until - now
            return self._action("exact", scope.steps, f"{scope.reason}: only equal requests hit for {left:.0f} s")
        if scope.steps:
            return self._action("tightened", scope.steps, scope.reason)
        return self._action("normal", 0, f"the share of wrong hits is not above {self._rules.bound:.2%}")

    def _action(self, kind: Literal["normal", "tightened", "exact"], steps: int, reason: str) -> Action:
        return Action(kind, round(steps * self._rules.step, 10), reason, self._rules.tightest)

    # -- Judging ---------------------------------------------------------------------------------------------------

    def _isolates(self, partition: bytes, scope: _Scope, now: float, *, wrong: bool) -> bool:
        """Set one partition aside if it, rather than its class, is what is wrong."""
        counts = self._partitions.setdefault(partition, [0, 0])
        counts[0 if wrong else 1] += 1
        self._partitions.move_to_end(partition)
        if len(self._partitions) > _MAX_PARTITIONS:
            self._partitions.popitem(last=False)
        rules = self._rules
        bad, good = counts
        if not wrong or bad < rules.partition_wrong or wilson(bad, good, rules.z).low <= rules.bound:
            return False
        del self._partitions[partition]
        self._isolated[partition] = now + rules.cool_off_s
        self._isolated.move_to_end(partition)
        if len(self._isolated) > _MAX_PARTITIONS:
            self._isolated.popitem(last=False)  # the first that was set aside: its time is over first
        scope.held.wrong = max(0.0, scope.held.wrong - bad)
        scope.held.right = max(0.0, scope.held.right - good)
        return True

    def _is_isolated(self, partition: bytes, now: float) -> bool:
        until = self._isolated.get(partition)
        if until is None:
            return False
        if now < until:
            return True
        del self._isolated[partition]
        return False

    def _falls_back(self, scope: _Scope, now: float) -> bool:
        """Equal requests only, where the share is surely too high; what was counted is forgotten after that."""
        rules = self._rules
        interval = wilson(scope.held.wrong, scope.held.right, rules.z)
        wrong_enough = scope.held.wrong > rules.min_wrong - 0.5  # weighed counts are never quite whole
        if now < scope.exact_until or not wrong_enough or interval.low <= rules.bound:
            return False
        scope.cool_offs += 1
        scope.exact_until = now + min(rules.max_cool_off_s, rules.cool_off_s * scope.cool_offs)
        scope.steps = rules.max_steps
        scope.reason = f"at least {interval.low:.1%} of checked hits were wrong, more than {rules.bound:.2%}"
        scope.held = _Counts(at=now)
        return True

    def _turn(self, scope: _Scope, *, loosen: bool) -> None:
        """At the end of a turn, one step up or down. A wrong answer never loosens."""
        rules = self._rules
        if scope.taken % rules.turn or scope.held.wrong + scope.held.right < rules.min_samples * 0.9:
            return
        interval = wilson(scope.held.wrong, scope.held.right, rules.z)
        if interval.point > rules.bound:
            scope.steps = min(rules.max_steps, scope.steps + 1)
            scope.reason = f"{interval.point:.1%} of checked hits were wrong, more than {rules.bound:.2%}"
        elif interval.high < rules.bound and scope.steps and loosen:
            scope.steps -= 1
            scope.reason = f"at most {interval.high:.1%} of checked hits are wrong: the threshold sinks step by step"
            if not scope.steps:
                scope.cool_offs = 0

    def _scope(self, model: str, size: str) -> _Scope:
        scope = self._scopes.get((model, size))
        if scope is None:
            scope = self._scopes[model, size] = _Scope(_Counts(), _Counts())
            if len(self._scopes) > _MAX_SCOPES:
                self._scopes.popitem(last=False)
        else:
            self._scopes.move_to_end((model, size))
        return scope
