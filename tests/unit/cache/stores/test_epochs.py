"""Flushes as numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.cache.epochs import MAX_AHEAD_MS, Epochs
from inferdock.cache.store import EVERYTHING, Scope
from tests.support.cache_values import FakeClock, entry

NOW_MS = int(FakeClock().now * 1000)
MODEL, TENANT = Scope("model", "m"), Scope("tenant", "one")
SCOPES = st.sampled_from([EVERYTHING, MODEL, Scope("model", "n"), TENANT, Scope("tenant", "two"), Scope("tenant", "m")])


def _covers(scope: Scope, tenant: str, model: str) -> bool:
    return scope.kind == "all" or scope.name == (model if scope.kind == "model" else tenant)


@given(st.lists(SCOPES, max_size=20), SCOPES)
def test_a_flush_changes_the_epochs_of_its_scope_and_no_others(before: list[Scope], scope: Scope) -> None:
    epochs = Epochs(FakeClock())
    for flushed in before:
        epochs.bump(flushed)
    pairs = [(tenant, model) for tenant in ("one", "two") for model in ("m", "n")]
    old = {pair: epochs.of(*pair) for pair in pairs}
    epochs.bump(scope)
    for pair in pairs:
        assert (epochs.of(*pair) != old[pair]) is _covers(scope, *pair)


@given(st.lists(SCOPES, min_size=1, max_size=30))
def test_no_epoch_comes_back(flushes: list[Scope]) -> None:
    epochs, clock = Epochs(clock := FakeClock()), clock
    seen: list[str] = []
    for number, scope in enumerate(flushes):
        clock.now -= number  # not even when time goes back
        epochs.bump(scope)
        token = epochs.of("one", "m")
        assert token not in seen[:-1]
        if not seen or token != seen[-1]:
            seen.append(token)


@given(st.lists(st.tuples(SCOPES, st.integers(1, NOW_MS)), max_size=20), st.randoms())
def test_the_order_in_which_numbers_arrive_does_not_matter(news: list[tuple[Scope, int]], random: object) -> None:
    one, other = Epochs(FakeClock()), Epochs(FakeClock())
    for scope, number in news:
        one.merge({scope.tag: number})
    random.shuffle(news)  # type: ignore[attr-defined]
    for scope, number in news:
        other.merge({scope.tag: number})
    for pair in (("one", "m"), ("two", "n"), ("m", "m")):
        assert one.of(*pair) == other.of(*pair)


def test_lower_numbers_revive_nothing() -> None:
    epochs = Epochs(FakeClock())
    epochs.bump(MODEL)
    token = epochs.of("one", "m")
    assert epochs.merge({MODEL.tag: 5, EVERYTHING.tag: 7}) == ["g"]
    assert epochs.of("one", "m") == token


def test_what_was_raised_here_stays_unspread_until_redis_says_it() -> None:
    epochs = Epochs(FakeClock())
    number = epochs.bump(MODEL)
    epochs.merge({MODEL.tag: number - 1})
    assert epochs.unspread() == {MODEL.tag: number}
    epochs.merge({MODEL.tag: number})
    assert epochs.unspread() == {}


def test_a_flush_of_all_makes_lower_numbers_needless() -> None:
    epochs = Epochs(FakeClock())
    for scope in (MODEL, TENANT, EVERYTHING):
        epochs.bump(scope)
    assert set(epochs.all()) == set(epochs.unspread()) == {"g"}


def test_more_scopes_than_there_is_room_for_become_a_flush_of_all() -> None:
    epochs = Epochs(FakeClock(), max_scopes=10)
    before = epochs.of("nobody", "none")
    for number in range(200):
        epochs.bump(Scope("tenant", f"tenant {number}"))
        assert len(epochs.all()) <= 10
    assert epochs.of("nobody", "none") != before


@pytest.mark.parametrize(
    "poison",
    [{"g": NOW_MS + MAX_AHEAD_MS + 1}, {"g": 0}, {"g": -5}, {"x": 5}, {"m:short": 5}, {"t:" + "G" * 32: 5}],
    ids=str,
)
def test_what_is_no_tag_or_number_is_left_out(poison: dict[str, int]) -> None:
    epochs = Epochs(FakeClock())
    assert epochs.merge(poison) == []
    assert epochs.all() == {}


def test_a_tenant_and_a_model_of_one_name_are_two_scopes() -> None:
    epochs = Epochs(FakeClock())
    epochs.bump(Scope("tenant", "m"))
    assert epochs.of("one", "m") == "0"


def test_tags_do_not_hold_names() -> None:
    assert "acme" not in Scope("tenant", "acme").tag


def test_an_entry_is_of_its_epoch() -> None:
    epochs = Epochs(FakeClock())
    stored = entry(epoch=epochs.of("tenant-one", "m"))
    assert epochs.holds(stored)
    epochs.bump(Scope("tenant", "tenant-one"))
    assert not epochs.holds(stored)


def test_names_that_are_missing_or_no_unicode_have_an_epoch_too() -> None:
    epochs = Epochs(FakeClock())
    assert epochs.of("", "") == epochs.of("\ud800", "m") == "0"


@pytest.mark.parametrize(("kind", "name"), [("all", "x"), ("model", ""), ("tenant", "")])
def test_a_scope_is_all_or_has_a_name(kind: str, name: str) -> None:
    with pytest.raises(ValueError, match="scope"):
        Scope(kind, name)  # type: ignore[arg-type]
