"""What is simulated, and what comes of it."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from math import isfinite, nan

from inferdock.autoscale.policy import SYNC_S, Policy
from inferdock.simulation.profile import Profile

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """Machines that may be taken away.

    Attributes:
        per_hour: interruptions of one replica in an hour, on average; they come by chance, without memory.
        notice_s: from the warning to the end; AWS gives 120 s.
        on_demand: replicas that are never interrupted: the floor.
        price_share: of the on-demand price.
        at: seconds at which one machine is taken away for certain, that which has served longest: a day that was.
    """

    per_hour: float = 0.02
    notice_s: float = 120.0
    on_demand: int = 0
    price_share: float = 0.35
    at: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for name, value in (
            ("per_hour", self.per_hour),
            ("notice_s", self.notice_s),
            ("price_share", self.price_share),
            *(("at", seconds) for seconds in self.at),
        ):
            if not (isfinite(value) and value >= 0):
                raise ValueError(f"`{name}` is {value}, not a number >= 0")
        if self.on_demand < 0:
            raise ValueError(f"`on_demand` is {self.on_demand}, below 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A fleet and its rules.

    Attributes:
        profile: of each replica.
        replicas: at the start, ready at once.
        policy: of the autoscaler; None: the number stays.
        sync_s: seconds between its looks.
        figures_age_s: how old the figures are that it sees: scrape and poll intervals.
        drain_timeout_s: what a replica that is taken away may finish; the rest goes on elsewhere.
        spot: interruptions; None: none.
        price_per_hour: of a replica, on demand; 0: costs are not counted.
        ttft_slo_s, tpot_slo_s: a request within both is good.
        sample_s: seconds between two rows of the history.
        seed: of chance.
    """

    profile: Profile
    replicas: int = 1
    policy: Policy | None = None
    sync_s: float = SYNC_S
    figures_age_s: float = 0.0
    drain_timeout_s: float = 60.0
    spot: Spot | None = None
    price_per_hour: float = 0.0
    ttft_slo_s: float = 0.5
    tpot_slo_s: float = 0.05
    sample_s: float = 15.0
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse fleets in which nothing would ever be answered."""
        if self.replicas < (0 if self.policy is not None else 1):
            raise ValueError(f"{self.replicas} replicas answer nothing")
        for name in ("sync_s", "sample_s"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"`{name}` must be above 0")


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of the history.

    Attributes:
        at: seconds from the start.
        wanted, ready: replicas.
        running, waiting, held: requests in engines, in engines' queues, and in the gateway while nothing is ready.
    """

    at: float
    wanted: int
    ready: int
    running: int
    waiting: int
    held: int


@dataclass(frozen=True, slots=True)
class Action:
    """The autoscaler changed the number of replicas, or a machine went."""

    at: float
    replicas: int
    reason: str


@dataclass(slots=True)
class Result:
    """What came of it.

    Attributes:
        asked, answered: requests; the rest had no answer when the simulation was ended.
        good: answered within both objectives.
        moved: requests that went on at another replica.
        prompt_tokens, output_tokens: of answered requests.
        ttft: seconds, one for each answered request, in order of the end.
        tpot: seconds, for each with at least two tokens.
        history: samples in order.
        actions: of the autoscaler.
        replica_s, spot_s: seconds of replicas that were paid for: all, and those on machines that may go.
        cost: in the unit of the price.
        duration_s: until the last answer.
        kv_short: a request had to wait for room in a KV cache; else, without a policy, larger ones change nothing.
    """

    asked: int = 0
    answered: int = 0
    good: int = 0
    moved: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    ttft: array[float] = field(default_factory=lambda: array("d"))
    tpot: array[float] = field(default_factory=lambda: array("d"))
    history: list[Sample] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    replica_s: float = 0.0
    spot_s: float = 0.0
    cost: float = 0.0
    duration_s: float = 0.0
    kv_short: bool = False

    @property
    def most_replicas(self) -> int:
        """The most that were wanted at once."""
        return max((sample.wanted for sample in self.history), default=0)

    @property
    def mean_replicas(self) -> float:
        """Replicas that were paid for, on average."""
        return self.replica_s / self.duration_s if self.duration_s else nan

    @property
    def goodput_per_s(self) -> float:
        """Good requests per second."""
        return self.good / self.duration_s if self.duration_s else nan

    @property
    def cost_per_million(self) -> float:
        """Of tokens, prompts and answers together; NaN where nothing was answered."""
        tokens = self.prompt_tokens + self.output_tokens
        return self.cost / tokens * 1e6 if tokens else nan
