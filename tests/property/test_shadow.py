"""Laws of shadow traffic: an even share, and comparisons that hang neither on how bytes come nor on who asks."""

from __future__ import annotations

import json
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from inferdock.balance.shadow import Sampling
from inferdock.domain.shadow import Shadow
from inferdock.gateway.shadow.said import KINDS, Said, difference
from inferdock.gateway.shadow.witness import _unchunked
from inferdock.wire.http1 import LAST_CHUNK, chunk


@dataclass
class Answer:
    """One side of a comparison."""

    said: Said
    status: int = 200


texts = st.text(max_size=30)
pieces = st.lists(texts, min_size=1, max_size=8)
shares = st.floats(1e-4, 1)


@given(shares, st.integers(0, 500))
def test_each_number_of_requests_has_its_share_to_within_one(share: float, count: int) -> None:
    sampling = Sampling(Shadow("r", share))
    taken = sum(sampling.take() for _ in range(count))
    assert abs(taken - share * count) < 1


def test_a_share_of_one_is_everything() -> None:
    sampling = Sampling(Shadow("r", 1.0))
    assert all(sampling.take() for _ in range(1000))


def _events(deltas: list[str]) -> bytes:
    parts = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in deltas]
    parts.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return b"".join(b"data: %b\n\n" % json.dumps(part).encode() for part in parts) + b"data: [DONE]\n\n"


def _read(data: bytes, cuts: list[int], *, stream: bool) -> Answer:
    said, place = Said(stream=stream), 0
    for end in [*sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]:
        said.feed(data[place:end])
        place = end
    said.end()
    return Answer(said)


cuts = st.lists(st.integers(0, 10_000), max_size=6)


@given(pieces, cuts, cuts)
def test_the_same_text_is_equal_however_it_comes(deltas: list[str], ours: list[int], theirs: list[int]) -> None:
    whole = {"choices": [{"message": {"content": "".join(deltas)}, "finish_reason": "stop"}]}
    streamed = _read(_events(deltas), ours, stream=True)
    at_once = _read(json.dumps(whole).encode(), theirs, stream=False)
    assert difference(streamed, at_once, comparable=True) == "equal"


@given(pieces, pieces)
def test_a_difference_is_the_same_from_both_sides(mine: list[str], theirs: list[str]) -> None:
    a, b = _read(_events(mine), [], stream=True), _read(_events(theirs), [], stream=True)
    kind = difference(a, b, comparable=True)
    assert kind == difference(b, a, comparable=True)
    assert (kind == "equal") is ("".join(mine) == "".join(theirs))


@given(st.binary(max_size=300), st.booleans(), st.integers(200, 599))
def test_any_bytes_make_an_answer_of_some_kind(data: bytes, stream: bool, status: int) -> None:
    client = _read(_events(["a"]), [], stream=True)
    copy = _read(data, [], stream=stream)
    copy.status = status
    assert difference(client, copy, comparable=True) in KINDS


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8))
def test_framing_is_taken_off_exactly(payloads: list[bytes]) -> None:
    assert _unchunked(b"".join(map(chunk, payloads)) + LAST_CHUNK) == b"".join(payloads)
