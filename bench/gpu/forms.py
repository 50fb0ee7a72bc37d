"""The forms of the benchmark: evidence on a GPU, and two that only try the procedure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from bench.gpu.shape import MISTRAL_7B, TINY, Awq, Shape
from inferdock.domain.errors import ConfigError

WEIGHTS: Final[dict[str, Awq | None]] = {"bf16": None, "awq": Awq()}
"""What the weights are stored as; AWQ computes in float16, as AutoAWQ's folders ask."""
_ENOUGH: Final = 50
"""Requests of a step: more than a 95th percentile needs to be judged."""
_ENOUGH_FOR_MEDIAN: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How the benchmark runs.

    Attributes:
        note: what its figures are worth.
        prompt_tokens, output_tokens: of every request.
        first_rate, last_rate: requests per second; the sweep doubles from the one to at most the other.
        refinements: steps between the knee and the next rate.
        pairs: runs, direct and through the gateway, for the gateway's share.
        minutes: of load, for all weights together; starts come on top.
        max_num_seqs, max_model_len: the engine's limits.
        vllm: whether a real engine is started.
    """

    name: str
    note: str
    shape: Shape
    prompt_tokens: int
    output_tokens: int
    first_rate: float
    last_rate: float
    refinements: int
    pairs: int
    minutes: float
    max_num_seqs: int
    max_model_len: int
    vllm: bool = True

    def seconds(self, budget_s: float) -> float:
        """How long one run lasts, if one kind of weights has so many seconds."""
        doublings = math.floor(math.log2(self.last_rate / self.first_rate)) + 1
        runs = 2 * (doublings + self.refinements + self.pairs)
        return budget_s / runs


def step_seconds(seconds: float, rate: float) -> float:
    """Long enough for a step to have samples to be judged by."""
    return max(seconds, _ENOUGH / rate)


def pair_seconds(seconds: float, rate: float) -> float:
    """Long enough for a median."""
    return max(seconds, _ENOUGH_FOR_MEDIAN / rate)


_PROCEDURE: Final = "A check of the procedure, not evidence of speed: "
FORMS: Final = {
    form.name: form
    for form in (
        Form(
            name="gpu",
            note="Invented weights of a published model's shape: speed is that of the shape, answers mean nothing.",
            shape=MISTRAL_7B,
            prompt_tokens=512,
            output_tokens=128,
            first_rate=1,
            last_rate=256,
            refinements=2,
            pairs=6,
            minutes=40,
            max_num_seqs=256,
            max_model_len=4096,
        ),
        Form(
            name="cpu",
            note=_PROCEDURE + "a model of a few megabytes with invented weights on vLLM's CPU engine.",
            shape=TINY,
            prompt_tokens=64,
            output_tokens=16,
            first_rate=8,
            last_rate=1024,
            refinements=1,
            pairs=6,
            minutes=3,
            max_num_seqs=64,
            max_model_len=1024,
        ),
        Form(
            name="sim",
            note=_PROCEDURE
            + "no model at all; the simulated engine has the same speed whatever the weights are called.",
            shape=TINY,
            prompt_tokens=32,
            output_tokens=8,
            first_rate=100,
            last_rate=800,
            refinements=1,
            pairs=2,
            minutes=0.2,
            max_num_seqs=8,
            max_model_len=1024,
            vllm=False,
        ),
    )
}


def chosen(text: str) -> list[str]:
    """The weights of a list with commas.

    Raises:
        ConfigError: one of them is not known.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or set(names) - set(WEIGHTS) or len(set(names)) < len(names):
        raise ConfigError(
            f"`{text}` is not a list of weights.", cure=f"Write {' or '.join(WEIGHTS)}, or both with a comma."
        )
    return names
