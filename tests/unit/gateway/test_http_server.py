"""One client connection without a socket: time, order, bounds, 100-continue, ends."""

from __future__ import annotations

import pytest

from inferdock.gateway.http_server import LINGER_S, MAX_PIPELINED, MAX_READ_AHEAD
from inferdock.wire.http_request import SLICE_BYTES
from tests.fuzz.corpus import CHUNKED, GET, HOST, POST
from tests.fuzz.drive import CONTINUE, Answering, Driven, FakeTransport, SmallLimits

BIG = SmallLimits(max_body_bytes=32 * 1024 * 1024, max_header_bytes=32 * 1024)


def held(**arguments) -> Driven:
    """A connection whose requests are answered when the test says so."""
    return Driven(handler=Answering(at_once=False), **arguments)


def wait(driven: Driven, seconds: float) -> None:
    """Let time pass, with the chores of each second."""
    for _ in range(int(seconds)):
        driven.loop.now += 1.0
        driven.connection.check_time(driven.loop.now)
        driven.loop.run()


def sized(body: bytes, *headers: bytes) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return POST + lines + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


# -- Time ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [b"X: y\r\n", b"a"], ids=["lines", "bytes of one line"])
def test_a_head_that_drips_gets_408_however_often_it_drips(part):
    driven = Driven()
    driven.feed(POST + b"A: ")
    for _ in range(31):
        driven.feed(part)
        wait(driven, 1)
    assert driven.handler.statuses == [408]


@pytest.mark.parametrize("head", [POST + b"Content-Length: 1000\r\n\r\n", CHUNKED + b"fff\r\n"], ids=["sized", "chunk"])
def test_a_body_that_drips_gets_408_however_often_it_drips(head):
    driven = Driven()
    driven.feed(head)
    for _ in range(31):
        driven.feed(b"x")
        wait(driven, 1)
    assert driven.handler.statuses == [408]
    assert driven.answers.startswith(b"HTTP/1.1 408 ")


def test_a_request_in_time_is_served():
    driven = Driven()
    for piece in (POST, b"Content-Length: 3\r\n\r\na", b"b", b"c"):
        driven.feed(piece)
        wait(driven, 7)
    assert len(driven.seen) == 1


def test_time_spent_on_an_answer_is_not_the_next_requests():
    driven = held()
    driven.feed(GET + GET[:20])
    wait(driven, 100)
    driven.answer_all()
    wait(driven, 29)
    driven.feed(GET[20:])
    driven.answer_all()
    assert len(driven.seen) == 2


def test_the_next_request_has_its_time_after_the_answer_and_no_more():
    driven = held()
    driven.feed(GET + GET[:20])
    driven.answer_all()
    wait(driven, 32)
    assert driven.handler.statuses == [408]


def test_blank_lines_do_not_keep_an_idle_connection():
    driven = Driven()
    for _ in range(80):
        driven.feed(b"\r\n")
        wait(driven, 1)
    assert driven.transport.closed
    assert not driven.handler.statuses


def test_an_idle_connection_is_closed_in_its_time():
    driven = Driven()
    driven.feed(GET)
    wait(driven, 75)
    assert not driven.transport.closed
    wait(driven, 2)
    assert driven.transport.closed


def test_a_refused_client_that_does_not_leave_is_left():
    driven = Driven()
    driven.feed(b"GARBAGE\r\n\r\n")
    driven.feed(b"more of it" * 1000)
    assert driven.transport.eof
    assert not driven.transport.closed
    wait(driven, LINGER_S + 2)
    assert driven.transport.closed


class SlowClient(FakeTransport):
    """Takes no byte; only an abort ends it."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_a_client_that_does_not_take_its_last_bytes_is_cut():
    driven = Driven(transport=SlowClient())
    driven.feed(POST + b"Connection: close\r\n\r\n")
    assert not driven.transport.aborted
    wait(driven, 78)
    assert driven.transport.aborted


# -- Order and bounds ----------------------------------------------------------------------------------------


def test_a_thousand_pipelined_requests_are_answered_in_order_and_few_are_held():
    requests = [POST + b"X-Number: %d\r\n\r\n" % number for number in range(1000)]
    driven = held()
    driven.feed(b"".join(requests))
    assert not driven.transport.reading
    assert driven.connection.waiting <= MAX_PIPELINED
    driven.answer_all()
    assert [dict(headers)[b"x-number"] for _, _, headers, _ in driven.seen] == [b"%d" % n for n in range(1000)]
    assert [driven.answers.index(b"answer %d" % n) for n in (1, 2, 1000)] == sorted(
        driven.answers.index(b"answer %d" % n) for n in (1, 2, 1000)
    )


def test_small_reads_fill_the_queue_no_further():
    driven = held()
    for _ in range(200):
        driven.feed(GET)
    assert driven.connection.waiting == MAX_PIPELINED
    driven.answer_all()
    assert len(driven.seen) == 200


@pytest.mark.parametrize("piece", [4096, 65_536, 262_144])
def test_bodies_are_not_read_far_ahead_of_the_answer(piece):
    raw = b"".join(sized(b"x" * 100_000) for _ in range(50))
    driven = held(limits=BIG)
    driven.feed(GET)
    most = 0
    for place in range(0, len(raw), piece):
        driven.feed(raw[place : place + piece])
        most = max(most, driven.connection.held_bytes)
    assert most <= MAX_READ_AHEAD + max(piece, SLICE_BYTES) + SLICE_BYTES
    driven.answer_all()
    assert len(driven.seen) == 51


def test_a_large_body_behind_an_answer_is_read_on_after_it():
    driven = held(limits=BIG)
    driven.feed(GET)
    body = b"x" * 3_000_000
    driven.feed(sized(body)[:700_000])
    assert not driven.transport.reading
    driven.feed(sized(body)[700_000:])
    driven.answer_all()
    assert [len(body) for *_, body in driven.seen] == [0, 3_000_000]


def test_no_answer_is_begun_while_the_client_takes_none():
    driven = Driven()
    driven.connection.pause_writing()
    driven.feed(GET * 10)
    assert not driven.seen
    driven.connection.resume_writing()
    driven.loop.run()
    assert len(driven.seen) == 10


def test_small_reads_fill_the_queue_no_further_while_the_client_takes_no_answer():
    driven = Driven()
    driven.connection.pause_writing()
    for _ in range(200):
        driven.feed(GET)
    assert driven.connection.waiting == MAX_PIPELINED
    driven.take_answers(True)
    assert len(driven.seen) == 200


def test_a_body_in_tiny_chunks_costs_little_more_than_its_bytes():
    driven = Driven(limits=BIG)
    driven.feed(CHUNKED)
    for _ in range(100):
        driven.feed(b"1\r\na\r\n" * 1000)
    reader = driven.connection._reader
    assert driven.connection.held_bytes == 100_000
    assert len(reader._pieces) + len(reader._blocks) < 1000
    driven.feed(b"0\r\n\r\n")
    assert driven.seen[0][3] == b"a" * 100_000


@pytest.mark.parametrize("size", [1, 100, 1000])
def test_chunks_that_are_mostly_extension_are_refused(size):
    driven = Driven()
    driven.feed(CHUNKED)
    for _ in range(2000):
        driven.feed(b"1;" + b"x" * size + b"\r\na\r\n")
    assert driven.handler.statuses == ([] if size == 1 else [400])


def test_exactly_the_largest_body_is_taken():
    limit = SmallLimits().max_body_bytes
    for raw in (sized(b"x" * limit), CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (limit, b"x" * limit)):
        driven = Driven()
        driven.feed(raw)
        assert len(driven.seen[0][3]) == limit
    for raw in (sized(b"x" * (limit + 1)), CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (limit + 1, b"x" * (limit + 1))):
        driven = Driven()
        driven.feed(raw)
        assert driven.handler.statuses == [413]


@pytest.mark.parametrize("step", [1, 100, 100_000])
def test_exactly_the_largest_head_is_taken(step):
    limit = SmallLimits().max_header_bytes
    fixed = len(b"/v1/completions" + b"host" + b"x" + b"a")
    for surplus, statuses in ((0, []), (1, [431])):
        raw = POST + b"A: " + b"x" * (limit - fixed + surplus) + b"\r\n\r\n"
        driven = Driven()
        for place in range(0, len(raw), step):
            driven.feed(raw[place : place + step])
        assert driven.handler.statuses == statuses


# -- 100 Continue --------------------------------------------------------------------------------------------

EXPECT = POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"


def test_a_client_that_waits_is_told_to_continue_once():
    driven = Driven()
    for byte in (EXPECT[i : i + 1] for i in range(len(EXPECT))):
        driven.feed(byte)
    assert bytes(driven.transport.written) == CONTINUE
    driven.feed(b"a")
    driven.feed(b"bc")
    assert bytes(driven.transport.written).count(CONTINUE) == 1
    assert len(driven.seen) == 1


def test_the_continue_of_a_request_behind_another_comes_after_that_ones_answer():
    driven = held()
    driven.feed(GET + EXPECT)
    assert not driven.transport.written
    driven.answer_all()
    assert bytes(driven.transport.written).endswith(b"answer 1" + CONTINUE)
    driven.feed(b"abc")
    driven.answer_all()
    assert bytes(driven.transport.written).endswith(b"answer 2")


def test_the_continue_is_not_lost_behind_a_full_queue():
    driven = held()
    driven.feed(GET * 40 + EXPECT)
    driven.answer_all()
    assert bytes(driven.transport.written).endswith(b"answer 40" + CONTINUE)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(EXPECT + b"abc", id="body came along"),
        pytest.param(EXPECT + b"a", id="body has begun"),
        pytest.param(POST + b"Expect: 100-continue\r\n\r\n", id="no body"),
        pytest.param(POST + b"Expect: 100-continue\r\nContent-Length: 0\r\n\r\n", id="empty body"),
        pytest.param(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", id="version 1.0"),
        pytest.param(POST + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n", id="body too large"),
    ],
)
def test_nobody_is_told_to_continue_in_vain(raw):
    driven = Driven()
    driven.feed(raw)
    assert CONTINUE not in driven.transport.written


def test_version_1_0_cannot_expect_anything():
    driven = Driven()
    driven.feed(b"POST / HTTP/1.0\r\nExpect: a-miracle\r\nContent-Length: 3\r\n\r\nabc")
    assert len(driven.seen) == 1


# -- Ends ----------------------------------------------------------------------------------------------------


def test_a_bad_request_behind_good_ones_is_refused_after_their_answers():
    driven = held()
    driven.feed(GET + GET + b"GARBAGE\r\n\r\n")
    assert not driven.transport.written
    driven.answer_all()
    statuses = [line for line in driven.answers.split(b"\r\n") if b"HTTP/1.1 " in line]
    assert [line[line.index(b"HTTP/1.1 ") :][9:12] for line in statuses] == [b"200", b"200", b"400"]
    assert driven.transport.eof


def test_a_length_too_large_is_refused_before_the_body():
    driven = Driven()
    driven.feed(POST + b"Content-Length: 99999999\r\n\r\n")
    assert driven.handler.statuses == [413]


def test_a_request_cut_behind_an_answer_is_refused_when_the_client_is_done():
    driven = Driven()
    driven.feed(GET + GET[:10])
    driven.end()
    assert driven.handler.statuses == [400]


def test_answers_after_the_client_has_gone_go_nowhere():
    driven = held()
    driven.feed(GET)
    driven.transport.closed = True
    driven.connection.connection_lost(None)
    driven.handler.answer()
    assert not driven.transport.written


class Failing(Answering):
    """A handler with a defect."""

    def handle(self, request, turn) -> None:
        raise ZeroDivisionError


def test_a_handler_that_fails_is_reported_and_its_client_cut():
    driven = Driven(handler=Failing())
    driven.feed(GET)
    assert isinstance(driven.loop.failures[0]["exception"], ZeroDivisionError)
    assert driven.transport.closed


def test_a_drained_connection_closes_after_the_answer_under_way():
    driven = held()
    driven.feed(GET + GET)
    driven.connection.last_answer()
    driven.answer_all()
    assert len(driven.seen) == 1
    assert b"connection: close" in driven.answers
    assert driven.transport.eof  # gently: the second request was read but is not answered, so the client may repeat it


def test_limits_of_a_connection_may_change_while_it_is_open():
    driven = Driven()
    driven.limits.max_body_bytes = 10
    driven.connection.limits_changed()
    driven.feed(sized(b"x" * 11))
    assert driven.handler.statuses == [413]


def test_host_is_looked_at_in_every_request():
    driven = Driven()
    driven.feed(GET + GET.replace(HOST, b"Host: a b\r\n"))
    assert (len(driven.seen), driven.handler.statuses) == (1, [400])
