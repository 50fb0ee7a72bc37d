"""The policy that the configuration means."""

from __future__ import annotations

from inferdock.autoscale.figures import KV_CACHE, REQUESTS
from inferdock.autoscale.policy import Behavior, MetricType, Policy, Rate, Select, Target, Unit
from inferdock.config.settings import AutoscalingSettings, ScaleDownSettings, ScaleUpSettings
from inferdock.domain.errors import ConfigError


def policy_of(settings: AutoscalingSettings) -> Policy:
    """Translate it.

    Raises:
        ConfigError: bounds that contradict each other.
    """
    targets = [Target(metric=REQUESTS, type=MetricType.AVERAGE_VALUE, value=settings.requests_per_replica)]
    if settings.kv_cache_usage is not None:
        targets.append(Target(metric=KV_CACHE, type=MetricType.VALUE, value=settings.kv_cache_usage, activation=1.0))
    try:
        return Policy(
            min_replicas=settings.min_replicas,
            max_replicas=settings.max_replicas,
            targets=tuple(targets),
            up=_behavior(settings.scale_up),
            down=_behavior(settings.scale_down),
            tolerance=settings.tolerance,
            idle_s=settings.idle_s,
            fallback=settings.fallback_replicas,
        )
    except ValueError as exc:
        raise ConfigError(f"The autoscaling cannot work: {exc}.", cure="Change the group `autoscaling`.") from exc


def _behavior(settings: ScaleUpSettings | ScaleDownSettings) -> Behavior:
    rates = tuple(Rate(unit=Unit(rate.type), value=rate.value, period_s=rate.period_s) for rate in settings.policies)
    return Behavior(window_s=settings.stabilization_window_s, rates=rates, select=Select(settings.select_policy))
