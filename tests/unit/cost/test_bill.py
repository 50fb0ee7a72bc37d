"""The cost model on figures that can be checked by hand."""

from fractions import Fraction

import pytest

from inferdock.cost.amounts import divided, exact, per_million
from inferdock.cost.bill import Bill, Use, make_bill, unit_prices
from inferdock.cost.usage import Capacity, Purchase, Tokens, Usage, Weights

QUARTER = Weights.of(0.25, 0.025)


def capacity(
    revision: str = "r1", price: float = 3.6, purchase: Purchase = Purchase.GIVEN, **seconds: float
) -> Capacity:
    """3.60 dollars an hour: 0.001 dollars a second."""
    times = {name: Fraction(value) for name, value in seconds.items()}
    return Capacity(model="m", revision=revision, purchase=Purchase.GIVEN, price=Fraction(price), **times)


def usage(tenant: str = "", revision: str = "r1", spared: Tokens | None = None, **tokens: int) -> Usage:
    return Usage(model="m", revision=revision, tenant=tenant, tokens=Tokens(**tokens), spared=spared or Tokens())


def close(value: Fraction | None, wanted: float) -> bool:
    return value is not None and float(value) == pytest.approx(wanted, rel=1e-12)


def test_working_time_is_divided_by_work_and_the_rest_stands_apart():
    bill = make_bill([capacity(starting=10, idle=30, busy=60)], [usage(prompt=4000, output=1000)], QUARTER)
    use, paid = bill.use, bill.paid
    assert close(use.prompt, 0.03)  # 4000 prompt tokens are as much work as 1000 of output
    assert close(use.output, 0.03)
    assert close(use.overhead, 0.04)
    assert (close(paid.starting, 0.01), close(paid.idle, 0.03), close(paid.busy, 0.06)) == (True, True, True)


def test_prices_of_a_million_tokens():
    spared = Tokens(prompt=2000, output=3000)
    bill = make_bill([capacity(idle=40, busy=60)], [usage(prompt=4000, output=1000, spared=spared)], QUARTER)
    prices = unit_prices(bill.use, bill.paid.total)
    assert close(prices.blended, 0.1 / 5000 * 1e6)
    assert close(prices.output, 0.1 / 1000 * 1e6)
    assert close(prices.with_cache, 0.1 / 10_000 * 1e6)
    assert close(prices.working, 0.06 / 5000 * 1e6)
    assert close(prices.output_token, 0.03 / 1000 * 1e6)
    assert prices.cached_token is None


def test_what_caches_saved_is_worth_what_the_work_would_have_cost():
    tokens = usage(prompt=4000, cached=8000, output=1000, spared=Tokens(prompt=400, output=100))
    bill = make_bill(
        [capacity(busy=2.2)], [tokens], QUARTER
    )  # work: 1000 + 200 + 1000 output tokens, 1e-6 dollars each
    assert close(bill.use.saved_by_prefix_cache, 8000 * 0.225 * 1e-6)
    assert close(bill.use.saved_by_response_cache, 200 * 1e-6)


def test_tenants_bear_idle_time_in_proportion_to_their_work():
    bill = make_bill([capacity(idle=50, busy=50)], [usage("a", output=300), usage("b", output=100)], QUARTER)
    a, b = bill.uses["m", "r1", "a"], bill.uses["m", "r1", "b"]
    assert (a.total / b.total, a.overhead / b.overhead) == (3, 3)
    assert a.total + b.total == bill.paid.total


def test_no_traffic_is_no_data_and_its_cost_is_nobodys():
    bill = make_bill([capacity(idle=100)], [], QUARTER)
    assert close(bill.paid.total, 0.1)
    assert bill.paid.unshared == bill.paid.total
    prices = unit_prices(bill.use, bill.paid.total)
    assert all(getattr(prices, name) is None for name in prices.__dataclass_fields__)


def test_work_that_nobody_counted_is_told():
    bill = make_bill([capacity(busy=100)], [usage("a", "r2", output=5)], QUARTER)
    assert bill.of(revision="r1").paid.unassigned == bill.paid.total
    assert bill.of(revision="r2").use.total == 0


def test_spared_tokens_without_any_work_have_no_known_worth():
    bill = make_bill([capacity(idle=10)], [usage(spared=Tokens(prompt=5, output=5))], QUARTER)
    assert (bill.use.unpriced, bill.use.saved_by_response_cache) == (10, 0)


def test_spot_is_compared_with_what_the_same_time_costs_on_demand():
    spot = Capacity(
        model="m",
        revision="r1",
        purchase=Purchase.SPOT,
        price=Fraction(1),
        on_demand_price=Fraction(4),
        busy=Fraction(1800),
    )
    given = Capacity(model="m", revision="r1", purchase=Purchase.GIVEN, price=Fraction(2), busy=Fraction(1800))
    paid = make_bill([spot, given], [], QUARTER).paid
    assert paid.by_purchase == {Purchase.SPOT: Fraction(1, 2), Purchase.GIVEN: 1}
    assert paid.on_demand == 2 + 1  # where no price on demand is known, what was paid


def test_bills_of_two_windows_add_up():
    first = make_bill([capacity(busy=10)], [usage("a", output=10)], QUARTER)
    second = make_bill([capacity(busy=30)], [usage("a", output=10), usage("b", output=20)], QUARTER)
    both = first + second
    assert both.paid.total == first.paid.total + second.paid.total
    assert both.uses["m", "r1", "a"] == first.use + second.uses["m", "r1", "a"]
    assert (both + Bill()).uses == both.uses


@pytest.mark.parametrize(
    "bad",
    [{"busy": -1.0}, {"idle": float("1e300")}, {"price": -1.0}],
    ids=["negative-time", "absurd-time", "negative-price"],
)
def test_hostile_figures_are_refused(bad):
    with pytest.raises(ValueError, match="is"):
        capacity(**bad)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.001, 1e16])
def test_what_is_no_amount_is_refused(value):
    with pytest.raises(ValueError, match="price"):
        exact(value, "the price")


def test_negative_tokens_are_refused():
    with pytest.raises(ValueError, match="output tokens is -1"):
        Tokens(output=-1)


@pytest.mark.parametrize(("prompt", "cached"), [(0.1, 0.2), (float("nan"), 0.0), (-1.0, -2.0)])
def test_weights_that_make_no_sense_are_refused(prompt, cached):
    with pytest.raises(ValueError, match=r"weight|work"):
        Weights.of(prompt, cached)


def test_weights_come_from_two_speeds():
    weights = Weights.measured(prompt_tokens_per_s=8000, output_tokens_per_s=2000)
    assert (weights.prompt, float(weights.cached)) == (Fraction(1, 4), pytest.approx(0.025))
    with pytest.raises(ValueError, match="0 tokens a second"):
        Weights.measured(prompt_tokens_per_s=0, output_tokens_per_s=1)


def test_a_million_of_nothing_has_no_price():
    assert per_million(Fraction(1), 0) is None
    assert per_million(Fraction(1), 2_000_000) == Fraction(1, 2)


@pytest.mark.parametrize(
    ("total", "shares", "parts"),
    [(10, [1, 1], [5, 5]), (10, [1, 1, 1], [4, 3, 3]), (0, [3, 4], [0, 0]), (5, [0, 0], [5, 0]), (5, [], [])],
)
def test_whole_numbers_are_divided_without_a_rest(total, shares, parts):
    assert divided(total, shares) == parts


def test_use_of_nothing_costs_nothing():
    assert (Use().total, Use() + Use()) == (0, Use())
