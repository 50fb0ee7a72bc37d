"""Laws of the limits: no minute gets more than the limit, no count is negative, waiting as told is enough."""

import os
from dataclasses import dataclass, field

from hypothesis import assume, given
from hypothesis import strategies as st

from inferdock.balance.board import Board
from inferdock.gateway.limits import COLUMNS, Admission, Limiter, RateLimitError
from inferdock.keys.key import Key

SHIFT, MASK = 36, (1 << 36) - 1
START = 60 * 5000.0

steps = st.lists(
    st.tuples(
        st.sampled_from(["admit", "admit", "admit", "use", "release"]),
        st.floats(0, 40),  # seconds that pass before
        st.integers(0, 30),  # tokens
        st.integers(0, 100),  # whose turn it is
    ),
    max_size=80,
)
limits = st.tuples(*[st.none() | st.integers(1, 20)] * 3).filter(any)


def key_of(rpm: int | None, tpm: int | None, streams: int | None) -> Key:
    return Key(
        id="aaaaaaaa",
        name="n",
        digest=b"",
        created_at=0.0,
        slot=7,
        requests_per_minute=rpm,
        tokens_per_minute=tpm,
        concurrent_streams=streams,
    )


def attach(count: int, kind: type[Board] = Board) -> list[Limiter]:
    """A limiter per worker, all on one piece of memory."""
    first = kind.shared(rows=count, columns=COLUMNS)
    boards = [first, *(kind.attach(first.fd, rows=count, columns=COLUMNS, row=row) for row in range(1, count))]
    os.close(first.fd)
    return [Limiter(board) for board in boards]


def cells(board: Board) -> list[int]:
    """Counts of the key in slot 7, in this worker's row: four rates, then streams."""
    found = [board.own(7 * 5 + cell) for cell in range(5)]
    return [cell & MASK for cell in found[:4]] + found[4:] if min(found) >= 0 else found


@dataclass
class History:
    """Replays steps and keeps the books in the plainest way."""

    key: Key
    limiters: list[Limiter]
    now: float = START
    admitted: list[tuple[float, int]] = field(default_factory=list)
    admissions: list[tuple[int, Admission]] = field(default_factory=list)
    streaming: set[int] = field(default_factory=set)

    def play(self, kind: str, wait_s: float, tokens: int, turn: int) -> None:
        self.now += wait_s
        if kind == "admit":
            self.admit(self.limiters[turn % len(self.limiters)], tokens)
        elif self.admissions:
            place = turn % len(self.admissions)
            if kind == "use":
                self.admissions[place][1].used_tokens(tokens, self.now)
            else:
                self.admissions[place][1].release()
                self.streaming.discard(place)

    def admit(self, limiter: Limiter, tokens: int) -> bool:
        try:
            admission = limiter.admit(self.key, stream=True, now=self.now, tokens=tokens)
        except RateLimitError:
            return False
        self.streaming.add(len(self.admissions))
        self.admissions.append((tokens, admission))
        self.admitted.append((self.now, tokens))
        return True

    def within(self, start: float, end: float) -> tuple[int, int]:
        """Requests and reserved tokens admitted from ``start`` until before ``end``."""
        found = [tokens for moment, tokens in self.admitted if start <= moment < end]
        return len(found), sum(found)


def minutes(history: History) -> set[float]:
    return {moment // 60 * 60 for moment, _ in history.admitted}


@given(limits, steps, st.integers(1, 3))
def test_no_clock_minute_admits_more_than_the_limits(wishes, history, workers):
    played = History(key_of(*wishes), attach(workers))
    for step in history:
        if step[0] != "use":  # corrections may give tokens back, which then are admitted again
            played.play(*step)
    for start in minutes(played):
        requests, tokens = played.within(start, start + 60)
        assert wishes[0] is None or requests <= wishes[0]
        assert wishes[1] is None or tokens <= wishes[1]


@given(limits, steps)
def test_no_60_seconds_admit_more_than_twice_the_limits(wishes, history):
    played = History(key_of(*wishes), attach(1))
    for step in history:
        if step[0] != "use":
            played.play(*step)
    for start, _ in played.admitted:
        requests, tokens = played.within(start, start + 60)
        assert wishes[0] is None or requests <= 2 * wishes[0]
        assert wishes[1] is None or tokens <= 2 * wishes[1]


@given(limits, steps, st.integers(1, 3))
def test_streams_never_exceed_their_limit_and_releasing_twice_is_once(wishes, history, workers):
    played = History(key_of(*wishes), attach(workers))
    for step in history:
        played.play(*step)
        if wishes[2] is not None:
            assert played.limiters[0].streams(played.key) == len(played.streaming) <= wishes[2]


@given(limits, steps, st.integers(1, 3))
def test_no_count_is_ever_negative(wishes, history, workers):
    played = History(key_of(*wishes), attach(workers))
    for step in history:
        played.play(*step)
        assert all(count >= 0 for limiter in played.limiters for count in cells(limiter.board))
    for _, admission in played.admissions:
        admission.used_tokens(0, played.now)
        admission.release()
    assert all(count >= 0 for limiter in played.limiters for count in cells(limiter.board))


@given(limits, steps, st.integers(0, 20), st.integers(1, 3))
def test_a_request_is_admitted_after_retry_after_if_nobody_else_asks(wishes, history, tokens, workers):
    played = History(key_of(wishes[0], wishes[1], None), attach(workers))
    for step in history:
        played.play(*step)
    asker = played.limiters[-1]
    try:
        asker.admit(played.key, stream=False, now=played.now, tokens=tokens)
    except RateLimitError as error:
        if error.retry_after_s is None:
            assert tokens > wishes[1]
            return
        asker.admit(played.key, stream=False, now=played.now + error.retry_after_s, tokens=tokens)


@given(limits, steps)
def test_headers_promise_neither_too_much_nor_less_than_nothing(wishes, history):
    played = History(key_of(wishes[0], wishes[1], None), attach(1))
    for step in history:
        played.play(*step)
    assume(played.admissions)
    found = dict(played.admissions[-1][1].headers(played.now))
    if wishes[0] is not None:
        remaining = int(found[b"x-ratelimit-remaining-requests"])
        assert 0 <= remaining <= wishes[0]
    if wishes[0] is not None and wishes[1] is None:
        more = 0
        while played.admit(played.limiters[0], 0):
            more += 1
        assert more == remaining


class Blind(Board):
    """A worker's view in the worst case: of the others it sees what was true at one moment long ago."""

    __slots__ = ("seen",)

    def look(self) -> None:
        """See the present state of all rows."""
        self.seen = [[super(Blind, self).of_row(row, c) for c in range(60)] for row in range(self.rows)]

    def of_row(self, row: int, column: int) -> int:
        return self.seen[row][column] if row != self.row else super().of_row(row, column)

    def total(self, column: int) -> int:
        return sum(self.of_row(row, column) for row in range(self.rows))


@given(st.integers(2, 5), st.integers(1, 20), st.booleans())
def test_workers_that_decide_at_the_same_instant_overshoot_by_less_than_their_number(workers, limit, by_streams):
    key = key_of(None, None, limit) if by_streams else key_of(limit, None, None)
    several = attach(workers, Blind)
    admitted = 0
    for _ in range(limit + 2):  # rounds: everybody looks, then everybody decides
        for limiter in several:
            assert isinstance(limiter.board, Blind)
            limiter.board.look()
        for limiter in several:
            try:
                limiter.admit(key, stream=True, now=START)
                admitted += 1
            except RateLimitError:
                pass
    assert limit <= admitted <= limit + workers - 1
