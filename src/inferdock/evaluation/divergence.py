"""How far two engines' distributions lie apart along one answer. Pure.

Both engines read the champion's answer (teacher forcing), so that a single early difference does not decide
everything after it. vLLM gives each position's log-probabilities of the actual token and of the most probable ones
(``prompt_logprobs``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

FLOOR: Final = 1e-6
"""Probability below which nothing is believed: half precision logits say no more, and logarithms explode there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Sums over the tokens of one answer.

    Attributes:
        tokens: how many.
        logprob: candidate's minus champion's log-probability of the tokens, nats.
        kl: Kullback-Leibler divergence of the candidate from the champion, nats: a lower bound (see :func:`kl`).
    """

    tokens: int
    logprob: float
    kl: float


class _Entry(msgspec.Struct):
    logprob: float
    decoded_token: str | None = None


class _Choice(msgspec.Struct):
    prompt_logprobs: list[dict[str, _Entry] | None] | None = None


class _Body(msgspec.Struct):
    choices: list[_Choice]


_DECODER = msgspec.json.Decoder(_Body)
Position = Mapping[str, _Entry]


def read_positions(body: bytes, count: int) -> Sequence[Position] | None:
    """The last ``count`` positions of a completion's ``prompt_logprobs``; None where the engine gives none."""
    try:
        choices = _DECODER.decode(body).choices
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    found = choices[0].prompt_logprobs if choices else None
    if not found or not 0 < count <= len(found):
        return None
    return [position for position in found[-count:] if position] if all(found[-count:]) else None


def diverge(ids: Sequence[int], champion: Sequence[Position], candidate: Sequence[Position]) -> Divergence | None:
    """Compare position by position; None where the two do not speak of the same tokens."""
    logprob = total = 0.0
    for token, before, after in zip(map(str, ids), champion, candidate, strict=True):
        if token not in before or token not in after or not _same_words(before, after):
            return None
        logprob += _known(after[token]) - _known(before[token])
        total += kl(before, after)
    return Divergence(tokens=len(ids), logprob=logprob, kl=total) if ids else None


def kl(before: Position, after: Position) -> float:
    """KL divergence at one position over the tokens that both list, all others taken as one.

    Taking outcomes together never raises a KL divergence (data processing inequality, Cover and Thomas, Elements of
    Information Theory, 2.8), so this is a lower bound of the true one.
    """
    shared = [(math.exp(_known(before[t])), math.exp(_known(after[t]))) for t in before.keys() & after.keys()]
    rest = (1.0 - sum(p for p, _ in shared), 1.0 - sum(q for _, q in shared))
    return max(0.0, sum(p * math.log(p / max(q, FLOOR)) for p, q in (*shared, rest) if p > FLOOR))


def _known(entry: _Entry) -> float:
    """A log-probability within what can be believed; vLLM writes -9999 for minus infinity."""
    return min(0.0, max(math.log(FLOOR), entry.logprob))


def _same_words(before: Position, after: Position) -> bool:
    """Equal ids mean equal words; another tokenizer's numbers cannot be compared."""
    return all(
        before[t].decoded_token == after[t].decoded_token
        for t in before.keys() & after.keys()
        if None not in (before[t].decoded_token, after[t].decoded_token)
    )
