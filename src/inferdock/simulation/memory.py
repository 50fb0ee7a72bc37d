"""Whether a model fits on the GPUs of a replica, and how many tokens its KV cache then has room for.

The sum is the one that the chart makes before it renders (``templates/_checks_hardware.tpl``): of the share of the GPUs
that vLLM may take, weights and activations are taken off; what is left must hold one sequence of full length. Several
GPUs of a replica count together, as with ``--tensor-parallel-size``. Computed in fractions, so that a model that fits
exactly does.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Final

GIB: Final = 2**30
ACTIVATIONS_GIB: Final = 1
"""Per GPU, with graphs; the chart takes as much."""
DEFAULT_MODEL_LEN: Final = 4096
DEFAULT_UTILIZATION: Final = 0.9
LEVELS_PER_DOUBLING: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What a model takes, however many GPUs it is spread over.

    Attributes:
        weights_gib: of the weight files; of a quantised version these are few.
        kv_bytes_per_token: keys and values of a token in all layers: 2 x layers x KV heads x head size x bytes.
        max_model_len: longest prompt plus answer, in tokens.
        utilization: share of a GPU that vLLM may take (``--gpu-memory-utilization``), 0-1.
    """

    weights_gib: float
    kv_bytes_per_token: float
    max_model_len: int = DEFAULT_MODEL_LEN
    utilization: float = DEFAULT_UTILIZATION


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A model on the GPUs of one replica.

    Attributes:
        footprint: of the model.
        gpus: of the replica.
        memory_gib: that a process can have of one of them.
    """

    footprint: Footprint
    gpus: int
    memory_gib: float

    @property
    def share_gib(self) -> Fraction:
        """What vLLM may take."""
        return _exact(self.memory_gib) * self.gpus * _exact(self.footprint.utilization)

    @property
    def left_gib(self) -> Fraction:
        """What is left for the KV cache; below 0 where not even the weights fit."""
        return self.share_gib - _exact(self.footprint.weights_gib) - ACTIVATIONS_GIB * self.gpus

    @property
    def sequence_gib(self) -> Fraction:
        """What one sequence of full length takes of the KV cache."""
        return _exact(self.footprint.kv_bytes_per_token) * self.footprint.max_model_len / GIB

    @property
    def fits(self) -> bool:
        """Whether there is room for one sequence of full length."""
        return self.left_gib >= self.sequence_gib

    @property
    def kv_cache_tokens(self) -> int:
        """Tokens that the KV cache has room for."""
        return max(0, floor(self.left_gib * GIB / _exact(self.footprint.kv_bytes_per_token)))

    @property
    def sum(self) -> str:
        """The sum as a sentence without its full stop; the chart's words."""
        model = self.footprint
        return (
            f"vLLM may take {float(self.share_gib):.1f} GiB ({self.gpus} x {self.memory_gib:g} GiB x "
            f"{model.utilization:g}), the weights take {model.weights_gib:.1f}, "
            f"activations {ACTIVATIONS_GIB * self.gpus:.1f}, and one sequence of {model.max_model_len} tokens needs "
            f"{float(self.sequence_gib):.2f} GiB of KV cache"
        )


def gpus_to_fit(footprint: Footprint, memory_gib: float, most: int) -> int | None:
    """The fewest GPUs, a power of two as vLLM splits heads, on which a model fits; None: ``most`` are too few."""
    count = 1
    while count <= most:
        if Room(footprint=footprint, gpus=count, memory_gib=memory_gib).fits:
            return count
        count *= 2
    return None


def levels(full: int, room: int) -> list[int]:
    """Sizes of a KV cache to try where there is room for less than the full one: from ``full`` down to ``room``.

    A larger cache is not always faster within objectives: more sequences run at once, and each gets slower. A fleet is
    planned for the worst of these sizes. As those of a larger room are among those of a smaller one, more room never
    makes a plan worse. The last one is at most ``room``, and 0.84 of it or more.

    Args:
        full: tokens by the profile.
        room: tokens that there is room for; at least 1.
    """
    found = [full]
    while found[-1] > room:
        found.append(max(1, int(full / 2 ** (len(found) / LEVELS_PER_DOUBLING))))
    return found


def _exact(value: float) -> Fraction:
    return Fraction(str(value))  # 0.9 as it was written, as the chart reckons
