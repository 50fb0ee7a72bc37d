"""What goes into a bill: tokens of tenants, GPU time of revisions, and how much work a token is. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from inferdock.cost.amounts import HOUR_S, ZERO, count, exact


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Numbers of tokens by the work that they are.

    Attributes:
        prompt: of prompts, that the engine had to read.
        cached: of prompts, that the engine's prefix cache already held.
        output: that were written.
    """

    prompt: int = 0
    cached: int = 0
    output: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no count."""
        for what in ("prompt", "cached", "output"):
            count(getattr(self, what), f"the number of {what} tokens")

    def __add__(self, other: Tokens) -> Tokens:
        """Both together."""
        return Tokens(
            prompt=self.prompt + other.prompt, cached=self.cached + other.cached, output=self.output + other.output
        )

    @property
    def total(self) -> int:
        """All of them."""
        return self.prompt + self.cached + self.output


NO_TOKENS = Tokens()


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """GPU work of one token, with that of an output token as 1.

    Attributes:
        prompt: of a prompt token that is read. Depends on model, GPU and batch, and can be measured: docs/cost.md.
        cached: of a prompt token that the prefix cache holds.
    """

    prompt: Fraction = Fraction(1, 4)
    cached: Fraction = Fraction(1, 40)

    @classmethod
    def of(cls, prompt: float, cached: float) -> Weights:
        """From figures that people give.

        Raises:
            ValueError: a weight is negative or no number, or a cached token is more work than one that is read.
        """
        if cached > prompt:
            raise ValueError("a cached prompt token cannot be more work than one that is read")
        return cls(
            prompt=exact(prompt, "the weight of prompt tokens"), cached=exact(cached, "the weight of cached tokens")
        )

    @classmethod
    def measured(cls, *, prompt_tokens_per_s: float, output_tokens_per_s: float, cached: float = 0.1) -> Weights:
        """From the two speeds of a full engine.

        Args:
            prompt_tokens_per_s: read, while it does nothing but read prompts.
            output_tokens_per_s: written, while it does nothing but write, at the batch that is usual.
            cached: work of a cached prompt token, as a share of one that is read, 0-1.

        Raises:
            ValueError: a speed is 0, negative or no number.
        """
        reading = exact(prompt_tokens_per_s, "the speed of reading")
        writing = exact(output_tokens_per_s, "the speed of writing")
        if not reading or not writing:
            raise ValueError("a speed of 0 tokens a second says nothing")
        prompt = writing / reading
        return cls(prompt=prompt, cached=prompt * min(exact(cached, "the share of cached tokens"), Fraction(1)))

    def work(self, tokens: Tokens) -> Fraction:
        """GPU work, in output tokens."""
        return self.prompt * tokens.prompt + self.cached * tokens.cached + tokens.output


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one tenant used of one revision.

    Attributes:
        tenant: "" where keys are not checked.
        tokens: that an engine worked for.
        spared: that the response cache gave, so that no engine had to work.
    """

    model: str
    revision: str
    tenant: str = ""
    tokens: Tokens = NO_TOKENS
    spared: Tokens = NO_TOKENS


class Purchase(StrEnum):
    """How a machine is paid for."""

    ON_DEMAND = "on_demand"
    SPOT = "spot"
    GIVEN = "given"
    """At a price that the person gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """GPU time of one revision that was paid for at one price.

    Times are in seconds of a whole machine: a replica with 1 of 4 GPUs for 100 s is 25 s.

    Attributes:
        price: dollars for an hour of the machine, as paid.
        on_demand_price: the same on demand; None where it is not known.
        starting: time in which it could not take requests yet, or could not any more.
        idle: time in which it could, and there was none.
        busy: time in which it worked on at least one.
    """

    model: str
    revision: str
    purchase: Purchase
    price: Fraction
    on_demand_price: Fraction | None = None
    starting: Fraction = ZERO
    idle: Fraction = ZERO
    busy: Fraction = ZERO

    def __post_init__(self) -> None:
        """Refuse what is no time and no price."""
        for what in ("price", "starting", "idle", "busy"):
            exact(getattr(self, what), what)
        if self.on_demand_price is not None:
            exact(self.on_demand_price, "the price on demand")

    @property
    def seconds(self) -> Fraction:
        """All time."""
        return self.starting + self.idle + self.busy

    def dollars(self, seconds: Fraction) -> Fraction:
        """What that much of its time cost."""
        return self.price * seconds / HOUR_S
