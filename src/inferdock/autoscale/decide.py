"""One look of an autoscaler: figures in, a number of replicas with its reason out. Pure.

::

    figures -> per target: replicas wanted -> the most of them -> bounds -> stabilised -> rates -> decision
                 |                                                    |            |
                 `- none known: stay, or the fallback                 `-- Memory: what was wanted, what was done

Follows `pkg/controller/podautoscaler/horizontal.go` and `replica_calculator.go` of Kubernetes 1.34, external metrics
only; to and from zero as KEDA does it: a figure above its activation wakes the first replica, and once no figure has
been for ``idle_s`` the last one goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, floor, isfinite

from inferdock.autoscale.policy import Behavior, MetricType, Policy, Rate, Select, Target, Unit

MANY = 10**9
"""More replicas than there will be: figures may be anything."""
EPSILON = 1e-9
"""Below this, a figure is what its target says but for rounding."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a look wanted before it was stabilised."""

    time: float
    replicas: int


@dataclass(frozen=True, slots=True)
class Change:
    """What was done: replicas added, or taken away (negative)."""

    time: float
    replicas: int


@dataclass(frozen=True, slots=True)
class Memory:
    """What one look leaves for the next.

    Attributes:
        wishes, changes: no older than the longest window and period need.
        active_at: when a figure was last above its activation, or nothing was ready yet.
        blind: looks in a row without any figure.
    """

    wishes: tuple[Wish, ...] = ()
    changes: tuple[Change, ...] = ()
    active_at: float | None = None
    blind: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What there is at a look.

    Attributes:
        now: seconds of a clock that only goes forward.
        replicas: that were wanted last.
        ready: of them; those that start do not carry a share of a figure of type ``Value``.
        figures: by metric; what is missing, or no finite number >= 0, is not known.
    """

    now: float
    replicas: int
    ready: int
    figures: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a look decides.

    Attributes:
        replicas: wanted from now on.
        reason: a sentence.
        memory: for the next look.
    """

    replicas: int
    reason: str
    memory: Memory


def decide(policy: Policy, seen: Seen, memory: Memory) -> Decision:
    """How many replicas from now on; the bounds are kept whatever the figures say."""
    known = {name: figure for name, figure in seen.figures.items() if isfinite(figure) and figure >= 0}
    active = [target for target in policy.targets if known.get(target.metric, 0.0) > target.activation]
    starting = seen.ready == 0 and seen.replicas > 0  # whoever is just coming is not idle
    busy = bool(active) or starting or memory.active_at is None  # idle time counts from the first look
    memory = replace(memory, blind=0 if known else memory.blind + 1, active_at=seen.now if busy else memory.active_at)
    if seen.replicas == 0 and policy.min_replicas == 0:
        return _awake(policy, seen, memory, active)
    if seen.replicas < policy.min_replicas:
        return _done(seen, memory, policy.min_replicas, f"There are never fewer than {policy.min_replicas}.")
    if seen.replicas > policy.max_replicas:
        return _done(seen, memory, policy.max_replicas, f"There are never more than {policy.max_replicas}.")
    if not known:
        return _blind(policy, seen, memory)
    if _may_sleep(policy, seen, memory, known):
        return _done(seen, memory, 0, f"Nothing was asked for {policy.idle_s:g} s.")
    return _by_figures(policy, seen, memory, known)


def _awake(policy: Policy, seen: Seen, memory: Memory, active: list[Target]) -> Decision:
    if not active:
        return Decision(replicas=0, reason="Nothing is asked.", memory=memory)
    reason = f"{active[0].metric} is {seen.figures[active[0].metric]:g}: the first replica is needed."
    return _done(seen, memory, min(1, policy.max_replicas), reason)


def _may_sleep(policy: Policy, seen: Seen, memory: Memory, known: Mapping[str, float]) -> bool:
    everything_known = all(target.metric in known for target in policy.targets)
    idle = memory.active_at is not None and seen.now - memory.active_at >= policy.idle_s
    return policy.min_replicas == 0 and everything_known and idle


def _blind(policy: Policy, seen: Seen, memory: Memory) -> Decision:
    if policy.fallback is None or memory.blind < policy.fallback_after:
        return Decision(replicas=seen.replicas, reason="No figure is known, so nothing changes.", memory=memory)
    wanted = max(policy.min_replicas, min(policy.fallback, policy.max_replicas))
    return _done(seen, memory, wanted, f"No figure was known {memory.blind} times in a row: the fallback holds.")


def _by_figures(policy: Policy, seen: Seen, memory: Memory, known: Mapping[str, float]) -> Decision:
    wishes = {
        target.metric: _wanted(target, known[target.metric], policy, seen)
        for target in policy.targets
        if target.metric in known
    }
    metric, most = max(wishes.items(), key=lambda wish: wish[1])
    if most < seen.replicas and len(wishes) < len(policy.targets):
        missing = next(target.metric for target in policy.targets if target.metric not in known)
        return Decision(replicas=seen.replicas, reason=f"{missing} is not known, so no replica goes.", memory=memory)
    least = max(policy.min_replicas, 1)
    bounded = min(max(most, least), policy.max_replicas)
    steady, memory = _stabilised(policy, seen, memory, bounded)
    allowed = _within_rates(policy, seen, memory, steady)
    target = next(target for target in policy.targets if target.metric == metric)
    why = f"{metric} is {known[metric]:g}, wanted {target.value:g}{_each(target)}: {most}"
    return _done(seen, memory, allowed, _reason(why, most, bounded, steady, allowed, seen.replicas))


def _each(target: Target) -> str:
    return " for each replica" if target.type is MetricType.AVERAGE_VALUE else ""


def _wanted(target: Target, figure: float, policy: Policy, seen: Seen) -> int:
    """Replicas that one figure asks for."""
    average = target.type is MetricType.AVERAGE_VALUE
    ratio = figure / target.value / (seen.replicas if average else 1)
    if abs(ratio - 1) <= policy.tolerance + EPSILON:
        return seen.replicas
    return ceil(min(ratio * (seen.replicas if average else seen.ready), MANY) - EPSILON)


def _stabilised(policy: Policy, seen: Seen, memory: Memory, wanted: int) -> tuple[int, Memory]:
    """The most careful wish of each window: the smallest for growing, the largest for shrinking."""
    longest = max(policy.up.window_s, policy.down.window_s)
    kept = tuple(wish for wish in memory.wishes if wish.time > seen.now - longest)
    up = min([wanted, *(w.replicas for w in kept if w.time > seen.now - policy.up.window_s)])
    down = max([wanted, *(w.replicas for w in kept if w.time > seen.now - policy.down.window_s)])
    steady = min(max(seen.replicas, up), down)
    return steady, replace(memory, wishes=(*kept, Wish(seen.now, wanted)))


def _within_rates(policy: Policy, seen: Seen, memory: Memory, wanted: int) -> int:
    if wanted > seen.replicas:
        return max(seen.replicas, min(wanted, _most(policy.up, seen, memory)))
    if wanted < seen.replicas:
        return min(seen.replicas, max(wanted, _least(policy.down, seen, memory)))
    return wanted


def _most(behavior: Behavior, seen: Seen, memory: Memory) -> int:
    if behavior.select is Select.DISABLED:
        return seen.replicas
    limits = [_grown(rate, _at_start(rate, seen, memory)) for rate in behavior.rates]
    if not limits:
        return MANY
    return max(limits) if behavior.select is Select.MAX else min(limits)


def _least(behavior: Behavior, seen: Seen, memory: Memory) -> int:
    if behavior.select is Select.DISABLED:
        return seen.replicas
    limits = [_shrunk(rate, _at_start(rate, seen, memory)) for rate in behavior.rates]
    if not limits:
        return 0
    return min(limits) if behavior.select is Select.MAX else max(limits)


def _at_start(rate: Rate, seen: Seen, memory: Memory) -> int:
    """Replicas when the period began."""
    return seen.replicas - sum(c.replicas for c in memory.changes if c.time > seen.now - rate.period_s)


def _grown(rate: Rate, start: int) -> int:
    return start + rate.value if rate.unit is Unit.PODS else ceil(start * (1 + rate.value / 100) - EPSILON)


def _shrunk(rate: Rate, start: int) -> int:
    return start - rate.value if rate.unit is Unit.PODS else floor(start * (1 - rate.value / 100) + EPSILON)


def _done(seen: Seen, memory: Memory, wanted: int, reason: str) -> Decision:
    """A decision, remembered for the rates."""
    longest = 1800.0  # no period is longer
    changes = tuple(change for change in memory.changes if change.time > seen.now - longest)
    if wanted != seen.replicas:
        changes = (*changes, Change(seen.now, wanted - seen.replicas))
    return Decision(replicas=wanted, reason=reason, memory=replace(memory, changes=changes))


def _reason(why: str, most: int, bounded: int, steady: int, allowed: int, now: int) -> str:
    parts = [why]
    if bounded != most:
        parts.append(f"{bounded} within the bounds")
    if steady != bounded:
        parts.append(f"{steady} until that has held for the window")
    if allowed != steady:
        parts.append(f"{allowed} at this rate")
    if allowed == now:
        parts.append("so nothing changes")
    return ", ".join(parts) + "."
