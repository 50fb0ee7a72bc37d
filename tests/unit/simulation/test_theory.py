"""The simulation against queues whose answers are known in closed form."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest

from inferdock.simulation.profile import Profile, Step
from inferdock.simulation.scenario import Scenario
from inferdock.simulation.traffic import Asked, Lengths, poisson
from inferdock.simulation.world import simulate

SECOND = 0.01
"""For a token."""


def exponential(rate: float, requests: int, mean_tokens: float, seed: int) -> Iterator[Asked]:
    rng, at = random.Random(seed), 0.0
    for _ in range(requests):
        at += rng.expovariate(rate)
        yield Asked(at, 0, max(1, math.ceil(rng.expovariate(1 / mean_tokens))))


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_shared_server_is_an_m_g_1_processor_sharing_queue(load: float) -> None:
    """Mean time in the system is that of the work alone over 1 - load (Kleinrock II, 4.4), whatever the lengths."""
    profile = Profile(steps=(Step(1, SECOND), Step(10_000, 10_000 * SECOND)), max_num_seqs=10_000)
    lengths = Lengths(prompt=1, output=50, spread=0.5)
    mean_work = 50 * math.exp(0.5**2 / 2) * SECOND
    rate = load / mean_work
    seen = list(poisson(lambda _: rate, rate, 15_000 / rate, lengths, random.Random(3)))
    work = sum(one.output for one in seen) / len(seen) * SECOND
    assert _mean_sojourn(profile, seen) == pytest.approx(work / (1 - rate * work), rel=0.1)


def _mean_sojourn(profile: Profile, seen: list[Asked]) -> float:
    """By Little's law, from the mean number in the system at times that are sampled often."""
    result = simulate(Scenario(profile=profile, sample_s=0.05), seen)
    in_system = sum(sample.running + sample.waiting for sample in result.history) / len(result.history)
    return in_system / (len(seen) / result.duration_s)


def test_places_without_interference_are_an_m_m_c_queue() -> None:
    """Erlang's C: the mean wait for one of c places."""
    places, mean_tokens, load = 4, 100.0, 0.8
    service = mean_tokens * SECOND
    rate = load * places / service
    profile = Profile(steps=(Step(1, SECOND),), max_num_seqs=places)
    result = simulate(Scenario(profile=profile), exponential(rate, 30_000, mean_tokens, seed=5))
    offered = load * places
    below = sum(offered**k / math.factorial(k) for k in range(places))
    last = offered**places / math.factorial(places) / (1 - load)
    wait = last / (below + last) * service / (places * (1 - load))
    waited = sum(result.ttft) / len(result.ttft) - SECOND
    assert waited == pytest.approx(wait, rel=0.1)


def test_an_idle_replica_needs_overhead_prompt_and_tokens() -> None:
    profile = Profile(steps=(Step(1, 0.02),), prefill_s_per_token=0.001, overhead_s=0.05)
    result = simulate(Scenario(profile=profile), [Asked(1.0, 100, 11)])
    assert result.ttft[0] == pytest.approx(0.05 + 0.1 + 0.02)
    assert result.tpot[0] == pytest.approx(0.02)
    assert result.duration_s == pytest.approx(1 + 0.17 + 0.2)


def test_a_full_kv_cache_makes_requests_wait() -> None:
    profile = Profile(steps=(Step(1, 0.01),), kv_cache_tokens=100)
    result = simulate(Scenario(profile=profile), [Asked(0, 40, 20), Asked(0, 40, 20)])
    assert sorted(result.ttft) == pytest.approx([0.01, 0.21])


def test_what_never_fits_runs_alone() -> None:
    profile = Profile(steps=(Step(1, 0.01),), kv_cache_tokens=100)
    assert simulate(Scenario(profile=profile), [Asked(0, 400, 20), Asked(0, 4, 2)]).answered == 2
