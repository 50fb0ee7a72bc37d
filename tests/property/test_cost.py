"""Laws of bills and counters: parts add up to the whole, sums are sums, nothing is negative, nonsense never passes."""

import json
import math
from fractions import Fraction

import hypothesis.strategies as st
import pytest
from hypothesis import given

from inferdock.cost.amounts import divided
from inferdock.cost.bill import Bill, make_bill, unit_prices
from inferdock.cost.observed import KINDS, STATES, observe
from inferdock.cost.prometheus_api import HEARTBEAT, assemble, read_matrix
from inferdock.cost.rates import OneMachine
from inferdock.cost.report import document
from inferdock.cost.series import Series, growth
from inferdock.cost.usage import Capacity, Purchase, Tokens, Usage, Weights
from inferdock.domain.errors import UnreachableError
from inferdock.telemetry import names

MODELS, REVISIONS, TENANTS = st.sampled_from("mn"), st.sampled_from(["r1", "r2"]), st.sampled_from(["", "a", "b"])
COUNTS = st.integers(0, 10**9)
SECONDS = st.floats(0, 1e6).map(Fraction)
DOLLARS = st.floats(0, 100).map(Fraction)
TOKENS = st.builds(Tokens, prompt=COUNTS, cached=COUNTS, output=COUNTS)
USAGES = st.builds(Usage, model=MODELS, revision=REVISIONS, tenant=TENANTS, tokens=TOKENS, spared=TOKENS)
CAPACITIES = st.builds(
    Capacity,
    model=MODELS,
    revision=REVISIONS,
    purchase=st.sampled_from(Purchase),
    price=DOLLARS,
    on_demand_price=st.none() | DOLLARS,
    starting=SECONDS,
    idle=SECONDS,
    busy=SECONDS,
)
WEIGHTS = st.tuples(st.floats(0, 10), st.floats(0, 1)).map(lambda pair: Weights.of(pair[0], pair[0] * pair[1]))
WINDOWS = st.tuples(st.lists(CAPACITIES, max_size=6), st.lists(USAGES, max_size=6))
ANY_FLOAT = st.floats() | st.floats(-10, 1e6)
POINTS = st.lists(st.tuples(ANY_FLOAT, ANY_FLOAT), max_size=12)


@given(WINDOWS, WEIGHTS)
def test_the_parts_of_a_bill_add_up_to_what_was_paid(window, weights):
    capacities, usages = window
    bill = make_bill(capacities, usages, weights)
    paid = sum((one.dollars(one.seconds) for one in capacities), Fraction(0))
    assert bill.paid.total == paid
    assert bill.use.total + bill.paid.unshared == paid
    assert sum(bill.paid.by_purchase.values()) == paid
    assert bill.use.tokens == sum((one.tokens for one in usages), Tokens())


@given(WINDOWS, WEIGHTS)
def test_no_amount_is_negative_and_no_traffic_has_no_price(window, weights):
    bill = make_bill(*window, weights)
    for part in (*bill.uses.values(), bill.use):
        amounts = (part.prompt, part.cached, part.output, part.overhead)
        assert min(*amounts, part.saved_by_prefix_cache, part.saved_by_response_cache, part.unpriced) >= 0
        prices = unit_prices(part, part.total)
        assert (prices.blended is None) == (part.tokens.total == 0)
        assert (prices.output is None) == (part.tokens.output == 0)


@given(WINDOWS, WEIGHTS, st.fractions(0, 1), st.randoms())
def test_to_divide_and_to_shuffle_changes_nothing(window, weights, share, random):
    capacities, usages = window
    pieces = [piece for one in capacities for piece in _cut_time(one, share)]
    uses = [piece for one in usages for piece in _cut_use(one, share)]
    random.shuffle(pieces)
    random.shuffle(uses)
    whole, cut = make_bill(capacities, usages, weights), make_bill(pieces, uses, weights)
    assert (cut.uses, cut.held) == (whole.uses, whole.held)


def _cut_time(one: Capacity, share: Fraction) -> list[Capacity]:
    def piece(part: Fraction) -> Capacity:
        return Capacity(
            model=one.model,
            revision=one.revision,
            purchase=one.purchase,
            price=one.price,
            on_demand_price=one.on_demand_price,
            starting=one.starting * part,
            idle=one.idle * part,
            busy=one.busy * part,
        )

    return [piece(share), piece(1 - share)]


def _cut_use(one: Usage, share: Fraction) -> list[Usage]:
    def cut(tokens: Tokens) -> tuple[Tokens, Tokens]:
        first = {kind: int(getattr(tokens, kind) * share) for kind in ("prompt", "cached", "output")}
        return Tokens(**first), Tokens(**{kind: getattr(tokens, kind) - count for kind, count in first.items()})

    pairs = zip(cut(one.tokens), cut(one.spared), strict=True)
    return [
        Usage(model=one.model, revision=one.revision, tenant=one.tenant, tokens=tokens, spared=spared)
        for tokens, spared in pairs
    ]


@given(WINDOWS, WINDOWS, WINDOWS, WEIGHTS)
def test_the_cost_of_a_sum_is_the_sum_of_costs(first, second, third, weights):
    a, b, c = (make_bill(*window, weights) for window in (first, second, third))
    both = a + b
    assert both.paid.total == a.paid.total + b.paid.total
    assert both.use == a.use + b.use
    assert both == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Bill() == a
    assert sum((both.of(model=model).paid.total for model in "mn"), Fraction(0)) == both.paid.total


@given(WINDOWS, WEIGHTS)
def test_documents_hold_numbers_only(window, weights):
    bill = make_bill(*window, weights)
    text = json.dumps(document(bill, elapsed=Fraction(60), weights=weights, notes=[]), allow_nan=False)
    assert json.loads(text)["total"]["dollars"] == pytest.approx(float(bill.paid.total), rel=1e-9, abs=1e-9)


@given(st.integers(0, 10**18), st.lists(st.integers(0, 10**12), min_size=1, max_size=10))
def test_whole_numbers_are_divided_exactly(total, shares):
    parts = divided(total, shares)
    assert sum(parts) == total
    if sum(shares):
        exact = [Fraction(total * share, sum(shares)) for share in shares]
        assert all(abs(part - wanted) < 1 for part, wanted in zip(parts, exact, strict=True))


@given(POINTS, st.booleans())
def test_a_counter_never_shrinks_whatever_it_says(points, from_zero):
    found = growth(Series("x", {}, points, from_zero))
    assert found.amount >= 0
    assert math.isfinite(float(found.amount))
    assert found.ignored <= len(points)


@given(st.lists(st.integers(0, 10**12), min_size=2, max_size=20), st.data())
def test_growth_of_neighbouring_windows_adds_up(values, data):
    points = [(float(at), float(value)) for at, value in enumerate(values)]
    cut = data.draw(st.integers(0, len(points) - 1))
    halves = growth(Series("x", {}, points[: cut + 1])).amount + growth(Series("x", {}, points[cut:])).amount
    assert halves == growth(Series("x", {}, points)).amount


SERIES = st.builds(
    Series,
    st.sampled_from([names.TENANT_TOKENS, names.REPLICA_SECONDS, names.ENGINE_PREFIX_HITS, "other_total"]),
    st.fixed_dictionaries(
        {"model": MODELS, "revision": REVISIONS},
        optional={
            "tenant": TENANTS,
            "kind": st.sampled_from([*KINDS, "odd"]),
            "state": st.sampled_from([*STATES, "odd"]),
            "instance": st.sampled_from(["g1", "g2"]),
        },
    ),
    POINTS,
    st.booleans(),
)


@given(st.lists(SERIES, max_size=12), st.lists(SERIES, max_size=4), st.floats(0, 1e6), st.integers(0, 5))
def test_hostile_counters_end_in_a_bill_that_adds_up(gateway, engines, elapsed, replicas):
    seen = observe(gateway, engines)
    machine = OneMachine(Fraction(2))
    capacities = machine.capacities(seen.times, Fraction(elapsed), replicas)
    bill = make_bill(capacities, seen.usages, Weights())
    assert bill.use.total + bill.paid.unshared == bill.paid.total
    assert bill.paid.total == (Fraction(elapsed) * 2 / 3600 if elapsed else 0)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(str))
def test_rubbish_is_no_answer_of_prometheus(raw):
    data = raw if isinstance(raw, bytes) else raw.encode("utf-8", "surrogatepass")
    with pytest.raises(UnreachableError):
        read_matrix(data, "x_total")


@given(st.lists(SERIES, max_size=8), st.lists(st.builds(Series, st.just(HEARTBEAT), st.just({}), POINTS), max_size=3))
def test_windows_of_prometheus_have_a_length_of_0_or_more(series, beats):
    answers: dict[str, list[Series]] = {HEARTBEAT: beats}
    for one in series:
        answers.setdefault(one.name, []).append(one)
    finite = all(math.isfinite(at) for beat in beats for at, _ in beat.points)
    if finite:
        assert assemble(answers).elapsed >= 0
