"""What is wanted of a quantisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Method = Literal["awq", "rtn"]
METHODS: Final[tuple[Method, ...]] = ("awq", "rtn")
BITS: Final = (4,)
"""vLLM's CPU kernel for packed weights (CPUWNA16LinearKernel) takes no other width."""
GROUP_SIZES: Final = (32, 64, 128)
"""Those that the kernels of vLLM take on CPUs and on GPUs (Marlin) alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How weights are quantised.

    Attributes:
        method: ``awq`` looks for scales and ranges that keep what the layers answer on the calibration texts; ``rtn``
            rounds each weight to the nearest step, which is what AWQ is to be compared with.
        bits: of a weight.
        group_size: inputs of a layer that share one scale and one zero point.
        samples: calibration texts used, at most.
        sequence_length: tokens of a text used, at most.
        seed: of the choice of texts, where there are more.
    """

    method: Method = "awq"
    bits: int = 4
    group_size: int = 128
    samples: int = 128
    sequence_length: int = 512
    seed: int = 1
