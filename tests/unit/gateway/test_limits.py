"""Limits of a key: what is admitted, what a refusal says, and what the counters hold afterwards."""

import os

import pytest

from inferdock.balance.board import Board
from inferdock.gateway.limits import (
    COLUMNS,
    PICTURE_TOKENS,
    Admission,
    Limiter,
    RateLimitError,
    duration,
    estimate_tokens,
)
from inferdock.keys.key import ANONYMOUS, MAX_KEYS, Key

MINUTE = 60 * 1000.0
"""The beginning of a clock minute."""


def key(slot: int = 0, **limits: int) -> Key:
    return Key(id="aaaaaaaa", name="n", digest=b"", created_at=0.0, slot=slot, **limits)  # type: ignore[arg-type]


@pytest.fixture
def limiter() -> Limiter:
    return Limiter(Board.private(COLUMNS))


def refusal(limiter: Limiter, whose: Key, now: float, *, stream: bool = False, tokens: int = 0) -> RateLimitError:
    with pytest.raises(RateLimitError) as error:
        limiter.admit(whose, stream=stream, now=now, tokens=tokens)
    assert (error.value.status, error.value.code) == (429, "rate_limit_exceeded")
    return error.value


def headers(admission: Admission, now: float = MINUTE) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in admission.headers(now)}


# -- Requests --------------------------------------------------------------------------------------------------


def test_the_limit_is_admitted_and_no_more(limiter):
    mine = key(requests_per_minute=3)
    for _ in range(3):
        limiter.admit(mine, stream=False, now=MINUTE)
    error = refusal(limiter, mine, MINUTE)
    assert error.kind == "requests"
    assert "3 requests per minute" in error.message


def test_a_refusal_counts_nothing(limiter):
    mine = key(requests_per_minute=1, tokens_per_minute=10, concurrent_streams=1)
    refusal(limiter, mine, MINUTE, stream=True, tokens=11)
    limiter.admit(mine, stream=True, now=MINUTE, tokens=10)


def test_the_last_minute_slides_out_evenly(limiter):
    mine = key(requests_per_minute=10)
    for _ in range(10):
        limiter.admit(mine, stream=False, now=MINUTE)
    admitted = 0
    for second in range(60, 90):
        try:
            limiter.admit(mine, stream=False, now=MINUTE + second)
            admitted += 1
        except RateLimitError:
            pass
    assert admitted == 4  # half of the 10 has slid out by the end, and at second 89 not quite


def test_after_two_minutes_nothing_is_left(limiter):
    mine = key(requests_per_minute=2)
    for start in (0, 120, 240, 600):
        for _ in range(2):
            limiter.admit(mine, stream=False, now=MINUTE + start)
        refusal(limiter, mine, MINUTE + start)


def test_retry_after_is_when_enough_has_slid_out(limiter):
    mine = key(requests_per_minute=4)
    for _ in range(4):
        limiter.admit(mine, stream=False, now=MINUTE + 30)
    error = refusal(limiter, mine, MINUTE + 30)
    assert error.retry_after_s == 30 + 15  # the rest of this minute, then a quarter of the next
    assert "45s" in error.message
    limiter.admit(mine, stream=False, now=MINUTE + 75)


def test_keys_do_not_take_from_each_other(limiter):
    first, last = key(0, requests_per_minute=1), key(MAX_KEYS - 1, requests_per_minute=1)
    limiter.admit(first, stream=False, now=MINUTE)
    limiter.admit(last, stream=False, now=MINUTE)
    refusal(limiter, first, MINUTE)
    refusal(limiter, last, MINUTE)


# -- Tokens ----------------------------------------------------------------------------------------------------


def test_the_estimate_is_reserved(limiter):
    mine = key(tokens_per_minute=100)
    limiter.admit(mine, stream=False, now=MINUTE, tokens=60)
    assert refusal(limiter, mine, MINUTE, tokens=41).kind == "tokens"
    limiter.admit(mine, stream=False, now=MINUTE, tokens=40)


def test_what_was_not_used_is_given_back(limiter):
    mine = key(tokens_per_minute=100)
    limiter.admit(mine, stream=False, now=MINUTE, tokens=100).used_tokens(10, MINUTE + 1)
    limiter.admit(mine, stream=False, now=MINUTE + 1, tokens=90)


def test_what_was_used_beyond_the_estimate_is_booked_when_it_is_known(limiter):
    mine = key(tokens_per_minute=100)
    admission = limiter.admit(mine, stream=False, now=MINUTE, tokens=10)
    admission.used_tokens(100, MINUTE + 600)
    refusal(limiter, mine, MINUTE + 600, tokens=11)
    limiter.admit(mine, stream=False, now=MINUTE + 600, tokens=10)


def test_a_second_correction_replaces_the_first(limiter):
    mine = key(tokens_per_minute=100)
    admission = limiter.admit(mine, stream=False, now=MINUTE, tokens=10)
    for count in (90, 90, 5, 50):
        admission.used_tokens(count, MINUTE)
    refusal(limiter, mine, MINUTE, tokens=51)
    limiter.admit(mine, stream=False, now=MINUTE, tokens=50)


def test_tokens_of_a_minute_that_is_forgotten_are_not_given_to_another(limiter):
    mine = key(tokens_per_minute=100)
    late = limiter.admit(mine, stream=False, now=MINUTE, tokens=100)
    limiter.admit(mine, stream=False, now=MINUTE + 120, tokens=100)
    late.used_tokens(0, MINUTE + 120)
    refusal(limiter, mine, MINUTE + 120, tokens=1)


def test_a_request_larger_than_the_limit_is_told_so_and_not_to_try_again(limiter):
    error = refusal(limiter, key(tokens_per_minute=100), MINUTE, tokens=101)
    assert error.retry_after_s is None
    assert "max_tokens" in error.message


@pytest.mark.parametrize("tokens", [2**63, 10**30, 10**4000], ids=["2^63", "10^30", "10^4000"])
def test_an_absurd_wish_for_tokens_is_only_refused(limiter, tokens):
    assert len(refusal(limiter, key(tokens_per_minute=10**9), MINUTE, tokens=tokens).message) < 300


def test_negative_counts_are_nothing(limiter):
    mine = key(tokens_per_minute=10)
    admission = limiter.admit(mine, stream=False, now=MINUTE, tokens=-5)
    admission.used_tokens(-5, MINUTE)
    refusal(limiter, mine, MINUTE, tokens=11)
    limiter.admit(mine, stream=False, now=MINUTE, tokens=10)


def test_an_absurd_usage_fills_the_minute_and_no_other_counter(limiter):
    mine = key(tokens_per_minute=10, requests_per_minute=100, concurrent_streams=5)
    admission = limiter.admit(mine, stream=True, now=MINUTE, tokens=1)
    admission.used_tokens(10**30, MINUTE)
    admission.used_tokens(10**31, MINUTE)
    refusal(limiter, mine, MINUTE, tokens=1)
    assert limiter.streams(mine) == 1
    limiter.admit(mine, stream=False, now=MINUTE + 180, tokens=10)


# -- Streams ---------------------------------------------------------------------------------------------------


def test_a_stream_is_held_until_it_is_released_and_once_only(limiter):
    mine = key(concurrent_streams=2)
    first, second = (limiter.admit(mine, stream=True, now=MINUTE) for _ in range(2))
    error = refusal(limiter, mine, MINUTE + 500, stream=True)
    assert (error.kind, error.retry_after_s) == ("streams", 1)
    first.release()
    first.release()
    assert limiter.streams(mine) == 1
    limiter.admit(mine, stream=True, now=MINUTE)
    second.release()


def test_requests_that_do_not_stream_take_no_stream(limiter):
    mine = key(concurrent_streams=1)
    limiter.admit(mine, stream=True, now=MINUTE)
    limiter.admit(mine, stream=False, now=MINUTE).release()
    assert limiter.streams(mine) == 1


def test_a_refused_stream_is_not_held(limiter):
    mine = key(requests_per_minute=1, concurrent_streams=5)
    limiter.admit(mine, stream=True, now=MINUTE)
    refusal(limiter, mine, MINUTE, stream=True)
    assert limiter.streams(mine) == 1


# -- Keys without limits, headers ------------------------------------------------------------------------------


def test_a_key_without_limits_is_always_admitted_and_gets_no_headers(limiter):
    for _ in range(100):
        admission = limiter.admit(ANONYMOUS, stream=True, now=MINUTE, tokens=10**9)
    admission.used_tokens(10**9, MINUTE)
    admission.release()
    assert admission.headers(MINUTE) == []


def test_headers_say_limit_remainder_and_reset_of_the_limits_that_exist(limiter):
    assert headers(limiter.admit(key(requests_per_minute=60), stream=False, now=MINUTE + 18), MINUTE + 18) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1m42s",
    }
    assert headers(
        limiter.admit(key(1, tokens_per_minute=50), stream=False, now=MINUTE + 59, tokens=7), MINUTE + 60
    ) == {
        "x-ratelimit-limit-tokens": "50",
        "x-ratelimit-remaining-tokens": "43",
        "x-ratelimit-reset-tokens": "1m0s",
    }


def test_nothing_used_needs_no_reset(limiter):
    admission = limiter.admit(key(tokens_per_minute=50), stream=False, now=MINUTE)
    assert headers(admission)["x-ratelimit-reset-tokens"] == "0s"


def test_a_limit_of_streams_has_no_header(limiter):
    assert headers(limiter.admit(key(concurrent_streams=1), stream=True, now=MINUTE)) == {}


def test_a_refusal_carries_the_headers(limiter):
    mine = key(requests_per_minute=1, tokens_per_minute=10)
    limiter.admit(mine, stream=False, now=MINUTE, tokens=4)
    found = dict(refusal(limiter, mine, MINUTE, tokens=1).headers)
    assert found[b"x-ratelimit-remaining-requests"] == b"0"
    assert found[b"x-ratelimit-remaining-tokens"] == b"6"


def test_what_was_overused_remains_as_zero(limiter):
    admission = limiter.admit(key(tokens_per_minute=10), stream=False, now=MINUTE, tokens=1)
    admission.used_tokens(500, MINUTE)
    assert headers(admission)["x-ratelimit-remaining-tokens"] == "0"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, b"0s"), (1, b"1s"), (59, b"59s"), (60, b"1m0s"), (102, b"1m42s"), (360, b"6m0s")]
)
def test_durations_are_spelled_as_openai_does(seconds, text):
    assert duration(seconds) == text


# -- Estimates -------------------------------------------------------------------------------------------------


def test_the_estimate_is_a_quarter_of_the_bytes_plus_what_may_be_answered():
    assert estimate_tokens(b"x" * 400, None) == 101
    assert estimate_tokens(b"x" * 400, 50) == 151
    assert estimate_tokens(b"", -5) == 1


def test_a_picture_counts_the_same_whatever_its_bytes():
    def body(size: int) -> bytes:
        return b'{"url":"data:image/png;base64,' + b"A" * size + b'"}'

    assert estimate_tokens(body(10**6), None) == estimate_tokens(body(100), None)
    assert estimate_tokens(body(100) * 2, None) > 2 * PICTURE_TOKENS


# -- Boards ----------------------------------------------------------------------------------------------------


def workers(count: int) -> list[Limiter]:
    board = Board.shared(rows=count, columns=COLUMNS)
    rest = [Board.attach(board.fd, rows=count, columns=COLUMNS, row=row) for row in range(1, count)]
    os.close(board.fd)  # the memory lives as long as a board does
    return [Limiter(each) for each in (board, *rest)]


def test_all_workers_count_together():
    mine = key(requests_per_minute=4, tokens_per_minute=40, concurrent_streams=4)
    several = workers(4)
    admissions = [each.admit(mine, stream=True, now=MINUTE, tokens=10) for each in several]
    for each in several:
        refusal(each, mine, MINUTE, stream=True, tokens=10)
    for admission in admissions:
        admission.release()
    assert several[0].streams(mine) == 0


def test_a_worker_that_sleeps_through_a_minute_does_not_keep_its_old_counts_alive():
    mine = key(requests_per_minute=10)
    awake, asleep = workers(2)
    asleep.admit(mine, stream=False, now=MINUTE)
    for _ in range(10):
        awake.admit(mine, stream=False, now=MINUTE + 120)


def test_clearing_the_row_of_a_dead_worker_gives_its_streams_back():
    mine = key(concurrent_streams=1)
    survivor, dead = workers(2)
    dead.admit(mine, stream=True, now=MINUTE)
    refusal(survivor, mine, MINUTE, stream=True)
    survivor.board.clear_row(1)
    survivor.admit(mine, stream=True, now=MINUTE)


def test_the_limiter_leaves_the_columns_before_its_first_alone():
    board = Board.private(COLUMNS + 3)
    mine = key(requests_per_minute=9, tokens_per_minute=9, concurrent_streams=9)
    Limiter(board, first_column=3).admit(mine, stream=True, now=MINUTE, tokens=9)
    assert [board.own(column) for column in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(("columns", "first"), [(COLUMNS - 1, 0), (COLUMNS, 1), (COLUMNS, -1)])
def test_a_board_that_is_too_small_is_refused(columns, first):
    with pytest.raises(ValueError, match="columns"):
        Limiter(Board.private(columns), first_column=first)
