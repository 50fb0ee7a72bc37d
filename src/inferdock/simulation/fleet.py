"""The cheapest fleet for a load: what one replica carries within the objectives, how many that takes, what they cost.

What a replica can carry is found by simulating a small fleet at one rate after the other. Larger fleets are counted in
proportion, which errs on the safe side: the more replicas share a load, the more evenly each is used.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from inferdock.cost.prices import Price
from inferdock.domain.percentile import percentile
from inferdock.simulation.memory import levels
from inferdock.simulation.profile import Profile
from inferdock.simulation.scenario import HOUR_S, Scenario
from inferdock.simulation.traffic import Lengths, poisson
from inferdock.simulation.world import simulate

SMALL: Final = 8
"""Replicas of the largest fleet that is simulated."""
REQUESTS: Final = 4000
"""Of each try; enough for a 95th percentile."""
STEPS: Final = 12
"""Halvings of the interval: the rate is found to 1 in 4,000 of the most that it could be."""
SIGMAS: Final = 3.09
"""Of the normal distribution: enough replicas are there 99.9 % of the time."""
MOST_REPLICAS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Objectives:
    """What requests must keep to, in seconds: TTFT at the 95th percentile, TPOT at the median."""

    ttft_p95_s: float = 0.5
    tpot_p50_s: float = 0.05


@dataclass(frozen=True, slots=True)
class Machine:
    """A kind of machine, and how fast a replica on it is.

    Attributes:
        price: of the machine.
        profile: of a replica.
        gpus: that a replica takes.
        kv_room: tokens of KV cache that there is room for beside the weights; None: as many as the profile says.
    """

    price: Price
    profile: Profile
    gpus: int = 1
    kv_room: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """One way to carry the load.

    Attributes:
        instance_type: kind of machine.
        replicas: all.
        needed: of them, for the load; the rest stands in for those that are interrupted.
        on_demand, spot: machines of each kind.
        per_replica: requests per second that one carries within the objectives.
        kv_cache_tokens: of a replica, with which that was found.
        cost_per_hour: dollars.
        cost_per_million: dollars per million tokens, prompts and answers, at this load.
    """

    instance_type: str
    replicas: int
    needed: int
    on_demand: int
    spot: int
    per_replica: float
    kv_cache_tokens: int
    cost_per_hour: float
    cost_per_million: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked.

    Attributes:
        rate: requests per second.
        lengths: of prompts and answers.
        objectives: to keep.
        seed: of chance.
    """

    rate: float
    lengths: Lengths
    objectives: Objectives
    seed: int = 1

    @property
    def tokens_per_s(self) -> float:
        """Prompts and answers together; the mean of a log-normal length is above its median."""
        mean = math.exp(self.lengths.spread**2 / 2)
        return self.rate * (self.lengths.prompt + self.lengths.output) * mean


@dataclass(slots=True)
class Watch:
    """What was seen in simulations that belong together.

    Attributes:
        kv_short: a request had to wait for room in a KV cache; else all would have gone alike with larger ones.
    """

    kv_short: bool = False


def within(profile: Profile, replicas: int, rate: float, load: Load, watch: Watch | None = None) -> bool:
    """Whether so many replicas carry so many requests per second within the objectives."""
    asked = poisson(lambda _: rate, rate, REQUESTS / rate, load.lengths, random.Random(load.seed))
    result = simulate(Scenario(profile=profile, replicas=replicas, sample_s=REQUESTS / rate), asked)
    if watch is not None:
        watch.kv_short |= result.kv_short
    begun = len(result.ttft) // 5  # while the fleet was still filling up
    ttft = percentile(sorted(result.ttft[begun:]), 0.95)
    tpot = percentile(sorted(result.tpot[begun:]), 0.5)
    return not (ttft > load.objectives.ttft_p95_s or tpot > load.objectives.tpot_p50_s)  # no answer misses nothing


def most_per_s(profile: Profile, replicas: int, load: Load, watch: Watch | None = None) -> float:
    """Requests per second that so many replicas carry within the objectives; 0 where not even one request is."""
    work = load.lengths.prompt * profile.prompt_work() + load.lengths.output
    full = max(n / profile.step_s(n) for n in (1, *(s.running for s in profile.steps), profile.max_num_seqs))
    high, low = 1.5 * replicas * full / work, 0.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if within(profile, replicas, middle, load, watch):
            low = middle
        else:
            high = middle
    return low


def needed(profile: Profile, load: Load) -> tuple[int, float] | None:
    """(fewest replicas, requests per second that each can carry in such a fleet); None: no number is enough."""
    large = most_per_s(profile, SMALL, load)
    if large <= 0:
        return None
    count = _fewest(profile, load, large)
    return count, _each(profile, load, large, count)


def _fewest(profile: Profile, load: Load, large: float, watch: Watch | None = None) -> int:
    if load.rate > large:
        return min(MOST_REPLICAS, math.ceil(load.rate / (large / SMALL)))
    low, high = 0, SMALL  # `high` is enough
    while high - low > 1:
        middle = (low + high) // 2
        enough = within(profile, middle, load.rate, load, watch)
        low, high = (low, middle) if enough else (middle, high)
    return high


def _each(profile: Profile, load: Load, large: float, count: int) -> float:
    return large / SMALL if count >= SMALL else most_per_s(profile, count, load) / count


def spare(replicas: int, per_hour: float, startup_s: float) -> int:
    """Replicas beyond the needed ones, so that interruptions leave enough 99.9 % of the time.

    One that is interrupted is missing until its successor has started: a share ``u = per_hour * startup`` of the time.
    Of ``m`` replicas the number that is there is then binomial, and for many close to normal: the least ``m`` with
    ``m (1 - u) - 3.09 sqrt(m u (1 - u)) >= replicas``, a quadratic inequality in ``sqrt(m)``.
    """
    missing = min(per_hour * startup_s / HOUR_S, 0.9)
    if missing <= 0 or replicas == 0:
        return 0
    there, spread = 1 - missing, SIGMAS * math.sqrt(missing * (1 - missing))
    root = (spread + math.sqrt(spread**2 + 4 * there * replicas)) / (2 * there)
    total = max(replicas + 1, math.ceil(root**2))
    while total * there - math.sqrt(total) * spread < replicas:  # a rounding away at most
        total += 1
    return total - replicas


def _worst(machine: Machine, load: Load) -> tuple[int, float, int] | None:
    """(fewest replicas, requests per second of each, tokens of KV cache) with the KV cache that there is room for.

    From the smallest of `levels` up; where no request waited for room, all larger ones would give the same.
    """
    full = machine.profile.kv_cache_tokens
    sizes = [full] if machine.kv_room is None else levels(full, machine.kv_room)[::-1]
    count, carried = 0, []
    for size in sizes:
        watch = Watch()
        profile = _with(machine.profile, size)
        carried.append(most_per_s(profile, SMALL, load, watch))
        if carried[-1] <= 0:
            return None
        count = max(count, _fewest(profile, load, carried[-1], watch))
        if not watch.kv_short:
            break
    return count, _each(_with(machine.profile, sizes[0]), load, carried[0], count), sizes[0]


def _with(profile: Profile, kv_cache_tokens: int) -> Profile:
    return msgspec.structs.replace(profile, kv_cache_tokens=kv_cache_tokens)


def fleets(machine: Machine, load: Load, *, floor: float, per_hour: float) -> Iterable[Fleet]:
    """Fleets of one kind of machine: on demand alone, and with spot above a floor where there is a price for it.

    Args:
        machine: kind.
        load: to carry.
        floor: share of the needed replicas that must be on demand, 0-1.
        per_hour: interruptions of a spot replica in an hour.
    """
    found = _worst(machine, load)
    if found is None:
        return
    count = found[0]
    if machine.price.on_demand is not None:
        yield _fleet(machine, load, found, on_demand=count, spot=0)
    if machine.price.spot is not None and (machine.price.on_demand is not None or floor == 0):
        kept = math.ceil(floor * count)
        risky = count - kept
        if risky:
            more = spare(risky, per_hour, machine.profile.startup_s)
            yield _fleet(machine, load, found, on_demand=kept, spot=risky + more)


def _fleet(machine: Machine, load: Load, found: tuple[int, float, int], *, on_demand: int, spot: int) -> Fleet:
    count, each, kv_cache_tokens = found
    per_machine = max(1, machine.price.gpus // machine.gpus)
    here, there = math.ceil(on_demand / per_machine), math.ceil(spot / per_machine)
    hour = here * (machine.price.on_demand or 0.0) + there * (machine.price.spot or 0.0)
    return Fleet(
        instance_type=machine.price.instance_type,
        replicas=on_demand + spot,
        needed=count,
        on_demand=here,
        spot=there,
        per_replica=each,
        kv_cache_tokens=kv_cache_tokens,
        cost_per_hour=hour,
        cost_per_million=hour / (load.tokens_per_s * HOUR_S) * 1e6,
    )
