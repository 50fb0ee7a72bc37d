"""What an autoscaler is told: bounds, targets, and how fast replicas may come and go.

The words and their meaning are those of `autoscaling/v2` (HorizontalPodAutoscaler) and of KEDA's ScaledObject, so that
one policy means the same here and on a cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import Final

TOLERANCE: Final = 0.1
"""`--horizontal-pod-autoscaler-tolerance`: how far a figure may be from its target before anything happens."""
SYNC_S: Final = 15.0
"""`--horizontal-pod-autoscaler-sync-period`."""


class MetricType(StrEnum):
    """How a figure is compared with its target."""

    AVERAGE_VALUE = "AverageValue"
    """The figure is a sum over all replicas; its share per replica is to be the target."""
    VALUE = "Value"
    """The figure itself is to be the target, and changes in inverse proportion to the number of replicas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One figure and where it should be.

    Attributes:
        metric: name of the figure.
        type: how it is compared.
        value: the target, > 0.
        activation: above this, there is something to do: replicas come back from zero.
    """

    metric: str
    type: MetricType
    value: float
    activation: float = 0.0

    def __post_init__(self) -> None:
        """Refuse targets that cannot be met."""
        if not (isfinite(self.value) and self.value > 0):
            raise ValueError(f"the target of {self.metric} is {self.value}, not a number above 0")
        if not (isfinite(self.activation) and self.activation >= 0):
            raise ValueError(f"the activation of {self.metric} is {self.activation}, not a number >= 0")


class Unit(StrEnum):
    """What the value of a rate counts."""

    PODS = "Pods"
    PERCENT = "Percent"


class Select(StrEnum):
    """Which of several rates counts."""

    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """At most so many replicas, or so much of them, in each period.

    Attributes:
        unit: of ``value``.
        value: replicas, or percent, > 0.
        period_s: seconds, > 0 and at most 1800.
    """

    unit: Unit
    value: int
    period_s: float

    def __post_init__(self) -> None:
        """Refuse what Kubernetes refuses."""
        if self.value <= 0:
            raise ValueError(f"a rate of {self.value} replicas changes nothing; it must be above 0")
        if not 0 < self.period_s <= 1800:
            raise ValueError(f"the period of a rate is {self.period_s} s; it must be above 0 and at most 1800")


@dataclass(frozen=True, slots=True, kw_only=True)
class Behavior:
    """How fast one direction may be.

    Attributes:
        window_s: `stabilizationWindowSeconds`: the most careful wish of so long counts.
        rates: limits; none: no limit.
        select: which rate counts where there are several.
    """

    window_s: float = 0.0
    rates: tuple[Rate, ...] = ()
    select: Select = Select.MAX

    def __post_init__(self) -> None:
        """Refuse what Kubernetes refuses."""
        if not 0 <= self.window_s <= 3600:
            raise ValueError(f"a stabilisation window of {self.window_s} s is not within 0-3600")


UP: Final = Behavior(window_s=30.0, rates=(Rate(unit=Unit.PODS, value=2, period_s=30.0),))
"""The plan's: half a minute, then two replicas in half a minute."""
DOWN: Final = Behavior(window_s=300.0, rates=(Rate(unit=Unit.PODS, value=1, period_s=60.0),))
"""Five minutes, then one replica in a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """All that an autoscaler is told.

    Attributes:
        min_replicas: never fewer; 0 lets an idle model go to sleep.
        max_replicas: never more.
        targets: at least one; the one that wants most replicas counts.
        up, down: how fast.
        tolerance: share of the target.
        idle_s: KEDA's `cooldownPeriod`: from the last activity until the last replica goes, where the least is 0.
        fallback: KEDA's: replicas while figures have been missing for ``fallback_after`` looks in a row; None: as many
            as there are.
        fallback_after: looks.
    """

    min_replicas: int = 1
    max_replicas: int
    targets: tuple[Target, ...]
    up: Behavior = UP
    down: Behavior = DOWN
    tolerance: float = TOLERANCE
    idle_s: float = 300.0
    fallback: int | None = None
    fallback_after: int = 3

    def __post_init__(self) -> None:
        """Refuse bounds that contradict each other."""
        if not 0 <= self.min_replicas <= self.max_replicas or self.max_replicas < 1:
            raise ValueError(f"{self.min_replicas} to {self.max_replicas} replicas is no range with a replica in it")
        if not self.targets:
            raise ValueError("an autoscaler needs a target")
        if len({target.metric for target in self.targets}) != len(self.targets):
            raise ValueError("two targets have the same metric")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"a tolerance of {self.tolerance} is not within 0-1")
        if self.fallback is not None and self.fallback < 0:
            raise ValueError(f"a fallback of {self.fallback} replicas is below 0")
