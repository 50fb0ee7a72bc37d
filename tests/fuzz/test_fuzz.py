"""Fuzzing of everything that reads bytes from outside: ``make fuzz``, and a few seconds of it in every test run.

``INFERDOCK_FUZZ_SECONDS`` says how long (60 where ``CI`` is set, else 5), ``INFERDOCK_FUZZ_SEED`` repeats a run. A
failure prints its input: put it into ``REGRESSIONS``.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence

import pytest

from tests.fuzz import mutate
from tests.fuzz.corpus import CHUNKED, GET, POST, STREAM, VALID_REQUESTS, VALID_RESPONSES
from tests.fuzz.drive import cut
from tests.fuzz.laws import check_requests, check_response

SECONDS = float(os.environ.get("INFERDOCK_FUZZ_SECONDS") or (60 if os.environ.get("CI") else 5))
SEED = int(os.environ.get("INFERDOCK_FUZZ_SEED") or time.time_ns())

_UPGRADE = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"

REGRESSIONS: dict[str, list[bytes]] = {
    "trailers became headers": [CHUNKED + b"0\r\nAuthorization: Bearer x\r\n\r\n"],
    "thousands of ignored upgrades deepened the stack": [_UPGRADE * 2000],
    "a bad request behind a good one took the answer away": [GET + GET, b"GARBAGE\r\n\r\n"],
    "data behind a close took the answer away": [POST + b"Connection: close\r\n\r\n" + GET],
    "a refused HEAD got a body": [b"HEAD /health HTP/1.1\r\nHost: x\r\n\r\n"],
    "a length hidden by white space passed the early limit": [POST + b"Content-Length: 9999999 \r\n\r\n"],
    "a close in a trailer": [CHUNKED + b"0\r\nConnection: close\r\n\r\n" + GET],
    "the preface of HTTP/2": [GET + b"PRI * HTTP/2.0\r\n\r\nSM"],
    "a continue after the refusal, once a slow client read again": [
        POST + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"more",
    ],
    "an upgrade with a body behind the same one without": [
        POST + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
        POST + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}",
    ],
    "names that begin in one piece": [POST + b"Transfer-Encoding: Host: a b\r\nch", b"unked0\r\n\r\n"],
}
"""Requests, in pieces, that broke a law once (or the fuzzer's idea of it)."""

RESPONSE_REGRESSIONS: dict[str, list[bytes]] = {
    "an empty length found a remembered one": [b"HTTP/1.1 503 \r\nContent-Length: \r\n\r\n"],
    "an endless length in zeros": [b"HTTP/1.1 200 OK\r\nContent-Length: " + b"0" * 5000 + b"\r\n\r\n"],
    "a trailer that is no field": [STREAM + b"0\r\nno field\r\n\r\n"],
    "a bare carriage return in a trailer": [STREAM + b"0\r\n\ra: b\r\n\r\n"],
    "a coding in a trailer": [STREAM + b"0\r\nTransfer-Encoding: identity\r\n\r\n"],
    "a line feed in an extension": [STREAM + b"2;a\nb\r\nab\r\n", b"0\r\n\r\n"],
    "a space behind a chunk length": [STREAM + b"2 \r\nab\r\n0\r\n\r\n"],
}

Case = tuple[list[bytes], bool]
"""Pieces, and the test's own choice: answered at once, or answer to a HEAD."""


def damaged(source: random.Random, valid: Sequence[bytes], most: int) -> Case:
    """A few valid messages behind each other, damaged and cut."""
    messages = source.choices(valid, k=source.randint(1, most))
    if source.random() < 0.2:  # each in one piece, and some again: what is remembered of one must not change another
        messages = [_damage(message, source) for message in messages]
        return [*messages, *source.choices(messages, k=2), *source.choices(valid, k=1)], source.random() < 0.5
    raw = _damage(b"".join(messages), source)
    if source.random() < 0.1:
        pieces = [raw[place : place + 1] for place in range(min(len(raw), 600))] + [raw[600:]]
    else:
        pieces = cut(raw, [source.getrandbits(20) for _ in range(source.randint(0, 6))])
    return pieces, source.random() < 0.5


def _damage(raw: bytes, source: random.Random) -> bytes:
    return mutate.apply(raw, mutate.aim(raw, mutate.draw(source), source))


def run_for(seconds: float, make: Callable[[random.Random], Case], check: Callable[[list[bytes], bool], None]) -> int:
    """Make and check cases until the time is over; returns how many.

    Raises:
        AssertionError: a law was broken, or an exception escaped; says by which input.
    """
    source = random.Random(SEED)
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        pieces, choice = make(source)
        count += 1
        try:
            check(pieces, choice)
        except Exception as error:
            raise AssertionError(f"seed {SEED}, case {count}, choice {choice}: {pieces!r}") from error
    return count


@pytest.mark.timeout(SECONDS + 120)
def test_no_bytes_of_a_client_break_a_law(record_property):
    valid = list(VALID_REQUESTS.values())
    count = run_for(
        SECONDS * 0.7,
        lambda source: damaged(source, valid, 4),
        lambda pieces, at_once: check_requests(pieces, at_once=at_once, slow=len(pieces) % 2 == 0),
    )
    record_property("cases", count)
    assert count > SECONDS


@pytest.mark.timeout(SECONDS + 120)
def test_no_bytes_of_a_replica_break_a_law(record_property):
    valid = list(VALID_RESPONSES.values())
    count = run_for(
        SECONDS * 0.3,
        lambda source: damaged(source, valid, 2),
        lambda pieces, bodiless: check_response(pieces, bodiless=bodiless),
    )
    record_property("cases", count)
    assert count > SECONDS


@pytest.mark.parametrize("pieces", [pytest.param(pieces, id=name) for name, pieces in REGRESSIONS.items()])
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("slow", [True, False])
def test_a_request_that_broke_a_law_once_does_not_again(pieces, at_once, slow):
    check_requests(pieces, at_once=at_once, slow=slow)


@pytest.mark.parametrize("pieces", [pytest.param(pieces, id=name) for name, pieces in RESPONSE_REGRESSIONS.items()])
@pytest.mark.parametrize("bodiless", [True, False])
def test_a_response_that_broke_a_law_once_does_not_again(pieces, bodiless):
    check_response(pieces, bodiless=bodiless)
