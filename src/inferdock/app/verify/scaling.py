"""The autoscaler's decisions, asked in simulated time, and the record of a load test that was run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import yaml

from inferdock.app.verify.chart import COOLDOWN_S, HOLD_S
from inferdock.app.verify.ground import LackingError, verdict
from inferdock.app.verify.target import Target
from inferdock.autoscale.decide import Memory, Seen, decide
from inferdock.autoscale.figures import KV_CACHE, REQUESTS
from inferdock.autoscale.of_settings import policy_of
from inferdock.autoscale.policy import SYNC_S, Policy
from inferdock.config.settings import AutoscalingSettings
from inferdock.verify.check import Evidence

SOON_S: Final = 120.0
"""Within it replicas must have come."""
MOMENT_S: Final = 15.0
"""Load that is over before it counts."""
CALM_S: Final = 120.0
"""Before it, so that the stabilisation has something to look back on."""
SIMULATED: Final = "inferdock simulate"
Figures = Callable[[float], Mapping[str, float]]


def policy_for(target: Target) -> Policy:
    """The policy of the platform that runs here, else the default one.

    Raises:
        LackingError: the platform may have one replica at most.
    """
    config = target.state.with_name("gateway.yaml") if target.state is not None else None
    document = yaml.safe_load(config.read_text(encoding="utf-8")) if config is not None and config.is_file() else {}
    settings = AutoscalingSettings.model_validate(document.get("autoscaling") or {})
    policy = policy_of(settings)
    if policy.max_replicas < 3:
        raise LackingError("Needs room to scale: set autoscaling.max_replicas to 3 or more.")
    return policy


def course(policy: Policy, figures: Figures, until_s: float, replicas: int) -> list[tuple[float, int]]:
    """(time, replicas wanted) at each look, every replica ready at once."""
    now, memory, looks = 0.0, Memory(), []
    while now <= until_s:
        seen = Seen(now=now, replicas=replicas, ready=replicas, figures=figures(now))
        decision = decide(policy, seen, memory)
        replicas, memory = decision.replicas, decision.memory
        looks.append((now, replicas))
        now += SYNC_S
    return looks


def grows_by_load(policy: Policy) -> Evidence:
    """Twice the load of the fewest replicas: after half a minute, and not for a quarter of one."""
    least, each = _least(policy), _target(policy, REQUESTS)
    busy = {REQUESTS: 2.2 * each * least, KV_CACHE: 0.1}
    calm = {REQUESTS: 0.5 * each * least, KV_CACHE: 0.1}
    return _judged_growth(_grown(policy, calm, busy), _grown(policy, calm, busy, MOMENT_S), "twice the load")


def grows_by_kv_cache(policy: Policy) -> Evidence:
    """A full KV cache with few requests, which alone would need no more replicas."""
    least, most = _least(policy), _target(policy, KV_CACHE)
    full = {REQUESTS: 0.5 * _target(policy, REQUESTS) * least, KV_CACHE: min(1.0, most * 1.17)}
    free = {**full, KV_CACHE: most / 2}
    what = f"the KV cache {full[KV_CACHE]:.0%} full"
    return _judged_growth(_grown(policy, free, full), _grown(policy, free, full, MOMENT_S), what)


def _grown(policy: Policy, calm: Mapping[str, float], busy: Mapping[str, float], for_s: float = SOON_S) -> float | None:
    """Seconds of being busy after which a replica comes; None when none does."""
    least = _least(policy)
    looks = course(policy, lambda now: busy if CALM_S <= now < CALM_S + for_s else calm, CALM_S + SOON_S, least)
    return next((at - CALM_S for at, wanted in looks if wanted > least), None)


def _judged_growth(first: float | None, hasty: float | None, what: str) -> Evidence:
    # Looks have a grain: load may have begun a whole look before the first one that saw it.
    good = first is not None and first >= HOLD_S - SYNC_S and hasty is None
    when = f"{first:g} s after it first saw that" if first is not None else f"not within {SOON_S:g} s"
    short = f"{MOMENT_S:g} s of it add {'none' if hasty is None else 'one too'}"
    sentence = f"With {what} the policy adds a replica {when}; {short}."
    return verdict(good, sentence, SIMULATED, **({"after_s": first} if first is not None else {}))


def shrinks_late(policy: Policy) -> Evidence:
    """Load falls to nearly none: the first replica goes after five minutes, in the end the fewest stay."""
    least, each, falls = _least(policy), _target(policy, REQUESTS), 120.0
    most = min(policy.max_replicas, least + 2)
    busy, calm = {REQUESTS: each * most, KV_CACHE: 0.1}, {REQUESTS: 0.2 * each * least, KV_CACHE: 0.1}
    looks = course(policy, lambda now: busy if now < falls else calm, falls + 4 * COOLDOWN_S, most)
    gone = [at - falls for at, wanted in looks if wanted < most]
    first, last = (gone[0] if gone else None), looks[-1][1]
    good = first is not None and first >= COOLDOWN_S - SYNC_S and last == least
    when = f"{first:g} s after the load fell" if first is not None else "never"
    sentence = f"The first of {most} replicas goes {when}; in the end there are {last}."
    return verdict(good, sentence, SIMULATED, **({"after_s": first} if first is not None else {}))


def _least(policy: Policy) -> int:
    return max(1, policy.min_replicas)


def _target(policy: Policy, metric: str) -> float:
    found = next((target.value for target in policy.targets if target.metric == metric), None)
    if found is None:
        raise LackingError(f"Needs a target for {metric}: set autoscaling.{metric} to what it should be.")
    return found


# -- A load test that was run ----------------------------------------------------------------------------------------


def judged_run(found: Mapping[str, Any], command: str) -> Evidence:
    """What the record of `tests/load/test_autoscaling.py` says.

    Replicas must have come with the users, gone again no sooner than five minutes after these had left, and no request
    may have failed.
    """
    summary, course_ = found["summary"], found["course"]
    wanted = [(at, int(number)) for at, _, _, number in found["looks"] if number is not None]
    fell = course_["ramp_s"] + course_["stay_s"]
    peak = max((number for _, number in wanted), default=0)
    grew = bool(wanted) and peak > wanted[0][1]
    gone = next((at - fell for at, number in wanted if at > fell and number < peak), None)
    lost = summary["requests"] - summary["answered"]
    # A record is looked at once a second, and users need some seconds to leave.
    good = grew and gone is not None and gone >= COOLDOWN_S - SYNC_S and lost == 0 and summary["requests"] > 0
    when = f"the first went {gone:.0f} s after the users" if gone is not None else "none went"
    sentence = f"{summary['requests']} requests, {lost} lost; {peak} replicas at most, {when}."
    figures = {
        "requests": summary["requests"],
        "lost": lost,
        "most_replicas": peak,
        "status_5xx": summary["status_5xx"],
    }
    return verdict(good, sentence, command, **figures)
