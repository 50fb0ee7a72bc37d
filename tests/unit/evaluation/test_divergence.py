"""Log-probabilities: what is computed from them, and replies that are not what they should be."""

from __future__ import annotations

import json
import math

import pytest

from inferdock.evaluation.divergence import FLOOR, diverge, read_positions


def position(**probabilities: float) -> dict:
    return {name[1:]: {"logprob": math.log(p), "decoded_token": name} for name, p in probabilities.items()}


def positions(*found: dict | None, count: int | None = None):
    body = json.dumps({"choices": [{"prompt_logprobs": [None, *found]}]}).encode()
    return read_positions(body, len(found) if count is None else count)


def test_equal_distributions_do_not_diverge():
    seen = positions(position(t1=0.7, t2=0.2))
    found = diverge([1], seen, seen)
    assert (found.tokens, found.logprob, found.kl) == (1, 0.0, 0.0)


def test_kl_is_that_of_two_known_distributions():
    """KL((0.5, 0.3, 0.2) from (0.4, 0.4, 0.2)), the last outcome being all that neither lists."""
    found = diverge([1], positions(position(t1=0.5, t2=0.3)), positions(position(t1=0.4, t2=0.4)))
    assert found.kl == pytest.approx(0.5 * math.log(0.5 / 0.4) + 0.3 * math.log(0.3 / 0.4))
    assert found.logprob == pytest.approx(math.log(0.4) - math.log(0.5))


def test_what_only_one_lists_goes_to_the_rest_and_only_lowers_the_kl():
    whole = diverge([1], positions(position(t1=0.5, t2=0.3)), positions(position(t1=0.4, t2=0.1)))
    part = diverge([1], positions(position(t1=0.5, t2=0.3)), positions(position(t1=0.4, t3=0.1)))
    assert 0 < part.kl < whole.kl


def test_minus_infinity_is_cut_so_that_one_token_does_not_decide_alone():
    gone = [{"1": {"logprob": -9999.0, "decoded_token": "t1"}}]
    found = diverge([1], positions(position(t1=1.0)), positions(*gone))
    assert found.logprob == pytest.approx(math.log(FLOOR))
    assert 0 < found.kl <= -math.log(FLOOR) + 1e-9


def test_another_tokenizers_numbers_are_not_compared():
    other = {"1": {"logprob": -0.1, "decoded_token": "something else"}}
    assert diverge([1], positions(position(t1=0.9)), positions(other)) is None


def test_the_answers_own_token_must_be_there():
    assert diverge([7], positions(position(t1=0.9)), positions(position(t1=0.9))) is None


def test_only_the_last_positions_are_the_answers():
    found = positions(position(t1=0.9), position(t2=0.9), position(t3=0.9), count=2)
    assert [list(p) for p in found] == [["2"], ["3"]]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no",
        b"[]",
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": [{"prompt_logprobs": null}]}',
        b'{"choices": [{"prompt_logprobs": [null]}]}',
        b'{"choices": [{"prompt_logprobs": [{"1": {"logprob": "high"}}]}]}',
        b'{"choices": [{"prompt_logprobs": [{"1": {"logprob": NaN}}]}]}',
        b'{"choices": [{"prompt_logprobs": ' + b"[" * 100_000,
    ],
    ids=range(10),
)
def test_a_reply_without_them_or_of_another_form_is_none(body):
    assert read_positions(body, 1) is None


def test_more_positions_than_there_are_is_none():
    assert positions(position(t1=0.9), count=9) is None
