"""Histories: appended by compare-and-set, read whole and in order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec

from inferdock.domain.moment import spell
from inferdock.registry import ledger
from inferdock.registry.event import NO_EVENT, Alias, Event, Move, digest_of
from inferdock.registry.store import Store
from tests.contract.registry.conftest import Maker
from tests.support.registry_values import NOW

WRITERS = 32


def event(name: str = "demo", seq: int = 1, previous: str = NO_EVENT, actor: str = "ada") -> Event:
    return Event(
        name=name,
        seq=seq,
        time=spell(NOW),
        actor=actor,
        reason="",
        previous=previous,
        change=Alias(moves=(Move("candidate", None, "1.0.0"),)),
    )


def chain(length: int) -> list[Event]:
    events: list[Event] = []
    for seq in range(1, length + 1):
        events.append(event(seq=seq, previous=digest_of(events[-1]) if events else NO_EVENT))
    return events


def test_an_empty_store_has_no_models(store: Store) -> None:
    assert store.names() == []


def test_a_model_that_is_not_there_has_no_events(store: Store) -> None:
    assert store.events("nobody") == []


def test_events_come_back_as_they_were_appended_and_in_order(store: Store, again: Maker) -> None:
    events = chain(12)
    assert [store.append(one) for one in events] == [True] * 12
    assert again().events("demo") == events


def test_a_number_that_is_taken_is_not_given_again(store: Store) -> None:
    first, late = event(), event(actor="bob")
    assert store.append(first)
    assert not store.append(late)
    assert store.events("demo") == [first]


def test_the_same_event_is_appended_once(store: Store) -> None:
    assert store.append(event())
    assert not store.append(event())


def test_each_model_has_a_history_of_its_own(store: Store) -> None:
    one, other = event("demo"), event("demo-2")
    assert store.append(one)
    assert store.append(other)
    assert (store.events("demo"), store.events("demo-2")) == ([one], [other])
    assert store.names() == ["demo", "demo-2"]


def test_names_differ_by_case(store: Store) -> None:
    store.append(event("demo"))
    assert store.events("Demo") == []
    store.append(event("Demo"))
    assert store.names() == ["Demo", "demo"]


def test_text_of_any_kind_survives(store: Store) -> None:
    odd = msgspec.structs.replace(event(actor='Zoë "quoted" \\ 日本'), reason="line\nline\t\u2028\x7f ünïcödé 🎉")
    store.append(odd)
    assert store.events("demo") == [odd]


def test_of_many_writers_of_one_number_one_wins(store: Store, again: Maker) -> None:
    events = [event(actor=f"writer {number}") for number in range(WRITERS)]
    stores = [again() for _ in events]
    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(lambda pair: pair[0].append(pair[1]), zip(stores, events, strict=True)))
    assert won.count(True) == 1
    assert store.events("demo") == [events[won.index(True)]]


def test_of_many_writers_of_the_same_event_one_wins(again: Maker) -> None:
    store = again()
    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(lambda _: store.append(event()), range(WRITERS)))
    assert won.count(True) == 1


def test_many_writers_who_decide_again_lose_no_event(store: Store, again: Maker) -> None:
    def add(number: int) -> None:
        mine = again()
        while True:
            state = ledger.fold("demo", mine.events("demo"))
            if mine.append(event(seq=state.seq + 1, previous=state.head, actor=f"writer {number}")):
                return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(24)))
    events = store.events("demo")
    assert ledger.fold("demo", events).seq == 24
    assert {one.actor for one in events} == {f"writer {number}" for number in range(24)}
