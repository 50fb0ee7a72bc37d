"""The cost model: GPU time that was paid for, divided among the tokens that it gave. Pure.

The rule, argued in docs/cost.md: what a revision's replicas cost while they worked is divided among the tokens of that
revision by their work (:class:`~inferdock.cost.usage.Weights`). What they cost while they started or had nothing to do
stands apart, and is shown to each tenant of the revision in the same proportion.

The laws, which tests keep: the parts of a bill add up to what was paid, exactly. To divide a capacity or a usage in two
changes nothing. Bills add up: each amount of a sum is the sum of the amounts. No amount is negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from inferdock.cost.amounts import HOUR_S, ZERO, per_million
from inferdock.cost.usage import NO_TOKENS, Capacity, Purchase, Tokens, Usage, Weights

Revision = tuple[str, str]
"""Model and revision."""
Line = tuple[str, str, str]
"""Model, revision and tenant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What one tenant's tokens of one revision cost, in dollars.

    Attributes:
        tokens, spared: as in :class:`~inferdock.cost.usage.Usage`.
        prompt, cached, output: GPU time of these tokens.
        overhead: the part of the revision's start-up and idle time that falls to them in proportion.
        saved_by_prefix_cache: what reading the cached prompt tokens would have cost more.
        saved_by_response_cache: what the spared tokens would have cost, at this window's price of work.
        unpriced: spared tokens whose worth is not known, since no engine worked in their window.
    """

    tokens: Tokens = NO_TOKENS
    spared: Tokens = NO_TOKENS
    prompt: Fraction = ZERO
    cached: Fraction = ZERO
    output: Fraction = ZERO
    overhead: Fraction = ZERO
    saved_by_prefix_cache: Fraction = ZERO
    saved_by_response_cache: Fraction = ZERO
    unpriced: int = 0

    @property
    def work(self) -> Fraction:
        """GPU time of all its tokens."""
        return self.prompt + self.cached + self.output

    @property
    def total(self) -> Fraction:
        """With its part of what stands apart."""
        return self.work + self.overhead

    def __add__(self, other: Use) -> Use:
        """Both together."""
        return Use(**{name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What the replicas of one revision cost, in dollars.

    Attributes:
        starting, idle: while they could not work, and while there was nothing to do.
        busy: while they worked.
        unassigned: of ``busy``, what no token was counted for (all requests failed, or nobody counted).
        unshared: of ``starting``, ``idle`` and ``unassigned``, what no tenant's use bears.
        by_purchase: all of it, by how it was paid.
        on_demand: what all of it would have cost on demand; of what is not known, what was paid.
        seconds: time of whole machines.
    """

    starting: Fraction = ZERO
    idle: Fraction = ZERO
    busy: Fraction = ZERO
    unassigned: Fraction = ZERO
    unshared: Fraction = ZERO
    by_purchase: Mapping[Purchase, Fraction] = field(default_factory=dict)
    on_demand: Fraction = ZERO
    seconds: Fraction = ZERO

    @property
    def total(self) -> Fraction:
        """What was paid."""
        return self.starting + self.idle + self.busy

    def __add__(self, other: Held) -> Held:
        """Both together."""
        kinds = {**self.by_purchase, **other.by_purchase}
        return Held(
            starting=self.starting + other.starting,
            idle=self.idle + other.idle,
            busy=self.busy + other.busy,
            unassigned=self.unassigned + other.unassigned,
            unshared=self.unshared + other.unshared,
            by_purchase={k: self.by_purchase.get(k, ZERO) + other.by_purchase.get(k, ZERO) for k in kinds},
            on_demand=self.on_demand + other.on_demand,
            seconds=self.seconds + other.seconds,
        )


@dataclass(frozen=True, slots=True)
class Bill:
    """What was paid in a window, and for what.

    Attributes:
        uses: by model, revision and tenant.
        held: by model and revision.
    """

    uses: Mapping[Line, Use] = field(default_factory=dict)
    held: Mapping[Revision, Held] = field(default_factory=dict)

    def __add__(self, other: Bill) -> Bill:
        """The bill of both windows: amounts and tokens add up."""
        return Bill(
            uses={k: self.uses.get(k, Use()) + other.uses.get(k, Use()) for k in {**self.uses, **other.uses}},
            held={k: self.held.get(k, Held()) + other.held.get(k, Held()) for k in {**self.held, **other.held}},
        )

    def of(self, *, model: str | None = None, revision: str | None = None) -> Bill:
        """Only what belongs to a model, a revision, or both."""

        def belongs(key: tuple[str, ...]) -> bool:
            return model in (None, key[0]) and revision in (None, key[1])

        return Bill(
            uses={key: use for key, use in self.uses.items() if belongs(key)},
            held={key: held for key, held in self.held.items() if belongs(key)},
        )

    @property
    def use(self) -> Use:
        """All uses together."""
        return sum(self.uses.values(), Use())

    @property
    def paid(self) -> Held:
        """All revisions together."""
        return sum(self.held.values(), Held())


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPrices:
    """Dollars for a million tokens; None without such tokens: no data, which is not zero dollars.

    Attributes:
        blended: everything that was paid, over all tokens that engines read and wrote.
        output: the same, over the output tokens alone.
        with_cache: the same, over all tokens that clients got, those of the response cache among them.
        working: only what was paid while replicas worked, over the tokens of ``blended``: what is left without
            start-up and idle time.
        prompt_token, cached_token, output_token: what a token of each kind costs while replicas work.
    """

    blended: Fraction | None
    output: Fraction | None
    with_cache: Fraction | None
    working: Fraction | None
    prompt_token: Fraction | None
    cached_token: Fraction | None
    output_token: Fraction | None


def unit_prices(use: Use, total: Fraction, *, known: bool = True) -> UnitPrices:
    """Prices of a million tokens.

    Args:
        use: the tokens, and what they cost.
        total: dollars that were paid for them, start-up and idle time included.
        known: somebody told the time of replicas; without it tokens are not free, but of unknown price.
    """
    if not known:
        return UnitPrices(**dict.fromkeys(UnitPrices.__dataclass_fields__))
    tokens = use.tokens
    return UnitPrices(
        blended=per_million(total, tokens.total),
        output=per_million(total, tokens.output),
        with_cache=per_million(total, tokens.total + use.spared.total),
        working=per_million(use.work, tokens.total),
        prompt_token=per_million(use.prompt, tokens.prompt),
        cached_token=per_million(use.cached, tokens.cached),
        output_token=per_million(use.output, tokens.output),
    )


def make_bill(capacities: Iterable[Capacity], usages: Iterable[Usage], weights: Weights) -> Bill:
    """Divide what was paid in one window among the tokens of that window.

    Args:
        capacities: in any order; several of one revision add up.
        usages: in any order; several of one tenant add up.
        weights: work of tokens.
    """
    held = _held(capacities)
    used = _used(usages)
    work: dict[Revision, Fraction] = {}
    for (model, revision, _), usage in used.items():
        work[model, revision] = work.get((model, revision), ZERO) + weights.work(usage.tokens)
    uses = {key: _use(usage, held, work, weights) for key, usage in used.items()}
    return Bill(uses=uses, held={key: _settled(one, work.get(key, ZERO)) for key, one in held.items()})


def _held(capacities: Iterable[Capacity]) -> dict[Revision, Held]:
    held: dict[Revision, Held] = {}
    for one in capacities:
        paid = one.dollars(one.seconds)
        known = one.on_demand_price is not None
        cost = Held(
            starting=one.dollars(one.starting),
            idle=one.dollars(one.idle),
            busy=one.dollars(one.busy),
            by_purchase={one.purchase: paid},
            on_demand=(one.on_demand_price or ZERO) * one.seconds / HOUR_S if known else paid,
            seconds=one.seconds,
        )
        key = (one.model, one.revision)
        held[key] = held.get(key, Held()) + cost
    return held


def _used(usages: Iterable[Usage]) -> dict[Line, Usage]:
    used: dict[Line, Usage] = {}
    for one in usages:
        key = (one.model, one.revision, one.tenant)
        known = used.get(key)
        if known is not None:
            one = Usage(
                model=one.model,
                revision=one.revision,
                tenant=one.tenant,
                tokens=known.tokens + one.tokens,
                spared=known.spared + one.spared,
            )
        used[key] = one
    return used


def _use(usage: Usage, held: Mapping[Revision, Held], work: Mapping[Revision, Fraction], weights: Weights) -> Use:
    """One tenant's part of a revision's costs."""
    key = (usage.model, usage.revision)
    cost, whole = held.get(key, Held()), work[key]
    price = cost.busy / whole if whole else None
    unit = price or ZERO
    tokens, spared = usage.tokens, usage.spared
    share = weights.work(tokens) / whole if whole else ZERO
    return Use(
        tokens=tokens,
        spared=spared,
        prompt=unit * weights.prompt * tokens.prompt,
        cached=unit * weights.cached * tokens.cached,
        output=unit * tokens.output,
        overhead=(cost.starting + cost.idle) * share,
        saved_by_prefix_cache=unit * (weights.prompt - weights.cached) * tokens.cached,
        saved_by_response_cache=unit * weights.work(spared),
        unpriced=0 if price else spared.total,
    )


def _settled(held: Held, work: Fraction) -> Held:
    """With what nobody's tokens bear, where there was no work."""
    if work:
        return held
    return held + Held(unassigned=held.busy, unshared=held.total)
