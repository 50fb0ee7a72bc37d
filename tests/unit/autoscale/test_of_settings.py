"""The configuration's words, and what they become."""

from __future__ import annotations

import pytest

from inferdock.autoscale.figures import KV_CACHE, REQUESTS
from inferdock.autoscale.of_settings import policy_of
from inferdock.autoscale.policy import DOWN, UP, Policy
from inferdock.config.settings import AutoscalingSettings
from inferdock.domain.errors import ConfigError


def test_the_defaults_are_the_same_in_both_places() -> None:
    policy = policy_of(AutoscalingSettings())
    bare = Policy(max_replicas=4, targets=policy.targets)
    assert policy == bare
    assert (policy.up, policy.down) == (UP, DOWN)
    assert [(t.metric, t.value) for t in policy.targets] == [(REQUESTS, 16.0), (KV_CACHE, 0.85)]


def test_the_kv_cache_may_be_left_out() -> None:
    assert len(policy_of(AutoscalingSettings(kv_cache_usage=None)).targets) == 1


def test_contradicting_bounds_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 to 2 replicas"):
        policy_of(AutoscalingSettings(min_replicas=3, max_replicas=2))
