"""The circuit breaker, moment by moment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferdock.cache.breaker import Breaker


def _opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(failures=3, base_s=1.0, max_s=5.0, probe_s=2.0)
    for _ in range(3):
        assert breaker.allows(now)
        breaker.failed(now)
    return breaker


def test_failures_in_a_row_open_it() -> None:
    breaker = _opened()
    assert breaker.state == "open"
    assert not breaker.allows(0.99)


def test_failures_with_successes_between_do_not() -> None:
    breaker = Breaker(failures=3)
    for _ in range(10):
        breaker.failed(0.0)
        breaker.failed(0.0)
        breaker.succeeded()
    assert breaker.state == "closed"


def test_after_the_wait_one_probe_goes_through() -> None:
    breaker = _opened()
    assert [breaker.allows(1.0), breaker.allows(1.0), breaker.allows(1.5)] == [True, False, False]


def test_asking_whether_it_is_ready_takes_no_probe() -> None:
    breaker = _opened()
    assert not breaker.ready(0.5)
    assert breaker.ready(1.0)
    assert breaker.allows(1.0)


def test_a_probe_that_succeeds_closes_it() -> None:
    breaker = _opened()
    breaker.allows(1.0)
    breaker.succeeded()
    assert breaker.state == "closed"
    breaker.failed(1.0)
    assert breaker.allows(1.0)


def test_each_probe_that_fails_doubles_the_wait_up_to_a_limit() -> None:
    breaker, now, waits = _opened(), 0.0, []
    for _ in range(5):
        began = now
        while not breaker.allows(now):
            now += 0.5
        waits.append(now - began)
        breaker.failed(now)
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_a_probe_that_nobody_reports_on_is_followed_by_another() -> None:
    breaker = _opened()
    assert breaker.allows(1.0)
    assert [breaker.allows(2.9), breaker.allows(3.0)] == [False, True]


def test_news_from_before_it_opened_say_nothing() -> None:
    breaker = _opened()
    breaker.succeeded()
    assert breaker.state == "open"
    breaker.failed(0.9)
    assert breaker.allows(1.0)


@given(st.lists(st.tuples(st.sampled_from(["ask", "ok", "bad"]), st.floats(0, 3)), max_size=60))
def test_whatever_happens_it_lets_something_through_in_time(events: list[tuple[str, float]]) -> None:
    breaker, now = Breaker(max_s=5.0), 0.0
    for what, after in events:
        now += after
        if what == "ask":
            breaker.allows(now)
        elif what == "ok":
            breaker.succeeded()
        else:
            breaker.failed(now)
    assert breaker.allows(now + 5.0)
